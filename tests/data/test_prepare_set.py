"""Preparation: the command line, resuming, any number of workers, copies and patients across splits, the audit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from publishers import nih, openi_wheel, picture, table
from small_data import public

from ranjax.cli import console, outcome
from ranjax.core.errors import ConfigError, DataError
from ranjax.data import set_page as audit
from ranjax.data.images import decode, duplicates
from ranjax.data.images.loading import load
from ranjax.data.images.locations import FileRef
from ranjax.data.prepared import open_prepared
from ranjax.data.set_writing import SHEET, prepare_set


def tree(root, count=40, share=None, copy=None):
    """A folder with a table; `share` puts one patient into two splits, `copy` one picture under two names."""
    rows = []
    for i in range(count):
        split = ("train", "adapt", "validation", "test")[i % 4]
        patient = "p0" if share and i in (0, 3) else f"p{i}"
        picture(root / "images" / f"{i}.png", 0 if copy and i == 3 else i)
        rows.append([f"images/{i}.png", f"Film {i} shows {'a mass' if i % 8 < 4 else 'no mass'}.",
                     ("ill", "well")[i // 4 % 2], patient, split])  # fmt: skip
    table(root / "index.csv", ["file", "report", "finding", "patient", "split"], rows)
    return root


def settings(root, **changes):
    return public("table", root, options=("label=finding",), image_size=16, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tree(tmp_path_factory.mktemp("tree"))
    return root, prepare_set(settings(root), tmp_path_factory.mktemp("out"), workers=1)


def test_a_set_from_the_command_line_and_described(tmp_path, capsys):
    nih(tmp_path / "nih")
    (tmp_path / "nih" / "images_001" / "images" / "00000002_000.png").write_bytes(b"<html>login</html>")
    command = ["nih", f"--data_dir={tmp_path / 'nih'}", f"--out={tmp_path / 'out'}", "--image_size=16", "--workers=1"]
    assert console.call(["prepare", *command]) == 0
    shown = capsys.readouterr().out
    assert console.call(["prepare", "describe", str(tmp_path / "out")]) == 0
    described = capsys.readouterr().out
    page, use, _ = shown.rpartition("to use it: ")
    assert page.endswith(described)
    assert use
    assert shown.endswith("--config.data.image_size=16\n")
    for line in (
        "NIH ChestX-ray14",
        "left out 2",
        "1  the image is unreadable",
        "in more than one split 0",
        "copies across splits 0",
        "stored as L: 38, RGBA: 1",
        "reports: written from the labels",
        "licence: free use with attribution",
    ):
        assert line in described
    with Image.open(open_prepared(tmp_path / "out").folder / SHEET) as sheet:
        assert sheet.size == (896, 896)
    assert console.call(["prepare", "list"]) == 0
    assert console.call(["prepare", "explain", "nih"]) == 0
    assert "train_val_list.txt" in capsys.readouterr().out
    assert console.call(["prepare", "iu_reports", str(openi_wheel(tmp_path / "a.whl"))]) == 0
    assert "reports 24, with findings or impression 23, different 23" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["nhi", "--data_dir=x", "--out=y"], "did you mean 'nih'"),
        (["nih", "--out=y"], "--data_dir"),
        (["nih", "--data_dir=/nowhere", "--out=OUT"], "does not exist"),
        (["nih", "--data_dir=x", "--out=y", "--uncertain=maybe"], "one of 'ignore', 'zero', 'one', 'exclude'"),
        (["nih", "--data_dir=x", "--out=y", "--image_size=8"], "from 16 to 1024"),
        (["nih", "--data_dir=x", "--out=y", "--test=1.0"], "leave some for train"),
        (["table", "--data_dir=x", "--out=y", "--option", "reprot=a"], "'report'"),
        (["iu_reports", "/nowhere.whl"], "does not exist"),
        (["describe", "/nowhere"], "must hold one prepared set"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_line(command, words, tmp_path, capsys):
    assert console.call(["prepare", *(part.replace("OUT", str(tmp_path)) for part in command)]) == outcome.REFUSED
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_where_the_tree_lies_and_how_many_work_do_not_matter(made, tmp_path, monkeypatch):
    root, first = made
    monkeypatch.setattr(decode, "PART", 16)
    shutil.copytree(root, tmp_path / "moved")
    second = prepare_set(settings(tmp_path / "moved"), tmp_path / "out", workers=2)
    assert (second.fingerprint, second.content) == (first.fingerprint, first.content)
    stored = [json.loads((s.folder / "prepared.json").read_text())["audit"] for s in (first, second)]
    assert stored[0] == stored[1]
    assert not list((tmp_path / "out" / ".parts").iterdir())


def test_a_changed_picture_or_choice_is_another_set(made, tmp_path):
    root, first = made
    other = shutil.copytree(root, tmp_path / "changed")
    picture(other / "images" / "5.png", 999)
    assert prepare_set(settings(other), tmp_path / "out", workers=1).fingerprint != first.fingerprint
    assert prepare_set(settings(root, repeats="drop"), tmp_path / "out", workers=1).fingerprint != first.fingerprint


def test_a_killed_preparation_goes_on_where_it_was(made, tmp_path):
    root, first = made
    script = f"""
        import os, signal, sys
        from ranjax.data.images import decode
        from ranjax.data.set_settings import SetSettings
        from ranjax.data.set_writing import prepare_set
        decode.PART = 8
        def progress(done, total):
            if done == 24:
                os.kill(os.getpid(), signal.SIGKILL)
        chosen = SetSettings("table", {str(root)!r}, options=("label=finding",), image_size=16, patient_key="none",
                             deidentify=False)
        prepare_set(chosen, {str(tmp_path)!r}, 1, progress)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    parts = list((tmp_path / ".parts").rglob("part-*"))
    assert len(parts) == 3
    with pytest.raises(DataError, match="found: none"):
        open_prepared(tmp_path)
    decode_part, decode.PART = decode.PART, 8
    try:
        calls = []
        second = prepare_set(settings(root), tmp_path, 1, lambda done, total: calls.append(done))
    finally:
        decode.PART = decode_part
    assert calls == [24, 32, 40]
    assert second.content == first.content


def test_a_stop_keeps_what_is_decoded(made, tmp_path, monkeypatch):
    root, first = made
    monkeypatch.setattr(decode, "PART", 8)
    done = []
    with pytest.raises(decode.Interrupted):
        prepare_set(settings(root), tmp_path, 1, lambda n, total: done.append(n), stop=lambda: len(done) == 2)
    assert done == [8, 16]
    assert prepare_set(settings(root), tmp_path, 1).content == first.content


def test_patients_in_two_splits_are_refused_unless_allowed(tmp_path):
    root = tree(tmp_path / "in", share=True)
    with pytest.raises(DataError, match=r"1 patients are in more than one split, the first is 'p0' in test, train"):
        prepare_set(settings(root), tmp_path / "out", workers=1)
    made = prepare_set(settings(root, allow_shared_patients=True), tmp_path / "out", workers=1)
    assert sum(made.counts.values()) == 40
    assert made.card["patients in several splits"] == "1, allowed on request"


def test_copies_across_splits_are_listed_dropped_or_refused(tmp_path):
    root = tree(tmp_path / "in", copy=True)
    made = prepare_set(settings(root), tmp_path / "out", workers=1)
    copies = json.loads((made.folder / "prepared.json").read_text())["audit"]["copies"]
    assert (copies["groups"], copies["films"], copies["between"]) == (1, 2, {"test and train": 1})
    assert set(copies["listed"][0]["films"]) == {"images/0.png", "images/3.png"}
    dropped = prepare_set(settings(root, duplicates="drop"), tmp_path / "out", workers=1)
    assert [item["id"] for item in dropped.exclusions] == ["images/0.png"]
    assert dict(dropped.counts) == {"train": 9, "adapt": 10, "validation": 10, "test": 10}
    with pytest.raises(DataError, match="1 images have a copy in another split"):
        prepare_set(settings(root, duplicates="refuse"), tmp_path / "out", workers=1)


def test_a_copy_is_known_after_scaling_and_recompression(tmp_path):
    def look(name):
        with Image.open(tmp_path / name) as image:
            return duplicates.perceptual_hash(image.convert("L"))

    with Image.open(picture(tmp_path / "a.png", 1, size=200)) as source:
        source.resize((137, 137)).save(tmp_path / "b.jpg", quality=60)
    others = [picture(tmp_path / f"{i}.png", i, size=200).name for i in range(2, 40)]
    hashes = [look(name) for name in ("a.png", "b.jpg", *others)]
    found = duplicates.across(hashes, ["train", "test"] + ["train", "test"] * 19, 7)
    assert [group.rows for group in found] == [(0, 1)]


def test_near_hashes_are_all_found(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (60, 256), dtype=np.uint8)
    for i in range(30):
        bits[30 + i] = bits[i]
        bits[30 + i, rng.choice(256, i % 12, replace=False)] ^= 1
    hashes = [np.packbits(row).tobytes() for row in bits]
    sides = ["train"] * 30 + ["test"] * 30
    for distance in (0, 3, 7):
        brute = {
            (i, j) for i in range(60) for j in range(i + 1, 60)
            if sides[i] != sides[j] and (bits[i] != bits[j]).sum() <= distance
        }  # fmt: skip
        assert {group.rows for group in duplicates.across(hashes, sides, distance)} == brute
    with pytest.raises(ValueError, match="0 to 7"):
        duplicates.across(hashes, sides, 8)


def test_a_key_hides_patients_and_ids(tmp_path):
    root = tree(tmp_path / "in")
    (tmp_path / "key").write_bytes(b"a secret of many bytes")
    made = prepare_set(settings(root, patient_key=str(tmp_path / "key")), tmp_path / "out", workers=1)
    stored = b"".join(path.read_bytes() for path in made.folder.iterdir() if path.name != SHEET)
    assert len(set(made.splits["train"].column("patient"))) == 10
    assert all(len(name) == 32 for name in made.splits["train"].ids)
    assert b"secret" not in stored
    assert b"images/0.png" not in stored


def test_every_row_that_cannot_be_used_is_counted(tmp_path):
    root = tree(tmp_path / "in")
    (root / "images" / "4.png").write_bytes(b"")
    (root / "images" / "8.png").unlink()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(root / "images" / "12.png")
    with (root / "index.csv").open("a") as file:
        file.write("../../etc/passwd,x,ill,p99,train\n,x,ill,p98,train\nimages/1.png,again,ill,p1,adapt\n")
        file.write("images/1.png?,x,ill,p97,holdout\n")
    made = prepare_set(settings(root), tmp_path / "out", workers=1)
    counted = audit.reasons(made.exclusions)
    assert counted == {
        "the image file is empty (0 bytes)": 1,
        "the image file does not exist": 1,
        "the image is all black": 1,
        "the path '...' leaves the folder of the set": 1,
        "column '...' is empty": 1,
        "the id is given twice": 1,
        "the split '...' is none of train, adapt, validation, test, ood_test": 1,
    }
    assert sum(made.counts.values()) + len(made.exclusions) == 44


def test_many_copies_of_one_picture_are_one_group_in_linear_memory():
    # 40,000 equal hashes in two splits are 400 million pairs.
    rng = np.random.default_rng(0)
    hashes = [b"\x5a" * 32] * 40_000 + [rng.bytes(32) for _ in range(500)]
    sides = ["train", "test"] * 20_000 + ["train"] * 500
    (group,) = duplicates.across(hashes, sides, 3)
    assert (len(group.rows), group.distance) == (40_000, 0)
    # Chains join: the first and the last of these differ in 6 bits.
    chain = [np.packbits(np.arange(256) < n).tobytes() for n in (100, 103, 106)]
    assert duplicates.across(chain, ["train", "test", "train"], 3) == [((0, 1, 2), 3)]
    assert duplicates.across(chain, ["train", "train", "test"], 3) == [((1, 2), 3)]


def test_ranges_warn_of_masks_and_darkness():
    stored = [("L", 20, 30, 0.0, 1.0, 2.0), ("I;16", 40, 10, 0.0, 4095.0, 3.0)]
    found = audit.ranges([decode.Outcome(b"", "", b"", *outcome) for outcome in stored])
    assert found["height"] == [20, 30, 40]
    assert found["stored values"] == {"L": [0, 1], "I;16": [0, 4095]}
    assert len(found["warnings"]) == 2


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load(FileRef(str(tmp_path / "none.png")))


def test_damaged_parts_are_named(tmp_path):
    (tmp_path / "part-000000000.arrow").write_bytes(b'[{"bytes": 5, "image_hash": ""}]\nabc')
    with pytest.raises(DataError, match="damaged"):
        list(decode.outcomes(tmp_path, 1))


@pytest.mark.parametrize("changes", [{"max_tokens": 20}, {"tokenizer": "x"}, {"sections": ("findngs",)}, {"limit": -1}])
def test_choices_that_do_not_fit_are_refused(changes, tmp_path):
    with pytest.raises(ConfigError):
        settings(tmp_path, **changes)


def test_as_a_command_with_all_cores(made, tmp_path):
    root, first = made
    command = [sys.executable, "-m", "ranjax", "prepare", "table", f"--data_dir={root}", f"--out={tmp_path}",
               "--option",
               "label=finding", "--image_size=16", "--patient_key=none", "--no-deidentify"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
    assert first.fingerprint in done.stdout
    assert "40/40" in done.stderr
