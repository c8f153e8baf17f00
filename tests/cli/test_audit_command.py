"""`ranjax audit` and `ranjax compare` through the real command line, on a tiny checkpoint and set."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ranjax import models
from ranjax.cli import console, outcome
from ranjax.core import files
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run.audits import audit_config, repairs

SIZE = 16
TINY = dataclasses.replace(
    audit_config.QUICK, limit=48, attacked=8, pairs=4, corrupted=0, masking=0, steps=2, queries=4, batch=8,
    bootstrap=50, defence=(8, 8), grid=(10.0,),
)  # fmt: skip


def pictures(count, classes=("effusion", "nodule")):
    rng = np.random.default_rng(0)
    for i in range(count):
        kind = classes[i % len(classes)]
        x = rng.integers(90, 110, (SIZE, SIZE))
        x[(8 if kind == "effusion" else 0) : (16 if kind == "effusion" else 8)] += 70
        text = f"There is {('small', 'large', 'mild')[i % 3]} {kind} in zone {i % 13}."
        yield f"{i}.png", kind, text, x.astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    out = tmp_path_factory.mktemp("audited")
    (out / "films" / "images").mkdir(parents=True)
    rows = []
    for name, kind, text, x in pictures(96):
        Image.fromarray(x).save(out / "films" / "images" / name)
        rows.append((name, kind, text))
    with (out / "films" / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "report"), *rows])
    tokenizer = Tokenizer.build([text for _, _, text in rows], max_size=100)
    special = {name: getattr(tokenizer, name) for name in ("eos_id", "bos_id", "pad_id")}
    shape = models.clip(
        vocab_size=tokenizer.vocab_size, max_length=16, text_width=16, text_layers=1, text_heads=2, image_size=SIZE,
        patch_size=8, vision_width=16, vision_layers=1, vision_heads=2, embed_dim=8, **special,
    )  # fmt: skip
    functions, params = models.split(models.DualEncoder(shape, nnx.Rngs(0)))
    models.save(out / "clip", functions, params, layout="clip")
    tokenizer.save(out / "clip" / "tokenizer.json")
    return out


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(audit_config, "QUICK", TINY)
    monkeypatch.setattr(audit_config, "REPAIRS", ("lp", "ridge"))
    monkeypatch.setattr(audit_config, "CONTROLS", ("pixels",))
    monkeypatch.setattr(audit_config, "SUITE", ("apgd_ce", "apgd_dlr"))
    monkeypatch.setattr(audit_config, "PAIR_ATTACKS", ("text_only",))


def audit(place, data, out, *more, checkpoint="clip"):
    words = ["audit", f"--checkpoint={place / checkpoint}", f"--data={place / data}", f"--out={place / out}"]
    return console.call([*words, "--quick", *more])


@pytest.mark.slow
def test_a_checkpoint_is_audited_repaired_loaded_and_compared(place, tiny, capsys, monkeypatch):
    assert audit(place, "films", "audit", "--defences=low_pass") == outcome.DONE
    said = capsys.readouterr().out
    assert "Recommendation" in said
    results = json.loads((place / "audit" / "results.json").read_text())
    assert results["schema"] == "ranjax audit 1"
    assert [item["method"] for item in results["repairs"]] == ["lp", "ridge", "zero_shot", "low_pass"]
    filtered = results["repairs"][3]
    assert [*filtered["robust"]] == [*filtered["published"]] == results["protocol"]["radii"]
    assert filtered["masked"] == (filtered["verdict"] != "not masked") == ("low_pass" in results["withheld"])
    ridge = results["repairs"][1]
    accuracy = [ridge["robust"][radius] for radius in results["protocol"]["radii"]]
    assert accuracy == sorted(accuracy, reverse=True)
    assert ridge["score"]["value"] == pytest.approx(np.mean(accuracy))
    assert min(item["milliseconds"] for item in results["repairs"][:2]) > 0
    kinds = {(row["task"], row["attack"]) for row in results["rows"]}
    assert {("retrieval", "none"), ("retrieval_attacked", "text_only")} <= kinds
    assert {row["condition"] for row in results["rows"]} == {"clean", "pixels"}
    assert len(results["examples"]) == 8
    page = (place / "audit" / "index.html").read_text()
    assert "What to do" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    # What was repaired answers as it was judged, and its encoder is the one that came.
    model = repairs.load(place / "audit" / "repaired")
    films = np.stack([x for *_, x in pictures(96)])[..., None]
    method = results["recommendation"]["method"]
    parameters = next(item["parameters"] for item in results["repairs"] if item["method"] == method)
    assert parameters == sum(leaf.size for leaf in _leaves(place / "audit" / "repaired" / "head.safetensors"))
    assert model.predict(films).shape == (96,)
    before, after = (models.load(place / name)[1] for name in ("clip", "audit/repaired"))
    np.testing.assert_array_equal(*(tree["visual_projection"]["kernel"] for tree in (before, after)))
    assert "import ranjax as rx" in (place / "audit" / "repaired" / "README.md").read_text()
    # The same command again does nothing anew; another one is refused in its folder.
    assert audit(place, "films", "audit", "--defences=low_pass") == outcome.DONE
    assert "done before, skipped" in capsys.readouterr().out
    assert audit(place, "films", "audit", "--defences=low_pass", "--seed=1") == outcome.REFUSED
    assert "--out" in capsys.readouterr().err
    # Side by side with another model, and not with another protocol.
    other = place / "other.json"
    changed = {**results, "model": {**results["model"], "name": "other", "hash": "another"}}
    other.write_text(json.dumps(changed))
    words = ["compare", str(place / "audit"), str(other), f"--out={place / 'compared'}"]
    assert console.call(words) == outcome.DONE
    assert "other" in (place / "compared" / "index.html").read_text()
    capsys.readouterr()
    other.write_text(json.dumps({**changed, "protocol": {**results["protocol"], "name": "0 full"}}))
    assert console.call(words) == outcome.REFUSED
    assert "different protocols do not compare" in capsys.readouterr().err


DRIVEN = """
import dataclasses, sys
from ranjax.run.audits import audit_config as made
made.QUICK = dataclasses.replace(
    made.QUICK, limit=24, attacked=6, pairs=4, corrupted=4, masking=0, steps=2, batch=8, bootstrap=50)
made.REPAIRS, made.CONTROLS, made.SUITE, made.PAIR_ATTACKS = ("lp", "ridge"), (), ("apgd_ce",), ("",)
made.TEXT_ATTACKS, made.RADII = ("typos", ""), ("8/255",)
from ranjax.cli import console
sys.exit(console.call(sys.argv[1:]))
"""
TIMES = ("seconds", "milliseconds")


def untimed(value):
    """What results.json holds but for times, which no two runs share."""
    if isinstance(value, dict):
        return {name: untimed(inner) for name, inner in value.items() if name not in TIMES}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow  # three real processes: one whole, one killed and one stopped in mid-stage, each goes on
def test_a_killed_audit_goes_on_to_the_same_bits(place, tmp_path):
    def start(out):
        words = ["audit", f"--checkpoint={place / 'clip'}", f"--data={place / 'films'}", f"--out={out}", "--quick"]
        line = [sys.executable, "-u", "-c", DRIVEN, *words]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stopped(out, at, number):
        """Send a signal when a line begins like `at`, and return the exit code."""
        with start(out) as process:
            for line in process.stdout:
                if at in line:
                    process.send_signal(number)
                    break
            process.stdout.read()
        return process.returncode

    def whole(out):
        with start(out) as process:
            said = process.stdout.read()
        assert process.returncode == outcome.DONE, said[-3000:]
        return untimed(json.loads((out / "results.json").read_text())), said

    expected, _ = whole(tmp_path / "whole")
    assert stopped(tmp_path / "cut", "adapt/clean", signal.SIGKILL) == -signal.SIGKILL
    # The first head is attacked by then, and kept.
    assert stopped(tmp_path / "cut", "compiled white_box", signal.SIGTERM) in (outcome.STOPPED, outcome.DONE)
    found, said = whole(tmp_path / "cut")
    assert "adapt/clean: done before, skipped" in said
    assert found == expected
    for name in ("head.safetensors", "model.safetensors"):
        one, other = (files.sha256(tmp_path / run / "repaired" / name) for run in ("whole", "cut"))
        assert one == other


def _leaves(path):
    from safetensors.numpy import load_file

    return load_file(path).values()


def test_data_that_cannot_be_audited_are_refused_in_one_line(place, tiny, capsys):
    one = place / "one"
    (one / "effusion").mkdir(parents=True)
    for name, _, _, x in pictures(40):
        Image.fromarray(x).save(one / "effusion" / name)
    assert audit(place, "one", "audit_one") == outcome.REFUSED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nothing to tell apart" in said
    few = place / "few"
    for name, kind, _, x in pictures(2):
        (few / kind).mkdir(parents=True)
        Image.fromarray(x).save(few / kind / name)
    assert audit(place, "few", "audit_few") == outcome.REFUSED
    assert "error: " in capsys.readouterr().err
    assert audit(place, "absent", "audit_absent") == outcome.REFUSED
    assert "--data" in capsys.readouterr().err
    assert audit(place, "films", "audit_hub", checkpoint="../../openai/clip-vit") == outcome.REFUSED
    assert console.call(["audit", "--checkpoint=openai/clip", "--data=x", f"--out={place / 'x'}"]) == outcome.REFUSED
    assert "huggingface-cli download openai/clip" in capsys.readouterr().err
