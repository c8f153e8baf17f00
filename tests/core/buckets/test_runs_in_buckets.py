"""The real command with its workdir in a real S3 server: killed, gone on with elsewhere, refused twice, read."""

import signal
import subprocess
import sys

import pytest

from experiments.reliability import kills
from ranjax.cli import console, outcome
from ranjax.core import files
from ranjax.core.buckets.lease import Lease
from ranjax.core.buckets.workdirs import fetched

TINY = kills.ROOT / "experiments" / "reliability" / "tiny.py"


def test_a_local_data_folder_is_asked_for_in_one_line(capsys):
    code = console.call(["describe", "--config", str(TINY), "--config.data.dir=s3://bucket/data"])
    assert code == outcome.REFUSED
    assert capsys.readouterr().err.startswith("error: data.dir = 's3://bucket/data': expected a local folder, or ''")


@pytest.mark.slow  # the command starts three times
def test_killed_on_one_machine_a_run_ends_on_another_at_the_same_bits(s3, tmp_path, monkeypatch, capsys):
    arguments = ["--config", TINY, f"--config.compile_cache={tmp_path / 'cache'}", "--config.noise.ratios=(0.0,)"]
    arguments += ["--config.adapt.controls=()", "--until", "pretrain", "--track", "none"]
    kills.finish([*arguments, "--workdir", tmp_path / "local"])
    there = [*arguments, "--workdir", f"{s3}/runs/tiny"]
    s3.proxy.faults = ["503", None, "cut", None, "lost", None, "half", None] * 6
    found = kills.kill(there, signal.SIGKILL, lambda place: 0.5 if place == "pretrain/clean" else None)
    assert (found.hit, found.code) == ("pretrain/clean", -signal.SIGKILL), found
    monkeypatch.setenv("RANJAX_STAGING", str(tmp_path / "another machine"))
    said = kills.finish(there)
    assert "prepare: done before, skipped" in said
    assert "SECRETOFTHETEST" not in said + found.output
    again = fetched(f"{s3}/runs/tiny", "WORKDIR")
    for name in ("prepare", "pretrain/clean"):
        expected, got = (files.read_json(folder / name / "manifest.json") for folder in (tmp_path / "local", again))
        assert got["files"] == expected["files"]
        assert got["fingerprint"] == expected["fingerprint"]
    assert kills.records(again) == kills.records(tmp_path / "local")
    assert console.call(["status", f"{s3}/runs/tiny"]) == outcome.UNFINISHED
    shown = capsys.readouterr().out
    assert shown.startswith(f"{s3}/runs/tiny: ")
    assert "pretrain/clean           done in" in shown
    with Lease(f"{s3}/runs/tiny", "k"):
        with_lease = [sys.executable, "-m", "ranjax.main", "run", *map(str, there)]
        second = subprocess.run(with_lease, capture_output=True, text=True, cwd=kills.ROOT, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (outcome.REFUSED, 1)
        assert "expected a folder that no other run uses; process" in second.stderr
