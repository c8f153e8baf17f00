"""Generated options, overrides and files through the commands: exit code 0, or one line and exit code 2."""

import csv
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from flax import nnx
from fuzzing import check_line, fuzzed, said_by
from hypothesis import strategies as st
from PIL import Image

from ranjax import main, models
from ranjax.cli import console, outcome
from ranjax.data.set_settings import SetSettings
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run import config as configs
from ranjax.run import plan as planning

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "0", "1", "-1", "2", "0.5", "1e999", "-1e9", "nan", "inf", "None", "true", "False", "()", "[]", "(1,",
         "(0.0, 0.5)", "('lp',)", "lp", "lp,ran", "8/255", "1/0", "a=b", "=", "..", "/nowhere", "pgd", "x:y",
         "os:system",
         "é", "\u2028", "'", '"', "{}", "1_000", "0x10", "1" * 400, "%s", "float32", "image", "package:x", "a" * 300]
    ),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
)  # fmt: skip


def judged(code, err):
    """Fail for any exit code but 0 and 2, and where a refusal is not one line."""
    assert code in (outcome.DONE, outcome.REFUSED), (code, err)
    if code == outcome.REFUSED:
        # Images may have been decoded before nothing is left of them.
        said = re.sub(r"^(decode +\d+/\d+\n)+", "", err)
        assert said.startswith("error: "), err
        check_line(said.removesuffix("\n"))
    return code == outcome.DONE


KEYS = st.one_of(
    st.sampled_from(sorted(configs.BY_NAME)),
    st.sampled_from(["", ".", "data", "noise.", "adapt.rann.mse", "seeds", "adapt.lp.lp", "noise.pgd"]),
)


@fuzzed(
    20,
    file=st.sampled_from(["ran.py", "ran.py:smoke", "nih.py", "ran.py:x", "absent.py", "", ":"]),
    overrides=st.lists(st.tuples(KEYS, TEXTS), max_size=3),
)
def test_a_config_with_any_overrides_is_resolved_and_planned_or_refused(file, overrides):
    named = str(CONFIGS / file) if file.strip(":") else file
    words = [f"--config.{key}={text}" for key, text in overrides]
    code, out, err = said_by(lambda: main.main(["describe", "--config", named, *words]))
    if judged(code, err):
        config = configs.resolve(named, overrides)
        assert all(run.id for run in planning.plan(config))
        for key, _ in overrides:
            assert f"{key} = " in out


def test_the_documented_names_are_among_those_that_are_tried():
    assert {"noise.image_epsilon", "adapt.methods", "pretrain.steps"} <= configs.BY_NAME.keys()


OPTIONS = sorted(SetSettings.__dataclass_fields__.keys() - {"name", "data_dir"})
CELLS = st.one_of(TEXTS.filter(lambda text: len(text) < 50), st.sampled_from(["a\nb", "No effusion.", "train", "nan"]))


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@fuzzed(
    12,
    rows=st.lists(st.tuples(st.sampled_from(["0.png", "1.png", "2.png", "x.png", ""]), CELLS, CELLS), max_size=6),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), TEXTS), max_size=2),
    dry=st.booleans(),
)
def test_prepare_says_of_every_row_what_became_of_it_or_refuses(rows, options, dry):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        for i in range(3):
            grey = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(grey).save(root / "in" / f"{i}.png")
        write_table(root / "in" / "index.csv", [("file", "report", "patient"), *rows])
        words = [f"--{name}={text}" for name, text in options]
        usual = [f"--data_dir={root / 'in'}", f"--out={root / 'out'}", "--image_size=16", "--workers=1"]
        more = ["--adapt=0", "--validation=0", "--test=0", "--patient_key=none"]
        command = ["prepare", "table", *usual, *more, *words, *["--dry_run"] * dry]
        code, out, err = said_by(lambda: console.call(command))
        if not judged(code, err):
            return
        if dry:
            assert f"{len(rows)} read" in out or f"read {len(rows)}" in out, out
            return
        (manifest,) = (root / "out").rglob("prepared.json")
        stored = json.loads(manifest.read_text())
        kept, left_out = sum(stored["counts"].values()), stored["exclusions"]
        assert kept + len(left_out) + stored["understood"]["rows"].get("not drawn by --limit", 0) == len(rows)
        assert all(item["reason"] for item in left_out)


KNOWN = (
    "Large left EFFUSION; heart normal.",
    "No consolidation. Small nodule seen, upper zone.",
    "Heart size normal, lungs clear.",
    "Dense opacity with air, zone dense.",
)
"""Reports whose words the checkpoint knows."""


@functools.cache
def checkpoint():
    folder = Path(tempfile.mkdtemp()) / "model"
    tokenizer = Tokenizer.build(KNOWN, max_size=64)
    config = models.clip(
        vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, bos_id=tokenizer.bos_id, pad_id=tokenizer.pad_id,
        image_size=16, patch_size=8, vision_width=8, vision_layers=1, vision_heads=1, text_width=8, text_layers=1,
        text_heads=1, max_length=12, embed_dim=4,
    )  # fmt: skip
    models.save(folder, *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    tokenizer.save(folder / "tokenizer.json")
    return folder


ATTACK = sorted(name.removeprefix("noise.") for name in configs.BY_NAME if name.startswith("noise."))
NAMED = ("norm", "step", "steps", "labels", "words_from", "image_mode", "resize", "image_column", "report_column")
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "model.safetensors")


ANY = {
    "options": st.lists(st.tuples(st.sampled_from((*NAMED, *ATTACK)), TEXTS), max_size=2),
    "file": st.sampled_from((None, None, None, *FILES)),
    "changes": st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=2),
    "cut": st.sampled_from([1.0, 0.5, 0.0]),
}


def attacked(rows, options, file, changes, cut):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(checkpoint(), root / "model")
        if file:
            data = bytearray((root / "model" / file).read_bytes())
            for place, byte in changes:
                data[int(place * (len(data) - 1))] = byte
            (root / "model" / file).write_bytes(bytes(data[: int(cut * len(data))]))
        (root / "films").mkdir()
        for i in range(2):
            grey = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(grey).save(root / "films" / f"{i}.png")
        write_table(root / "reports.csv", [("image", "report"), *rows])
        words = [f"--{name if name in NAMED or '.' not in name else 'noise.' + name}={text}" for name, text in options]
        usual = {"checkpoint": "model", "images": "films", "reports": "reports.csv", "out": "out"}
        command = ["attack", *(f"--{name}={root / value}" for name, value in usual.items())]
        fixed = ["--steps=1", "--words=1", "--cpu_devices=1", "--compile_cache=off"]
        code, _, err = said_by(lambda: console.call([*command, *fixed, *words]))
        if judged(code, err):
            written = list(csv.DictReader((root / "out" / "pairs.csv").open(encoding="utf-8", newline="")))
            assert len(written) == len(rows)


# Of these rows the checkpoint knows no word, so that nothing is compiled for them.
@fuzzed(5, rows=st.lists(st.tuples(st.sampled_from(["0.png", "./0.png", "2.png", ""]), CELLS), max_size=3), **ANY)
def test_attack_refuses_what_it_cannot_carry_out_in_one_line(rows, **drawn):
    attacked(rows, **drawn)


@fuzzed(
    0,
    rows=st.lists(st.tuples(st.sampled_from(["0.png", "1.png"]), st.sampled_from(KNOWN)), min_size=1, unique=True),
    **ANY,
)
def test_attack_carries_out_or_refuses_whatever_it_is_given(rows, **drawn):
    attacked(rows, **drawn)


def teardown_module():
    if checkpoint.cache_info().currsize:
        shutil.rmtree(checkpoint().parent)
        checkpoint.cache_clear()
