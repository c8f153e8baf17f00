"""A method, an attack, a tower and a data set from one package outside ranjax, together in one run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs" / "guides"
# The modules of the guides, in the place that each guide's commands name.
MODULES = {"nearest": "add_a_method", "attacks": "add_an_attack", "tower": "add_a_tower", "films": "add_a_data_set"}
CONFIG = """
from ranjax.run.config import default_config

def get_config():
    config = default_config()
    config.quick_compile, config.data.source, config.data.image_size = True, "set", 16
    config.model.text_transformer.layers = 1
    config.model.text_transformer.width = config.model.embed_dim = 16
    config.pretrain.steps, config.pretrain.batch_size, config.noise.ratios = 2, 8, (0.0,)
    config.adapt.seeds, config.adapt.epochs = 1, 2
    config.evaluate.attacked_examples, config.evaluate.bootstrap = 4, 50
    config.evaluate.radii, config.evaluate.masking_examples = ("",), 4
    return config
"""
OVERRIDES = {
    "adapt.nearest.strength": "3",  # before the key that names its method: the order does not matter
    "adapt.methods": "lp,my_lab.nearest:NEAREST",
    "evaluate.attacks": "my_lab.attacks:RFGSM,pgd",
    "evaluate.rfgsm.share": "0.25",
    "evaluate.pgd.steps": "1",
    "model.image_tower": "my_lab.tower:TOWER",
    "model.mixer.patch_size": "8",
    "data.set.name": "my_lab.films:SPEC",
    "data.set.data_dir": "films",
}
LISTS = {"methods": "nearest:NEAREST", "attacks": "attacks:RFGSM", "towers": "tower:TOWER", "datasets": "films:SPEC"}


def call(lab, *words):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "ranjax", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=500, cwd=lab, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def lab(tmp_path):
    """A working directory with the package of all guides, and 60 films with reports."""
    (tmp_path / "my_lab").mkdir()
    for name, guide in MODULES.items():
        code = re.findall(r"```python\n(.*?)```", (GUIDES / f"{guide}.md").read_text(), re.DOTALL)
        (tmp_path / "my_lab" / f"{name}.py").write_text(code[0])
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "films").mkdir()
    for number in range(60):
        film = tmp_path / "films" / f"p{number // 2}-{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)).save(film)
        label = ("normal", "mass")[number % 2]
        film.with_suffix(".txt").write_text(f"{label}\nFilm {number} shows {label} lungs.")
    return tmp_path


def test_every_kind_of_entry_stands_in_its_list(lab):
    for kind, entry in LISTS.items():
        found = {one["name"]: one for one in json.loads(call(lab, "list", kind, f"my_lab.{entry}", "--json"))}
        name = {"methods": "nearest", "attacks": "rfgsm", "towers": "mixer", "datasets": "lab_films"}[kind]
        assert name in found
        assert len(found) > 1  # beside the built-in ones


@pytest.mark.slow
def test_entries_of_four_kinds_go_through_one_run(lab):
    call(lab, "run", "--config=config.py", "--workdir=run", *(f"--config.{k}={v}" for k, v in OVERRIDES.items()))
    results = json.loads((lab / "run" / "results.json").read_text())
    config = results["config"]
    assert (config["adapt"]["nearest"]["strength"], config["evaluate"]["rfgsm"]["share"]) == (3.0, 0.25)
    assert (config["model"]["mixer"]["patch_size"], config["data"]["set"]["name"]) == (8, "my_lab.films:SPEC")
    assert results["card"]["title"] == "Films of my lab"
    assert {(row["method"], row["attack"]) for row in results["rows"]} >= {("nearest", "rfgsm"), ("lp", "rfgsm")}
    assert "nearest" in {check["method"] for check in results["masking"]}
    page = (lab / "run" / "report" / "index.html").read_text()
    assert ">Nearest mean<" in page
    assert "R+FGSM" in page
    encoder = json.loads((lab / "run" / "pretrain" / "clean" / "encoder" / "config.json").read_text())
    assert "mixer" in json.dumps(encoder)
