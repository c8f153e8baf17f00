"""Experiments call what the package has; the design of RAN runs."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from experiments.design import ran as design
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.training.devices import make_mesh

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").rglob("*.py"))


def unknown_names(tree: ast.AST) -> list[str]:
    """Names that the code takes from ranjax, by import or by a dot on an imported module, and that are not there."""
    modules: dict[str, ModuleType] = {}
    unknown = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ranjax":
            package = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    found = getattr(package, alias.name, unknown)
                    if found is unknown:
                        found = importlib.import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    unknown.append(f"line {node.lineno}: {node.module}.{alias.name}")
                    continue
                if isinstance(found, ModuleType):
                    modules[alias.asname or alias.name] = found
    local = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in local:
            module = modules.get(node.value.id)
            if module is not None and not hasattr(module, node.attr):
                unknown.append(f"line {node.lineno}: {module.__name__}.{node.attr}")
    return unknown


@pytest.mark.parametrize("script", SCRIPTS)
def test_experiments_take_only_what_the_package_has(script):
    assert unknown_names(ast.parse((ROOT / script).read_text(encoding="utf-8"))) == []


def test_a_name_that_is_gone_is_found():
    gone = "from ranjax.run.stages import adapt\nfrom ranjax.run.stages import nowhere\nadapt.gone(1)\nadapt.run\n"
    assert unknown_names(ast.parse(gone)) == [
        "line 2: ranjax.run.stages.nowhere",
        "line 3: ranjax.run.stages.adapt.gone",
    ]


@pytest.mark.slow
def test_the_design_runs_with_a_filter_a_scope_and_an_objective(tmp_path, monkeypatch, capsys):
    config = configs.load(f"{ROOT}/configs/ran.py:smoke")
    for key in ("noise.pgd.steps", "adapt.epochs", "adapt.attack_steps", "adapt.tower.epochs", "evaluate.pgd.steps"):
        configs.override(config, key, "1")
    for key in ("pretrain.steps", "pretrain.checkpoint_every", "pretrain.log_every"):
        configs.override(config, key, "2")
    configs.override(config, "noise.ratios", "0.0")
    pipeline.execute(config, tmp_path, mesh=make_mesh(1), stop=lambda: False, say=print, until="pretrain")
    for group, only in (
        ("filter", "=RAN, filter 1.5"),
        ("scopes", "=TeCoA"),
        ("objectives", "=RAN, all terms"),
        ("parts", "=robust ridge on tokens, 7 copies, filter 2.0"),
    ):
        arguments = f"{tmp_path} --condition clean --group {group} --radii 4/255 --seeds 1 --examples 8 --only".split()
        monkeypatch.setattr("sys.argv", ["ran", *arguments, only])
        assert design.main() == 0
        said = capsys.readouterr().out
        assert [name for name in only.replace("=", "").split(";") if f"\n{name} " not in f"\n{said}"] == []
