"""Published sets of questions, as their publishers lay them out, from files to figures: yes and no, open and closed."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from ranjax.cli import console
from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config, validate

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from ranjax.run.config import default_config


def get_config(mode=""):
    config = default_config()
    config.quick_compile = True
    config.data.source, config.data.prepared.dir = "prepared", {folder!r}
    config.data.image_size = config.model.vit.patch_size = 16
    config.pretrain.steps, config.pretrain.batch_size = 2, 16
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 32
    config.noise.ratios = (0.0,)
    config.adapt.methods, config.adapt.seeds = ("lp", "ran", "lp_image", "lp_question"), 1
    config.adapt.epochs, config.adapt.attack_steps = 60, 1
    evaluate = config.evaluate
    evaluate.attacked_seeds, evaluate.question_seeds, evaluate.radii = {attacked}, 1, ("1/255",)
    evaluate.batch_size, evaluate.bootstrap, evaluate.attacked_examples, evaluate.masking_examples = 32, 50, 32, 8
    evaluate.pgd.steps, evaluate.attacks = 2, ("pgd",)
    return config
"""


SIDES = ("left", "right")
CERTAIN = (("Is water wet?", "Yes"), ("Is fire cold?", "no"), ("Is ice cold?", "yes"), ("Is snow black?", "no"))


def _told(kind: str, i: int) -> tuple[str, str]:
    """A question about picture i, which is bright on the side of its parity, and its answer."""
    if kind == "image" or (kind == "both" and i // 2 % 2):
        return "Is the left side bright?", "Yes" if SIDES[i % 2] == "left" else "no"
    return CERTAIN[i // 4 % 4]


def _picture(i: int) -> Image.Image:
    pixels = np.random.default_rng(i).integers(0, 60, (16, 16)).astype(np.uint8)
    pixels[:, 8 * (i % 2) : 8 * (i % 2) + 8] += 150
    return Image.fromarray(pixels)


def _split(i: int) -> str:
    return "train" if i < 96 else "validate" if i < 128 else "test"


def _vqa_rad(root: Path, kind: str) -> None:
    rows = []
    (root / "VQA_RAD Image Folder").mkdir(parents=True)
    for i in range(160):
        name = f"synpic{i}.png"
        _picture(i).save(root / "VQA_RAD Image Folder" / name)
        asked = [(*_told(kind, i), "CLOSED"), ("Which side is bright?", f"{SIDES[i % 2]} side", "OPEN")]
        for question, answer, answer_type in asked[: 1 + (i % 4 < 2)]:
            rows.append(
                {"qid": str(len(rows)), "phrase_type": "test_freeform" if _split(i) == "test" else "freeform",
                 "image_name": name, "image_organ": "CHEST", "question": question, "answer": answer,
                 "answer_type": answer_type}
            )  # fmt: skip
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))


def _slake(root: Path, kind: str) -> None:
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validate": [], "test": []}
    for i in range(160):
        name = f"xmlab{i}/source.jpg"
        (root / "imgs" / name).parent.mkdir(parents=True)
        _picture(i).save(root / "imgs" / name)
        question, answer = _told(kind, i)
        for number, language in enumerate(("en", "zh")):
            rows[_split(i)].append(
                {"img_id": i, "img_name": name, "question": question, "answer": answer, "q_lang": language,
                 "modality": "X-Ray", "answer_type": "CLOSED", "qid": 10 * i + number}
            )  # fmt: skip
    for split, found in rows.items():
        (root / f"{split}.json").write_text(json.dumps(found))


def _path_vqa(root: Path, kind: str) -> None:
    (root / "data").mkdir(parents=True)
    for split, name in (("train", "train"), ("validate", "validation"), ("test", "test")):
        chosen = [i for i in range(160) if _split(i) == split]
        cells = []
        for i in chosen:
            buffer = io.BytesIO()
            _picture(i).convert("RGB").save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        questions, answers = zip(*(_told(kind, i) for i in chosen))
        stored = pa.table({"image": cells, "question": questions, "answer": answers})
        parquet.write_table(stored, root / "data" / f"{name}-00000-of-00001-abc.parquet")


# Each publisher's layout through both command lines, and each with another side that the answers depend on: heads that
# are given both are right, and so is a probe on the one side that tells; a probe on another guesses.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "kind"),
    [("vqa_rad", _vqa_rad, "image"), ("slake", _slake, "question"), ("path_vqa", _path_vqa, "both")],
)
def test_yes_and_no_are_told_from_image_and_question(tmp_path, name, write, kind):
    write(tmp_path / "source", kind)
    made = [name, "--data_dir", str(tmp_path / "source"), "--out", str(tmp_path / "prepared"), "--image_size", "16"]
    shares = ["--adapt", "0.5", "--validation", "0.2"] if name == "vqa_rad" else ["--adapt", "0.6"]
    assert console.call(["prepare", *made, *shares]) == 0
    (folder,) = (tmp_path / "prepared").glob("*/*/1.0.0")
    (tmp_path / "asked.py").write_text(CONFIG.format(folder=str(folder), attacked=int(kind == "both")))
    line = [sys.executable, "-m", "ranjax.main", "--config", tmp_path / "asked.py", "--workdir", tmp_path / "run"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(line, capture_output=True, check=False, timeout=600, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "read the embedding fused with the question, no other features: ran" in done.stdout + done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")

    def accuracy(task: str, attack: str = "none") -> dict[str, float]:
        where = {"task": task, "attack": attack, "metric": "accuracy", "split": "test", "seed": None}
        return {r["method"]: r["value"] for r in results["rows"] if where.items() <= r.items()}

    for task, whole in (("finding", "ran"), ("questions_closed", "mlp")):
        found = accuracy(task)
        assert found[whole] > 0.88, (task, found)
        assert {f"lp_{side}" for side in ("image", "question") if found[f"lp_{side}"] > 0.85} <= {f"lp_{kind}"}, found
        assert kind == "both" or found[f"lp_{kind}"] > 0.85, (task, found)
    notes = " ".join(note["note"] for note in results["notes"])
    assert "answered from the picture without its question: zero_shot" in notes
    prior = {"image": 50.0, "question": 100.0, "both": 75.0}[kind]
    assert f"test: the most frequent answer to the same question, which needs no image: {prior} %" in notes
    assert results["chance"]["questions_closed/test"] == pytest.approx(prior / 100, abs=0.1)
    if name == "vqa_rad":
        assert "test: 48 questions of 32 pictures; intervals and tests draw pictures" in notes
        assert results["independent"] == {}  # each picture has one question of yes and no
        of = [r for r in results["rows"] if (r["task"], r["split"]) == ("retrieval", "test")]
        assert {r["n"] for r in of if r["method"] == "image_to_text"} == {32}
        # Pictures that share a question and its answer are one query from there.
        assert {r["n"] for r in of if r["method"] == "text_to_image"} < set(range(1, 32))
        open_ = accuracy("questions_open")
        # The image alone cannot know whether a side or yes is wanted.
        assert open_["lp"] > 0.85 > 0.7 > max(open_["lp_question"], open_["lp_image"]), open_
    if kind == "both":
        attacked = accuracy("finding", "pgd")
        assert attacked["lp"] <= accuracy("finding")["lp"]
        # No pixel moves what never looked at one.
        assert attacked["lp_question"] == accuracy("finding")["lp_question"]
        assert {item["method"] for item in results["masking"]} >= {"ran"}


def test_one_sided_methods_are_refused_where_nobody_asks():
    config = default_config()
    config.adapt.methods = ("lp", "lp_question")
    with pytest.raises(ConfigError, match="prepared set of questions") as error:
        validate(config)
    assert error.value.key == "adapt.methods"
