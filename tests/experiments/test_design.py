"""Experiments call what the package has; the design of RAN runs."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from experiments.design import autoattack_heads, candidates, over_runs
from experiments.design import ran as design
from experiments.design.candidates import SHRINKAGE, Candidates
from ranjax.methods.head_inputs import Examples
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
    configs.override(config, "adapt.methods", "lp_filter,ran")
    pipeline.execute(config, tmp_path, mesh=make_mesh(1), stop=lambda: False, say=print, until="adapt")
    for group, only in (
        ("filter", "=RAN, filter 1.5"),
        ("scopes", "=TeCoA"),
        ("objectives", "=RAN, all terms"),
        ("parts", "=robust ridge on tokens, 7 copies, filter 2.0"),
        (
            "candidates",
            "=displacement, mu 1;=displacement projection, k 8;=shrinkage LDA;=text prior;=attacked copies, 2/255",
        ),
    ):
        arguments = f"{tmp_path} --condition clean --group {group} --radii 4/255 --seeds 1 --examples 8 --only".split()
        monkeypatch.setattr("sys.argv", ["ran", *arguments, only])
        assert design.main() == 0
        said = capsys.readouterr().out
        assert [name for name in only.replace("=", "").split(";") if f"\n{name} " not in f"\n{said}"] == []

    few = ["--condition", "clean", "--methods", "lp_filter", "ran", "--images", "8", "--steps", "2", "--queries", "5"]
    few += ["--attacks", "apgd_ce", "square", "--out", str(tmp_path / "autoattack.json")]
    for words in ("ran: clean", "| RAN less LP (filter) | "):  # the second call attacks nothing again
        monkeypatch.setattr("sys.argv", ["autoattack_heads", str(tmp_path), *few])
        assert autoattack_heads.main() == 0
        said = capsys.readouterr().out
        assert words in said
    assert "clean" not in said
    monkeypatch.setattr("sys.argv", ["autoattack_heads", str(tmp_path), *few, "--epsilon", "1/255"])
    with pytest.raises(SystemExit):
        autoattack_heads.main()
    assert "expected figures of the same settings" in capsys.readouterr().err


def test_the_mean_over_runs_has_students_interval():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = [3.5, 3.8, 5.0, -1.7]
    low, high = scipy_stats.t.interval(0.95, 3, np.mean(values), scipy_stats.sem(values))
    assert over_runs.over_runs(values) == f"{np.mean(values):.1f} [{low:.1f}, {high:.1f}]"
    assert over_runs.over_runs([2.0]) == "2.0"
    runs = [
        {"contrasts": [{"endpoint": name, "difference": 0.01 * k} for name, *_ in over_runs.ENDPOINTS]} for k in (1, 3)
    ]
    assert over_runs.points(runs, ["a", "b"]).lines[0][1:] == ["1.0", "3.0", "2.0 [-10.7, 14.7]", "at least 10"]


def test_the_table_of_autoattack_has_the_last_attack_and_differences():
    shares = {"clean": 0.5, "apgd_ce": 0.3}
    found = {run: {"lp_filter": shares | {"square": low}, "ran": shares} for run, low in (("a", 0.2), ("b", 0.1))}
    lines = autoattack_heads.table(found, ["a", "b"], ["lp_filter", "ran"])
    assert lines[2].startswith("| LP (filter) | 20.0 | 10.0 | 15.0 [")
    assert lines[3].startswith("| **RAN** | 30.0 | 30.0 | 30.0 [30.0, 30.0] |")
    assert lines[4].startswith("| RAN less LP (filter) | 10.0 | 20.0 | 15.0 [")


def test_candidates_are_what_their_names_say(monkeypatch):
    discriminant_analysis = pytest.importorskip("sklearn.discriminant_analysis", reason="of the extra 'test'")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = (rng.normal(size=(120, 6)) + 2 * np.eye(3, 6)[labels]).astype(np.float32)
    train = Examples(features, labels.astype(np.int32))
    pushed = features.copy()
    pushed[:, 0] += 5

    prompted = features[:, :3]  # what a text tower would say: the class's own axis
    made = Candidates(train, train, lambda variables, rows, epsilon, steps: pushed[rows], 3, prompted)
    found = {name: head for name, head, _ in made.named()}
    # What an attack moves alone is projected out; it weighs less where it is penalised.
    away = np.concatenate([[1.0], np.zeros(5)])
    ridge = np.linalg.norm(away @ found["ridge"][0])
    assert np.linalg.norm(away @ found["displacement projection, k 8"][0]) < 1e-6 * ridge
    assert np.linalg.norm(away @ found["displacement, mu 10"][0]) < 0.2 * ridge
    # A prior of nothing changes nothing; under a strong penalty it answers as the prompts do, but for its bias.
    monkeypatch.setattr(candidates, "PRIORS", (0.0,))
    np.testing.assert_allclose(made.towards_prompts()[0], found["ridge"][0])
    monkeypatch.setattr(candidates, "PRIORS", (1.0,))
    monkeypatch.setattr(candidates, "PENALTIES", (1e12, 1e-6))
    monkeypatch.setattr(made, "best", lambda heads: heads[0])
    answers = made.z @ made.towards_prompts()[0]
    np.testing.assert_allclose(answers - answers.mean(0), made.scores - made.scores.mean(0), atol=1e-3)
    # Shrinkage LDA answers as scikit-learn's of the same shrinkage, whichever validation chose.
    weights, bias = found["shrinkage LDA"]
    own = (made.z @ weights + bias).argmax(-1)
    theirs = [
        discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share, priors=[1 / 3] * 3)
        .fit(made.z, labels)
        .predict(made.z)
        for share in SHRINKAGE
    ]
    assert any(np.array_equal(own, one) for one in theirs)
