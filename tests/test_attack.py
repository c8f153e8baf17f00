"""`python -m ranjax.attack`: a user's images, reports and checkpoint in, attacked pairs and a summary out."""

import csv
import io

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ranjax import attack, files, models
from ranjax.data.store import NoisyStore
from ranjax.data.tokenizer import Tokenizer

REPORTS = (
    "Large left EFFUSION; heart normal.",
    "No consolidation. Small nodule seen, upper zone.",
    "Heart size normal, lungs clear.",
    "Dense opacity with air, zone dense.",
    "Clear lungs. No effusion seen.",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with images, a table of reports and a checkpoint of random weights with its tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "films" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"a/film {i}.png" if i % 2 else f"film{i}.jpg" for i in range(len(REPORTS))]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 30), dtype=np.uint8)).save(folder / "films" / name)
    with (folder / "reports.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "text"), *zip(names, REPORTS)])
    tokenizer = Tokenizer.build(REPORTS, max_size=64)
    config = models.DualEncoderConfig(
        vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, bos_id=tokenizer.bos_id, pad_id=tokenizer.pad_id,
        image_size=16, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2, text_width=16, text_layers=1,
        text_heads=2, max_length=24, embed_dim=8,
    )  # fmt: skip
    models.save(folder / "model", *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    tokenizer.save(folder / "model" / "tokenizer.json")
    return folder


def arguments(given, out, *more):
    line = {"checkpoint": given / "model", "images": given / "films", "reports": given / "reports.csv", "out": out}
    named = [f"--{name}={value}" for name, value in line.items()]
    return [*named, "--report_column=text", "--steps=3", "--words=1", "--batch_size=2", "--compile_cache=off", *more]


@pytest.fixture(scope="module")
def attacked(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("attacked") / "out"
    assert attack.main(arguments(given, out)) == 0
    return out


def test_images_texts_and_summary_say_the_same_and_keep_their_bounds(given, attacked):
    rows = list(csv.DictReader(io.StringIO((attacked / "pairs.csv").read_text(), newline="")))
    assert [row["report"] for row in rows] == list(REPORTS)
    store = NoisyStore.open(attacked / "store")
    for row in rows:
        name = row["image"]
        written = np.asarray(Image.open(attacked / "images" / (name if name.endswith(".png") else name + ".png")))
        assert written.dtype == np.uint16
        np.testing.assert_array_equal(written, store[name]["pixels"][:, :, 0])
        moved = np.abs(written / 65535 - store[name]["clean_image"][:, :, 0] / 255)
        assert 0 < moved.max() <= 8 / 255 + 1e-9
        assert float(row["norm"]) == pytest.approx(moved.max(), abs=1e-6)
        before, after = row["report"].split(), row["attacked_report"].split()
        assert sum(a != b for a, b in zip(before, after, strict=True)) == int(row["words_changed"]) <= 1
        assert ("No " in row["report"]) == ("No " in row["attacked_report"])
    summary = files.read_json(attacked / "summary.json")
    assert summary["pairs"] == len(REPORTS)
    assert summary["mean"]["loss_after"] > summary["mean"]["loss_before"]
    assert summary["mean"]["loss_after"] == pytest.approx(np.mean([float(row["loss_after"]) for row in rows]))
    functions, params, _ = models.load(given / "model")
    twin = store[rows[0]["image"]]
    image = functions.image_features(params, twin["image"][None])[0]
    text = functions.text_features(params, twin["tokens"][None], twin["mask"][None])[0]
    cosine = jax.numpy.dot(image, text) / jax.numpy.linalg.norm(image) / jax.numpy.linalg.norm(text)
    assert -float(cosine) == pytest.approx(float(rows[0]["loss_after"]), abs=1e-3)


def test_the_same_command_again_changes_nothing_and_other_settings_are_refused(given, attacked, capsys):
    before = files.hashes(attacked)
    assert attack.main(arguments(given, attacked)) == 0
    assert files.hashes(attacked) == before
    capsys.readouterr()
    assert attack.main(arguments(given, attacked, "--steps=4")) == 2
    assert "another plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "table", "words"),
    [
        (["--recipe=cattack"], None, "Did you mean 'coattack'"),
        (["--epsilon=8"], None, "Written in 0-255? Divide by 255."),
        (["--epsilon=-0.1"], None, "0 or more"),
        (["--report_column=txt"], None, "Did you mean 'text'"),
        (["--checkpoint=nowhere"], None, "neither a model folder"),
        ([], "image,text\nfilm0.jpg,\n", "line 2 of {table}: the report of 'film0.jpg' is empty"),
        ([], "image,text\nfilm0.jpg,a\nfilm0.jpg,b\n", "line 3 of {table}: image 'film0.jpg' is given twice"),
        ([], "image,text\n../reports.csv,a\n", "is no file in"),
        ([], "image,text\n", "has no lines"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(more, table, words, given, tmp_path, capsys):
    line = arguments(given, tmp_path / "out", *more)
    if table is not None:
        (tmp_path / "table.csv").write_text(table)
        line.append(f"--reports={tmp_path / 'table.csv'}")
    assert attack.main(line) == 2
    assert words.format(table=tmp_path / "table.csv") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
