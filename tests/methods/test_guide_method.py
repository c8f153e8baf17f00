"""docs/guides/add_a_method.md as it stands: methods from a module outside ranjax in keys, run, results and page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax.core import files

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add_a_method.md").read_text()
CODE = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
(COMMAND,) = (block.split()[1:] for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture
def lab(tmp_path):
    """A working directory with the guide's module."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "nearest.py").write_text(CODE)
    return tmp_path


def call(lab, *words, code=0):
    line = [sys.executable, "-m", "ranjax", *words]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=500, cwd=lab, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def figures(lab, method):
    rows = files.read_json(lab / "run" / "results.json")["rows"]
    return {(row["attack"], row["metric"], row["split"]): row["value"] for row in rows if row["method"] == method}


@pytest.mark.slow
def test_the_methods_of_the_guide_go_through_a_whole_run(lab):
    # The command of the guide, on a config that takes seconds.
    methods = "--config.adapt.methods=mlp,my_lab.nearest:SLOW_MLP,my_lab.nearest:NEAREST"
    strength = COMMAND[-1]
    assert strength == "--config.adapt.nearest.strength=3"
    run = ["run", "--config", str(ROOT / "experiments/reliability/tiny.py"), "--workdir=run", methods]
    # Keys of methods from outside may stand before the key that names these.
    run.insert(1, strength)
    run.append("--config.noise.ratios=(0.0,)")
    call(lab, *run)
    first = figures(lab, "nearest")
    assert {attack for attack, _, _ in first} >= {"none", "pgd"}
    assert figures(lab, "slow_mlp") != figures(lab, "mlp")
    results = files.read_json(lab / "run" / "results.json")
    assert "nearest" in {check["method"] for check in results["masking"]}
    page = (lab / "run" / "report" / "index.html").read_text()
    assert ">Nearest mean<" in page
    assert "#332288" in page
    adapted = files.read_json(lab / "run" / "adapt" / "clean" / "manifest.json")
    assert adapted["methods"]["nearest"]["settings"] == {"strength": 3.0, "features": "embedding"}
    call(lab, "export", "run", "--condition=clean", "--method=nearest", "--out=exported")
    assert (lab / "exported" / "head.safetensors").is_file()

    # Another value of its setting, and another text of its module, are other fits.
    run[1] = "--config.adapt.nearest.strength=3000"
    assert "adapt.nearest.strength: 3.0 then, 3000.0 now" in call(lab, *run, code=2)
    call(lab, *run, "--redo")
    assert figures(lab, "nearest") != first
    with (lab / "my_lab" / "nearest.py").open("a") as file:
        file.write("# changed\n")
    assert "source of adapt.nearest" in call(lab, *run, code=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("    fit=fit,\n", ""), "Method.fit = None: expected a function"),
        (("    predict=predict,\n", ""), "Method.predict = None: expected a function"),
        (('label="Nearest mean"', 'label=""'), "Method.label = '': expected the name that the page shows"),
        (('name="nearest"', 'name="lp"'), "a method whose name is not taken"),
        (('name="nearest"', 'name="seeds"'), "another name: adapt.seeds is a key"),
        (('name="nearest"', 'name="tower"'), "another name: adapt.tower is a key"),
        (('name="nearest"', 'name="My nearest"'), "Method.name = 'My nearest': expected lower-case letters"),
        (
            ("settings=NearestSettings()", "settings=3"),
            "Method.settings = 3: expected an instance of a frozen dataclass",
        ),
        (("settings=NearestSettings()", "settings=NearestSettings"), "expected an instance of a frozen dataclass"),
        (("@dataclass(frozen=True)", "@dataclass"), "expected an instance of a frozen dataclass"),
        (('needs=("single_label",)', 'needs=("single_labels",)'), "did you mean 'single_label'?"),
        (
            ("NEAREST = Method(", "NEAREST = dict("),
            "expected an object of type ranjax.methods.table.Method, found dict",
        ),
        (("import jax\n", "import jaxx\n"), "No module named 'jaxx'"),
        (('keys=("learning_rate"', 'keys=("learning_rates"'), "Method.keys = 'learning_rates'"),
    ],
)
def test_an_object_that_breaks_the_contract_is_one_error(tmp_path, monkeypatch, change, words):
    from ranjax.core.errors import ConfigError
    from ranjax.methods.table import METHODS
    from ranjax.run import config as configs

    assert change[0] in CODE
    name = f"broken_{abs(hash((change, words)))}"
    (tmp_path / f"{name}.py").write_text(CODE.replace(*change))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    monkeypatch.setattr(METHODS, "_sources", dict(METHODS._sources))
    config = configs.default_config()
    with pytest.raises(ConfigError, match=re.escape(words)):
        configs.override(config, "adapt.methods", f"lp,{name}:NEAREST")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("jnp.stack([means] * len(seeds))", "means"), "a leading axis of 2 seeds is needed"),
        (('return {"means": jnp.stack([means] * len(seeds))}', "return jnp.stack([means])"), "a dict of arrays"),
        (
            ("one_hot(train.labels, classes)", "one_hot(train.labels, classes + 1)"),
            r"(2, 4) for features [2, 5], (2, 3)",
        ),
        (('means = variables["means"]', 'means = variables["mean"]'), "predict of method 'nearest' failed"),
        (('{"means": jnp', '{"all/means": jnp'), "nested dicts of texts are needed"),
    ],
)
def test_results_that_break_the_contract_are_named(change, words):
    import numpy as np

    from ranjax.core.errors import DataError
    from ranjax.methods import Examples, Fit, own_head

    assert change[0] in CODE
    names = {"__name__": "guide"}
    exec(compile(CODE.replace(*change), "guide", "exec"), names)
    rng = np.random.default_rng(0)
    split = Examples(rng.normal(size=(12, 5)).astype(np.float32), np.arange(12, dtype=np.int32) % 3)
    method = names["NEAREST"]
    with pytest.raises(DataError, match=re.escape(words)):
        own_head.fit(method, method.settings, split, split, classes=3, seeds=range(2), shared=Fit())
