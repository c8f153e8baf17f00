"""The layout of the package: layers, no circles, one file a name, and what each part may import."""

import collections
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ranjax.core import extras
from ranjax.core.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "core", "attacks", "objectives", "models", "training", "data", "evaluation", "methods", "report", "run", "cli",
)  # fmt: skip
# What the README's second command does not install; CI installs it after.
NOT_OF_THE_TESTS = ("mlflow", "wandb", "cloud", "ray", "slurm")


def _normal(name):
    return name.lower().replace("_", "-")


def _requirements():
    """The names of what the package needs, by extra ("" for the core)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = importlib.import_module("packaging.requirements")
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {_normal(requirements.Requirement(text).name) for text in texts} for extra, texts in groups.items()}


def _with_what_they_bring(names):
    requirements = importlib.import_module("packaging.requirements")
    found, waiting = set(), list(names)
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        for need in map(requirements.Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return found


@pytest.mark.filterwarnings("default")
def test_no_import_runs_upward_and_there_is_no_circle(monkeypatch, capsys):
    from importlinter.application.use_cases import lint_imports
    from importlinter.configuration import configure

    configure()
    monkeypatch.chdir(ROOT)
    kept = lint_imports(cache_dir=None)
    assert kept, capsys.readouterr().out


def test_no_two_modules_have_one_name():
    paths = [path for path in (ROOT / "ranjax").rglob("*.py") if not path.stem.startswith("__")]
    twice = {name for name, count in collections.Counter(path.stem for path in paths).items() if count > 1}
    assert not twice


@pytest.mark.parametrize("package", ["ranjax", *(f"ranjax.{name}" for name in PACKAGES)])
def test_a_package_can_be_imported_with_the_core_dependencies_alone(package):
    core = _with_what_they_bring(_requirements()[""])
    owners = importlib.metadata.packages_distributions()
    blocked = {module for module, names in owners.items() if not core & set(map(_normal, names))} - {"ranjax"}
    assert set(EXTRAS) & set(owners) <= blocked
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(blocked)!r}:
            raise ModuleNotFoundError(f"only the core is present, not {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
import {package}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_importing_ranjax_or_its_attacks_is_light():
    code = "import sys, time; began = time.perf_counter(); import ranjax.attacks; print(time.perf_counter() - began)"
    code += "; print(sorted({'flax', 'orbax', 'transformers', 'tensorflow', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 5


def test_every_module_of_an_extra_is_installed_by_it_and_every_requirement_is_pinned():
    owners = importlib.metadata.packages_distributions()
    requirements = _requirements()
    requirements["data"] |= requirements["tfds"]
    assert set(EXTRAS) - set(owners) <= {module for module, extra in EXTRAS.items() if extra in NOT_OF_THE_TESTS}
    for module in set(EXTRAS) & set(owners):
        assert set(map(_normal, owners[module])) & requirements[EXTRAS[module]], module
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_normal(line.partition("==")[0]) for line in lines if "==" in line}
    asked = set().union(*(names for extra, names in requirements.items() if extra != "parity"))
    assert asked - {"ranjax"} <= pinned


def test_a_missing_extra_is_one_line_that_names_the_command_before_anything_runs(tmp_path):
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
from ranjax.cli import console
sys.exit(console.call(sys.argv[1:]))
"""
    words = ["run", "--config", "configs/ran.py:smoke", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: matplotlib is not installed. Install it with: pip install 'ranjax[report]'\n"
    assert not (tmp_path / "run").exists()


def test_what_a_library_user_lacks_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else True)
    extras.require("matplotlib")
    with pytest.raises(ImportError, match=r"pandas is not installed\. Install it with: pip install 'ranjax\[report\]'"):
        extras.require("matplotlib", "pandas")
