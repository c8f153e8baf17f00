"""A terminal of ASCII alone shows an escape in place of a letter, and no command ends in a traceback there."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ranjax.cli import console, outcome
from ranjax.data.prepared import open_prepared


def shown_by(*words):
    """Run a command with standard output and error as strict ASCII, as LC_ALL=C makes them; (code, output, error)."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = console.call(words)
    return code, *(stream.buffer.getvalue().decode("ascii") for stream in (out, err))


def table(folder, name="index.csv", first="file", report="Kein Erguß — Herz groß"):
    folder.mkdir()
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        rows = [(f"Röntgen {i}.png", f"{report} {i}.", f"Müller{i}") for i in range(4)]
        csv.writer(file).writerows([(first, "report", "Patient"), *rows])
    for i in range(4):
        grey = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"Röntgen {i}.png")
    return folder


def test_prepare_shows_umlauts_as_escapes_and_keeps_them_in_the_set(tmp_path):
    root = table(tmp_path / "Füße")
    command = [f"--data_dir={root}", f"--out={tmp_path / 'aus'}", "--image_size=16", "--workers=1", "--adapt=0"]
    more = ["--validation=0", "--test=0", "--patient_key=none", "--no-deidentify"]
    code, out, err = shown_by("prepare", "table", *command, *more)
    assert code == outcome.DONE, err
    assert "aus" in out
    assert {record["report"] for record in open_prepared(tmp_path / "aus").splits["train"]} == {
        f"Kein Erguß — Herz groß {i}." for i in range(4)
    }
    code, _, err = shown_by("prepare", "table", f"--data_dir={tmp_path / 'Öde'}", "--out=x")
    assert code == outcome.REFUSED
    assert "\\xd6de" in err


def test_config_and_status_say_what_they_refuse(tmp_path):
    (tmp_path / "weiß").mkdir()
    code, out, _ = shown_by("status", str(tmp_path / "weiß"))
    assert code == outcome.UNFINISHED
    assert "wei\\xdf: no run was started here" in out
    for words in (("status", str(tmp_path / "größe")), ("describe", "--config", str(tmp_path / "größe.py"))):
        code, _, err = shown_by(*words)
        assert (code, err.count("\n")) == (outcome.REFUSED, 1)
        assert "gr\\xf6\\xdfe" in err


@pytest.mark.parametrize("name", sorted(console.COMMANDS))
def test_every_command_refuses_a_name_with_umlauts_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = shown_by(name, "größe")
    assert code in (outcome.REFUSED, outcome.UNFINISHED)
    assert (out + err).count("\n") == 1
    assert "gr\\xf6\\xdfe" in out + err or "--config" in err or "arguments are required" in err


def test_names_that_are_no_unicode_are_left_out_with_a_reason(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    good = json.dumps({"file": "0.png", "report": "Heart normal.", "patient": "a"})
    (root / "index.jsonl").write_text("\n".join([
        good,
        '{"file": "1.png", "report": "Half a letter \\ud83d.", "patient": "b"}',
        '{"file": "\\udce9.png", "report": "Heart large.", "patient": "c"}',
    ]))  # fmt: skip
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(root / "0.png")
    command = [f"--data_dir={root}", f"--out={tmp_path / 'out'}", "--image_size=16", "--workers=1", "--adapt=0"]
    more = ["--validation=0", "--test=0", "--patient_key=none"]
    code, _, err = shown_by("prepare", "table", *command, *more)
    assert code == outcome.DONE, err
    found = open_prepared(tmp_path / "out")
    assert found.counts == {"train": 1}
    assert [item["reason"] for item in found.exclusions] == ["its name or a text is no valid Unicode"] * 2


def test_prepare_names_its_films_in_utf8_where_python_was_told_not_to(tmp_path):
    root = table(tmp_path / "Füße")
    line = ["prepare", "table", f"--data_dir={root}", f"--out={tmp_path / 'aus ö'}", "--image_size=16", "--workers=1"]
    more = ["--adapt=0", "--validation=0", "--test=0", "--patient_key=none", "--no-deidentify"]
    told = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "ranjax", *line, *more],
        capture_output=True, check=False, env={**os.environ, **told, "JAX_PLATFORMS": "cpu"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == outcome.DONE, done.stderr
    (done.stdout + done.stderr).decode("ascii")
    assert open_prepared(tmp_path / "aus ö").counts == {"train": 4}


@pytest.mark.slow
def test_attack_and_run_in_a_shell_of_the_c_locale(tmp_path):
    from test_fuzz_commands import KNOWN, checkpoint

    root = table(tmp_path / "Füße", "befund.csv", "image", f"{KNOWN[1]} Größer —")
    given = {"checkpoint": checkpoint(), "images": root, "reports": root / "befund.csv", "out": tmp_path / "größer"}
    line = [f"--{name}={value}" for name, value in given.items()]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    for command, code in (
        (["attack", *line, "--steps=1", "--words=1", "--compile_cache=off"], 0),
        (["run", "--config", str(tmp_path / "größe.py")], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ranjax", *command], capture_output=True, check=False, env=environment, timeout=300
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        (done.stdout + done.stderr).decode("ascii")
    written = (tmp_path / "größer" / "pairs.csv").read_text("utf-8")
    assert "Röntgen 0.png" in written
