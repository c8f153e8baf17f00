"""Wheel and source distribution hold what a run and its tests need; the wheel works away from the checkout."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import ranjax
from ranjax.cli import console, outcome
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs

ROOT = Path(__file__).resolve().parents[1]
NAMES = {path.stem for path in (ROOT / "configs").glob("*.py")}


def test_a_config_that_comes_with_ranjax_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert set(configs.shipped()) == NAMES
    for name in ("ran:smoke", "configs/ran.py:smoke"):
        assert configs.load(name) == configs.load(f"{ROOT / 'configs' / 'ran.py'}:smoke")
    assert console.call(["describe", "ran:smoke", "--config.seed=3"]) == outcome.DONE
    assert "seed = 3" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'ran'"):
        configs.load("rann")


def test_a_file_of_the_same_name_goes_before_the_config_that_comes_with_ranjax(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = "from ranjax.run.config import default_config\n\n\ndef get_config():\n    return default_config()\n"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ran.py").write_text(own)
    assert configs.load("configs/ran.py") == configs.default_config() != configs.load("ran")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["run", "ran", "--config", "configs/ran.py"], "arguments: ran "), (["describe"], "required: --config ")],
)
def test_two_configs_or_none_are_refused_in_one_line(words, said, capsys):
    assert console.call(words) == outcome.REFUSED
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_every_place_says_the_same_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = re.search(r"(?m)^version: (.*)$", (ROOT / "CITATION.cff").read_text())
    assert ranjax.__version__ == project["version"] == cited[1]
    assert re.search(
        rf"(?m)^## {re.escape(project['version'])} \(\d{{4}}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text()
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with a wheel and a source distribution, built from a copy as a release builds them."""
    pytest.importorskip("build", reason="the extra `dist` is not installed")
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    kept = ["ranjax", "configs", "docs", "experiments", "tests", ".ci", "pyproject.toml", "setup.py", "MANIFEST.in"]
    kept += [
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "constraints.txt",
    ]
    for name in kept:
        given = ROOT / name
        if given.is_dir():
            shutil.copytree(given, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(given, source / name)
    line = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("no package index gives setuptools 77 or newer here")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


@pytest.mark.slow
def test_the_source_distribution_holds_tests_configs_and_documentation(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("configs", "docs", "tests", "experiments"):
        files = [one.relative_to(ROOT) for one in (ROOT / folder).rglob("*") if one.is_file()]
        assert {str(one) for one in files if "__pycache__" not in one.parts} <= names
    assert {"constraints.txt", "CHANGELOG.md", "LICENSE", "MANIFEST.in", ".ci/run"} <= names


@pytest.mark.slow
def test_the_wheel_runs_away_from_the_checkout(built, tmp_path):
    """Installed without its dependencies into a fresh environment that sees those of this one."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"ranjax/configs/{name}.py" for name in NAMES} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "configs/"))]
    missing = [
        path.relative_to(ROOT)
        for path in (ROOT / "ranjax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and str(path.relative_to(ROOT)) not in names
    ]
    assert missing == []

    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    (site,) = (place / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    others = [one for one in sys.path if one.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    say = "import ranjax; print(ranjax.__file__)"
    found = subprocess.run([python, "-c", say], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip().startswith(str(site)), found.stdout
    job = [python, "-m", "ranjax", "run", "ran:smoke", "--workdir", "run", "--config.compile_cache=off"]
    done = subprocess.run(job, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "report" / "index.html").is_file()
