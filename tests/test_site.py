"""The site is built strictly and without a network, and its made pages hold every key, entry and public module."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax.cli import list_command
from ranjax.data.sets import SETS
from ranjax.methods.table import METHODS
from ranjax.run import config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site_pages():
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_keys_holds_every_key_with_its_default_and_meaning(site_pages):
    page = site_pages.config_page()
    for key in config.KEYS:
        assert f"**`{key.name}`** = `{key.default!r}`" in page
    assert page.count("\n\n**`") == len(config.KEYS)


def test_the_page_of_entries_holds_every_table_and_method(site_pages):
    page = site_pages.entries_page()
    assert all(f"\n## {kind}\n" in page for kind in list_command.TABLES)
    assert all(f"| `{name}` |" in page for name in METHODS)


def test_the_page_of_data_sets_holds_each_with_its_licence_and_what_to_mind(site_pages):
    page = site_pages.data_sets_page()
    assert all(f"\n## {name.replace('_', chr(92) + '_')}: " in page for name in SETS)
    assert page.count("* licence: ") == len(SETS)
    assert "* note: The images are NIH ChestX-ray14's: no test of transfer from that set." in page


def test_each_table_of_the_results_and_the_archive_has_its_command(site_pages):
    tables = {
        file
        for page in ("results.md", "ran_v1.md")
        for file in re.findall(r"\(tables/([\w.]+\.csv)\)", (ROOT / "docs" / page).read_text())
    }
    # A comparison of data sets, and what a throw-away script printed, as the page says.
    assert tables - {*site_pages.commands()} == {"beds_before.csv", "ran_v1_validation_2.csv"}


def test_the_pages_of_the_api_name_modules_that_exist(site_pages):
    for package in site_pages.PACKAGES:
        named = re.findall(r"(?m)^::: (.+)$", site_pages.api_page(package))
        assert named, package
        assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in named)


def test_a_link_that_leaves_the_documentation_holds_on_the_site_or_becomes_its_words(site_pages):
    text = "[a](docs/data.md#x) ![b](docs/images/chain.svg) [c](pyproject.toml) [d](CHANGELOG.md) `[e](docs/data.md)`"
    shown = site_pages.moved(text, "README.md", "index.md")
    assert shown.startswith("[a](data.md#x) ![b](images/chain.svg) c [d](project/changelog.md) ")
    assert site_pages.moved("[a](../../README.md)", "docs/guides/x.md", "guides/x.md") == "[a](../index.md)"


@pytest.mark.slow
def test_the_site_is_built_strictly_without_a_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    nowhere = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(line, cwd=ROOT, env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    for page in ("index.html", "reference/config.html", "reference/api/attacks.html", "project/changelog.html"):
        html = (tmp_path / "site" / page).read_text()
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?://[^\"]*\.(?:js|css|png|woff2?)\"", html)
    assert "epsilon" in (tmp_path / "site" / "reference" / "api" / "attacks.html").read_text()
