"""Documentation: links lead somewhere, the README is short and runs, pictures are true, pages stay short."""

import importlib.util
import re
from pathlib import Path

import pytest

from ranjax.report.abbreviations import ABBREVIATIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_WORDS, DOCS_WORDS = 600, 20_800


def module_of(file: Path):
    """A module that no package holds."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    found = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text()))
    plain = (re.sub(r"[`*]|\[([^]]+)\]\([^)]*\)", r"\1", one).lower() for one in found)
    return {re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), address
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), address


def test_the_documentation_stays_short():
    words = sum(len(page.read_text().split()) for page in PAGES if (ROOT / "docs") in page.parents)
    assert words <= DOCS_WORDS, "shorten a page for what you add, or move a table to docs/tables"


def test_the_readme_is_one_screen_and_holds_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= README_WORDS
    install = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e"
    assert f"{install} '.[all]' && .venv/bin/python -m ranjax.main --config configs/ran.py\n" in text
    assert f"{install} '.[all,test]' && .venv/bin/python -m pytest\n" in text


def test_the_readmes_example_runs(capsys):
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / "README.md").read_text())
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.startswith("epsilon ")


def test_the_readmes_figures_are_those_of_the_results():
    results = " ".join((ROOT / "docs" / "results.md").read_text().split())
    part = (ROOT / "README.md").read_text().partition("## What the default job finds")[2].partition("## ")[0]
    figures = re.findall(r"[\d.]+ \[[\d., ]+\]", part)
    assert len(figures) >= 5
    assert [figure for figure in figures if figure not in results] == []


def test_the_pictures_are_drawn_from_the_table_of_the_results():
    for name, picture in module_of(ROOT / "docs" / "images" / "draw.py").pictures().items():
        assert (ROOT / "docs" / "images" / name).read_text() == picture, name


def test_the_glossary_ends_on_the_site_with_every_abbreviation_of_the_report_page():
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert page.rstrip().endswith("`ranjax/report/abbreviations.py`.")
    ending = module_of(ROOT / "docs" / "site_pages.py").abbreviation_table()
    assert [short for short, words in ABBREVIATIONS.items() if f"| {short} | {words} |" not in ending] == []
