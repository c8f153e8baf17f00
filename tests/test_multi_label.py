"""A task of several findings an image, few shots and a search, through the real command line; and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config, typed, validate
from ranjax.run.stages import labels

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from ranjax.run.config import default_config


def get_config(mode=""):
    config = default_config()
    config.quick_compile = True
    data, adapt, evaluate = config.data.radiographs, config.adapt, config.evaluate
    config.data.image_size, config.model.vit.patch_size = 32, 16
    data.train, data.adapt, data.validation, data.test, data.ood_test = 32, 96, 48, 48, 24
    data.multiple_downstream = 0.5
    config.pretrain.steps, config.pretrain.batch_size = 2, 16
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 32
    config.noise.ratios = (0.0,)
    adapt.task, adapt.shots, adapt.class_weights, adapt.metric = "multi", 4, "balanced", "auroc"
    adapt.methods, adapt.seeds, adapt.epochs, adapt.attack_steps = ("lp", "ran", "ran_lora"), 2, 2, 1
    adapt.search_rates, adapt.defence_source = (1.0, 3.0), "probe"
    adapt.tower.epochs, adapt.tower.batch_size = 1, 16
    evaluate.pgd.steps, evaluate.apgd_ce.steps, evaluate.attacks, evaluate.radii = 2, 3, ("pgd", "apgd_ce"), ("1/255",)
    evaluate.attacked_examples = evaluate.batch_size = evaluate.corruption_examples = evaluate.masking_examples = 8
    evaluate.smallest_group, evaluate.bootstrap = 3, 50
    return config
"""


@pytest.mark.slow
def test_several_findings_from_few_shots_go_from_config_to_page(tmp_path):
    (tmp_path / "several.py").write_text(CONFIG)
    line = [sys.executable, "-m", "ranjax.main", "--config", tmp_path / "several.py", "--workdir", tmp_path / "run"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(line, capture_output=True, check=False, timeout=600, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    rows = [row for row in results["rows"] if row["task"] == "finding" and row["split"] == "test"]
    assert {row["method"] for row in rows} == {"lp", "ran", "ran_lora"}
    clean = {row["metric"] for row in rows if row["attack"] == "none"}
    assert {"accuracy", "label_accuracy", "balanced_accuracy", "macro_auroc", "map", "ece", "auroc/mass"} <= clean
    by_attack = {r["attack"]: r["value"] for r in rows if r["method"] == "ran" and r["metric"] == "accuracy"}
    assert by_attack["worst@0"] >= by_attack["worst@1/255"] >= by_attack["worst"]
    assert {r["method"] for r in results["rows"] if r["task"] == "findings"} == {"zero_shot"}
    assert any("every finding right" in note["note"] for note in results["notes"])
    assert results["chance"]["map"] < 0.5
    checked = {item["method"]: item for item in results["masking"]}
    assert len(checked["ran"]["checks"]) == 8  # the surrogate's images among them
    assert "checks" in checked["ran"]["verdict"] or "failed" in checked["ran"]["verdict"]
    for facts in results["methods"]:
        assert facts["data"]["shots"] == 4
        assert 8 <= facts["data"]["examples"] <= 32  # of 8 classes, where one image may count for several
        # A closed form has no rate to search.
        assert ("search" in facts) == (facts["method"] == "ran_lora")
        if search := facts.get("search"):
            assert search["chosen"] in [{k: t[k] for k in ("rate", "strength")} for t in search["tried"]]
    assert "mean average precision" in (tmp_path / "run" / "report" / "index.html").read_text().lower()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"adapt.methods": ("lp", "tecoa")}, "adapt.methods"),
        ({"adapt.methods": ("ttc",)}, "adapt.methods"),
        ({"evaluate.attacks": ("pgd", "apgd_dlr")}, "evaluate.attacks"),
        ({"evaluate.prompt_words": 1}, "evaluate.prompt_words"),
    ],
)
def test_what_takes_one_label_is_refused_for_several(changes, key):
    config = default_config()
    config.adapt.task = "multi"
    validate(config)
    for name, value in changes.items():
        config.update_from_flattened_dict({name: value})
    with pytest.raises(ConfigError, match="'multi'") as error:
        validate(config)
    assert error.value.key == key


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_the_stage_takes_as_many_shots_as_asked_or_says_which_class_has_too_few(several, shots):
    ids = [f"image-{i}" for i in range(30)]
    classes = np.array([0] * 18 + [1] * 12, np.int32)
    given = np.eye(2, dtype=np.float32)[classes] if several else classes
    config = default_config()
    config.adapt.shots = shots
    if shots > 12:
        with pytest.raises(ConfigError, match=r"adapt\.shots = 16: expected at most 12: .* of class 'mass'"):
            labels.chosen(typed(config).adapt, 0, ids, given, ["normal", "mass"])
        return
    assert len(labels.chosen(typed(config).adapt, 0, ids, given, ["normal", "mass"])) == 2 * shots


@pytest.mark.parametrize(("share", "count"), [(0.01, 2), (0.1, 4), (1.0, 30)])
def test_the_stage_takes_a_share_of_each_class(share, count):
    ids = [f"image-{i}" for i in range(30)]
    config = default_config()
    config.adapt.share = share
    given = np.array([0] * 18 + [1] * 12, np.int32)
    assert len(labels.chosen(typed(config).adapt, 0, ids, given, ["normal", "mass"])) == count
