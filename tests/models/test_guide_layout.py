"""docs/guides/add_a_layout.md as it stands: a layout from outside ranjax writes an encoder and reads it again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors import safe_open

from ranjax import models

ROOT = Path(__file__).resolve().parents[2]
MODULE, USE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "add_a_layout.md").read_text(), re.DOTALL)


def tiny():
    shape = models.clip(
        vocab_size=8,
        eos_id=2,
        image_size=8,
        channels=1,
        patch_size=8,
        vision_width=8,
        vision_layers=1,
        vision_heads=1,
        text_width=8,
        text_layers=1,
        text_heads=1,
        max_length=4,
        embed_dim=4,
    )
    return models.split(models.DualEncoder(shape, nnx.Rngs(0)))


def test_the_layout_of_the_guide_gives_back_every_parameter_and_is_recognised(tmp_path, monkeypatch):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "layout.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models.LAYOUTS, "_entries", dict(models.LAYOUTS._entries))
    monkeypatch.setattr(models.LAYOUTS, "_sources", dict(models.LAYOUTS._sources))
    functions, params = tiny()
    names = {"functions": functions, "params": params}
    exec(compile(USE, "guide", "exec"), names)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "lab_clip"
    with safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        assert all(name.startswith("lab.") for name in set(file.keys()))
    assert jax.tree.all(jax.tree.map(np.array_equal, names["params"], params))
    assert models.load("out")[2].layout == "lab"


def test_the_list_of_layouts_has_the_guides(tmp_path):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "layout.py").write_text(MODULE)
    line = [sys.executable, "-m", "ranjax", "list", "layouts", "my_lab.layout:LAB"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=200, cwd=tmp_path)
    assert "the files of my lab" in done.stdout
