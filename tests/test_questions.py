"""A published set of questions, as its publisher lays it out, from files to figures of open and closed answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ranjax import files, prepare

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from ranjax.config import default_config


def get_config(mode=""):
    config = default_config()
    config.quick_compile = True
    config.data.source, config.data.prepared.dir = "prepared", {folder!r}
    config.data.image_size = config.model.patch_size = 16
    config.pretrain.steps, config.pretrain.batch_size = 2, 16
    config.model.vision_layers = config.model.text_layers = 1
    config.model.vision_width = config.model.text_width = config.model.embed_dim = 32
    config.noise.ratios = (0.0,)
    config.adapt.methods, config.adapt.seeds, config.adapt.epochs = ("lp",), 1, 20
    config.evaluate.attacked_seeds, config.evaluate.question_seeds = 0, 2
    config.evaluate.batch_size, config.evaluate.bootstrap = 32, 50
    return config
"""


def _vqa_rad(root: Path) -> None:
    """In VQA-RAD's layout: pictures bright on one side; a closed and an open question about each."""
    rows = []
    (root / "VQA_RAD Image Folder").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(80):
        left, name = i % 2 == 0, f"synpic{i}.png"
        pixels = rng.integers(0, 60, (16, 16)).astype(np.uint8)
        pixels[:, :8] += 150 * left
        pixels[:, 8:] += 150 * (not left)
        Image.fromarray(pixels).save(root / "VQA_RAD Image Folder" / name)
        asked = [("Is the left side bright?", "Yes" if left else "no", "CLOSED"),
                 ("Which side is bright?", "left side" if left else "right side", "OPEN")]  # fmt: skip
        for question, answer, kind in asked:
            rows.append(
                {"qid": str(len(rows)), "phrase_type": "test_freeform" if i >= 60 else "freeform", "image_name": name,
                 "image_organ": "CHEST", "question": question, "answer": answer, "answer_type": kind}
            )  # fmt: skip
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))


@pytest.mark.slow
def test_questions_of_a_set_are_scored_open_and_closed_apart(tmp_path):
    _vqa_rad(tmp_path / "source")
    made = [
        "vqa_rad",
        "--data_dir",
        str(tmp_path / "source"),
        "--out",
        str(tmp_path / "prepared"),
        "--image_size",
        "16",
    ]
    assert prepare.main([*made, "--adapt", "0.5", "--validation", "0.2"]) == 0
    (folder,) = (tmp_path / "prepared").glob("*/*/1.0.0")
    (tmp_path / "asked.py").write_text(CONFIG.format(folder=str(folder)))
    line = [sys.executable, "-m", "ranjax.main", "--config", tmp_path / "asked.py", "--workdir", tmp_path / "run"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(line, capture_output=True, check=False, timeout=600, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    rows = [row for row in results["rows"] if row["task"].startswith("questions_") and row["seed"] is None]
    assert {(row["task"], row["method"]) for row in rows} == {
        (f"questions_{kind}", method) for kind in ("open", "closed") for method in ("lp", "mlp")
    }
    for row in rows:
        assert row["n"] == 20
        # A side that is bright tells: far above what the question alone gives, and above one half.
        assert results["chance"][f"{row['task']}/test"] == 0.5
        assert row["value"] > 0.8, row
