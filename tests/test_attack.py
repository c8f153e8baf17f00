"""`ranjax attack`: a user's images, reports and checkpoint in, attacked pairs and a summary out."""

import csv
import dataclasses
import io
import re

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ranjax import models
from ranjax.cli import console
from ranjax.core import files
from ranjax.data.store import NoisyStore
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.models.checkpoints.bert_files import save_bert
from ranjax.models.towers.bert import Bert, BertConfig, split_bert
from ranjax.run.stages import attack_files as stage

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
    config = models.clip(
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
    assert console.call(["attack", *arguments(given, out)]) == 0
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
    assert summary["images"] == summary["reports"] == len(REPORTS)
    assert summary["mean"]["loss_after"] > summary["mean"]["loss_before"]
    assert summary["mean"]["loss_after"] == pytest.approx(np.mean([float(row["loss_after"]) for row in rows]))
    functions, params, _ = models.load(given / "model")
    noisy_pair = store[rows[0]["image"]]
    pixels, tokens, mask = (jax.numpy.asarray(noisy_pair[name])[None] for name in ("image", "tokens", "mask"))
    image = functions.image_features(params, pixels)[0]
    text = functions.text_features(params, tokens, mask)[0]
    cosine = jax.numpy.dot(image, text) / jax.numpy.linalg.norm(image) / jax.numpy.linalg.norm(text)
    assert -float(cosine) == pytest.approx(float(rows[0]["loss_after"]), abs=1e-3)


@pytest.mark.slow
def test_colour_images_with_several_reports_and_words_that_a_masked_lm_proposes(given, tmp_path):
    """An image on two lines is attacked once, against both; words come from a list, through neighbours and a BERT."""
    config = models.load(given / "model")[2]
    image = dataclasses.replace(config.image, channels=3)
    config = dataclasses.replace(config, image=image, pixel_mean=None, pixel_std=None)
    models.save(tmp_path / "model", *models.split(models.DualEncoder(config, nnx.Rngs(1))))
    tokenizer = Tokenizer.load(given / "model")
    tokenizer.save(tmp_path / "model" / "tokenizer.json")
    tiny = BertConfig(
        vocab_size=tokenizer.vocab_size, width=16, layers=1, heads=2, mlp_width=16, max_length=48, masked_lm=True
    )
    save_bert(tmp_path / "bert", *split_bert(Bert(tiny, nnx.Rngs(0))))
    tokenizer.save(tmp_path / "bert" / "tokenizer.json")
    (tmp_path / "words.txt").write_text("dense  # as written\nupper\nunseenword\n")
    rng = np.random.default_rng(1)
    for name in ("b.png", "a.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
    lines = [("image", "text"), ("b.png", REPORTS[0]), ("a.png", REPORTS[2]), ("b.png", REPORTS[3])]
    with (tmp_path / "reports.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    words = [f"--masked_lm={tmp_path / 'bert'}", "--masked_lm_k=6", f"--words_from={tmp_path / 'words.txt'}"]
    near = ["--candidates=neighbours", "--neighbour_cosine=-1"]
    line = arguments(tmp_path, tmp_path / "out", "--image_mode=rgb", *words, *near)
    assert console.call(["attack", *(part.replace("/films", "") for part in line)]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "pairs.csv").read_text(), newline="")))
    assert [(row["image"], row["report"]) for row in rows] == [lines[1], lines[3], lines[2]]
    assert sum(int(row["words_changed"]) for row in rows) >= 1
    summary = files.read_json(tmp_path / "out" / "summary.json")
    assert (summary["images"], summary["reports"]) == (2, 3)
    assert summary["mean"]["loss_after"] > summary["mean"]["loss_before"]
    assert str(tmp_path / "words.txt") in summary["files"]
    store = NoisyStore.open(tmp_path / "out" / "store")
    functions, params, _ = models.load(tmp_path / "model")
    for name, own in (("b.png", rows[:2]), ("a.png", rows[2:])):
        noisy_pair = store[name]
        # Pillow reads the high byte of 16-bit colour.
        written = np.asarray(Image.open(tmp_path / "out" / "images" / name))
        np.testing.assert_array_equal(written, noisy_pair["pixels"] >> 8)
        tokens, mask = (x.reshape(len(own), -1) for x in (noisy_pair["tokens"], noisy_pair["mask"]))
        image = functions.image_features(params, jax.numpy.asarray(noisy_pair["image"])[None])[0]
        texts = functions.text_features(params, jax.numpy.asarray(tokens), jax.numpy.asarray(mask))
        cosines = texts @ image / np.linalg.norm(texts, axis=1) / np.linalg.norm(image)
        np.testing.assert_allclose(-cosines, [float(row["loss_after"]) for row in own], atol=1e-3)
        encoded = tokenizer.encode([row["attacked_report"] for row in own], tokens.shape[1])
        np.testing.assert_array_equal(encoded.ids, tokens)


def test_without_labels_findings_stay_with_a_warning_and_the_regime_is_named(given, attacked, tmp_path, capsys):
    rows = list(csv.DictReader(io.StringIO((attacked / "pairs.csv").read_text(), newline="")))
    findings = {"effusion", "consolidation", "nodule", "opacity", "clear", "normal"}
    for row in rows:
        before, after = ({*re.findall(r"[a-z]+", row[name].lower())} for name in ("report", "attacked_report"))
        assert before & findings == after & findings, row
    assert files.read_json(attacked / "summary.json")["mean"]["labels_changed"] == 0
    assert console.call(["attack", *arguments(given, attacked)]) == 0
    said = capsys.readouterr().out
    assert "regime 'keep'" in said
    assert "WARNING: without --labels only the bundled words of findings stay" in said


def test_reports_are_made_false_where_that_is_asked_for(given, tmp_path, capsys):
    assert console.call(["attack", *arguments(given, tmp_path / "out", "--meaning=contradict", "--steps=1")]) == 0
    assert "regime 'contradict'" in capsys.readouterr().out
    store = NoisyStore.open(tmp_path / "out" / "store")
    attacked = {name: store.provenance(name) for name in store}
    texts = {text for told in attacked.values() for text in told["reports"]}
    assert not texts & set(REPORTS)
    assert all(told["exchanges"][0] for told in attacked.values())
    assert any(told["labels_changed"][0] for told in attacked.values())


def test_the_same_command_again_changes_nothing_and_other_settings_are_refused(given, attacked, capsys):
    before = files.hashes(attacked)
    assert console.call(["attack", *arguments(given, attacked)]) == 0
    assert files.hashes(attacked) == before
    capsys.readouterr()
    assert console.call(["attack", *arguments(given, attacked, "--steps=4")]) == 2
    said = capsys.readouterr().err
    assert "--out = " in said
    assert "a folder without a store of another plan (settings.pgd.steps 3 then, 4 now)" in said


def test_an_l2_ball_and_another_attack_on_the_images(given, tmp_path):
    more = ("--norm=l2", "--epsilon=0.5", "--recipe=image_only", "--image_attack=apgd_ce", "--steps=4")
    assert console.call(["attack", *arguments(given, tmp_path / "out", *more)]) == 0
    store = NoisyStore.open(tmp_path / "out" / "store")
    assert all(0 < store.provenance(name)["norm"] <= 0.5 + 1e-6 for name in store)
    settings = files.read_json(tmp_path / "out" / "summary.json")["settings"]
    assert (settings["l2_epsilon"], settings["apgd_ce"]) == ("0.5", {"steps": 4})
    assert "pgd" not in settings


@pytest.mark.parametrize(
    ("more", "table", "words"),
    [
        (["--recipe=cattack"], None, "did you mean 'coattack'"),
        (["--epsilon=8"], None, "not 0 to 255"),
        (["--epsilon=-0.1"], None, "pixel units from 0 to 1"),
        (["--report_column=txt"], None, "did you mean 'text'"),
        (["--checkpoint=nowhere"], None, "neither a model folder"),
        ([], "image,text\nfilm0.jpg,\n", "line 2 of {table}: the report of 'film0.jpg' is empty"),
        ([], "image,text\nfilm0.jpg,a\nfilm0.jpg,a\n", "image 'film0.jpg' is given twice with the same report"),
        (["--candidates=thesarus"], None, "did you mean 'thesaurus'"),
        (["--image_mode=rgb"], None, "grey for this checkpoint, which takes 1 channel(s)"),
        (["--masked_lm=nowhere"], None, "a folder with a BERT and its head"),
        (["--neighbours=0"], None, "at least 1"),
        (["--lists=negation"], None, "noise.lists = ('negation',): expected KIND=FILE or KIND=off"),
        (["--lists=negation=nowhere.txt"], None, "no word list 'nowhere.txt'"),
        (["--text_search=importance"], None, "'neighbours' or 'thesaurus' among them where noise.text_search"),
        (["--noise.ratios=(0.0,0.5)"], None, "--noise.ratios = '(0.0,0.5)': expected a key that says how a pair"),
        (["--noise.lists=negation=nowhere.txt"], None, "no word list 'nowhere.txt'"),
        (["--image_attack=apgd"], None, "did you mean 'pgd'"),
        (["--image_attack=apgd_ce", "--step=1/255"], None, "noise.apgd_ce.step = '1/255': expected a known key"),
        (["--noise.pgd.steps=4"], None, "only one of --steps and --noise.pgd.steps"),
        (["--recipe=gaussian"], None, "expected an attack, not a control"),
        (["--seed=-1"], None, "a number from 0 to 4294967295"),
        ([], "image,text\nfilm0.jpg,clear\nbroken.png,dense\n", "image 'broken.png': the image is unreadable"),
        ([], "image,text\n../reports.csv,a\n", "is no file in"),
        ([], "image,text\n", "has no lines"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(more, table, words, given, tmp_path, capsys):
    line = arguments(given, tmp_path / "out", *more)
    if table is not None:
        (tmp_path / "table.csv").write_text(table)
        (given / "films" / "broken.png").write_text("no image")
        line.append(f"--reports={tmp_path / 'table.csv'}")
    assert console.call(["attack", *line]) == 2
    assert words.format(table=tmp_path / "table.csv") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# one spelling for one image, whatever the table's; what would be lost without a word is refused
def test_tables_as_people_write_them(given, tmp_path):
    def read(text, encoding="utf-8"):
        (tmp_path / "table.csv").write_bytes(text.encode(encoding))
        return stage.read_pairs(given / "films", tmp_path / "table.csv", "image", "text")

    absolute = given / "films" / "film0.jpg"
    rows = ("./film0.jpg,clear", f"{absolute},dense", "film0.jpg,upper", r"a\film 1.png,naïve zone")
    found = read("image,text\r\n" + "\r\n".join(rows) + "\r\n", "utf-8-sig")
    assert found == [("film0.jpg", ("clear", "dense", "upper")), ("a/film 1.png", ("naïve zone",))]
    for text, encoding, words in (
        ("image,text\nfilm0.jpg,naïve", "latin-1", "is not UTF-8"),
        ("image,text\nfilm0.jpg,clear, and dense", "utf-8", "line 2 .* more fields than the first line"),
        ("image,text,text\nfilm0.jpg,a,b", "utf-8", "names the column 'text' twice"),
        ("image,text\nfilm0.jpg\n", "utf-8", "line 2 .* fewer fields than the first line"),
        ('image,text\nfilm0.jpg,"dense\nfilm0.jpg,clear\n', "utf-8", "line 2 .*: a quote is opened and never closed"),
        ('image,text\nfilm0.jpg,"a\nfilm0.jpg,"b"\n', "utf-8", "line 2 .*: a quote is not closed"),
        ("image,text\nfilm0.jpg,NaN\n", "utf-8", "line 2 .*: the report of 'film0.jpg' is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            read(text, encoding)


def test_the_images_that_were_given_are_not_written_over(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.jpg", "b.jpg.png"):
        (tmp_path / "images" / name).touch()
    pair, noisy_pairs = (
        stage.Pair("a.png", ("x",)),
        [stage.Pair(n, ("x",)) for n in ("b.jpg", "b.jpg.png")],
    )
    with pytest.raises(ValueError, match="another folder: the attacked images would replace the given ones"):
        stage.targets(tmp_path / "images", tmp_path, [pair])
    with pytest.raises(ValueError, match="two of the images would both be written"):
        stage.targets(tmp_path / "images", tmp_path / "out", noisy_pairs)
    with pytest.raises(ValueError, match=r"--out.*a folder"):
        stage.targets(tmp_path / "images", tmp_path / "images" / "a.png" / "out", [pair])
    assert stage.targets(tmp_path / "images", tmp_path / "out", [pair]) == {
        "a.png": tmp_path / "out" / "images" / "a.png"
    }


def test_reports_beyond_the_model_s_length_are_told(given):
    surrogate = stage.load(given / "model")
    notes = lambda *reports: stage.notes([stage.Pair("film0.jpg", reports)], surrogate)  # noqa: E731
    assert notes("dense opacity") == []
    assert ["1 of 2 reports are longer than the 24 tokens" in note for note in notes("dense " * 40, "clear")] == [True]
    assert ["of the words are unknown" in note for note in notes("dense foreign glyphs")] == [True]
