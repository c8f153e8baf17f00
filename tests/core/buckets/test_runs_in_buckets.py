"""The real command with its workdir in an object store: killed, gone on with elsewhere, refused twice, read."""

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


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A run on the local disk: its arguments, with a cache of its programs for those that follow, and its folder."""
    folder = tmp_path_factory.mktemp("local")
    arguments = ["--config", TINY, f"--config.compile_cache={folder / 'cache'}", "--config.noise.ratios=(0.0,)"]
    arguments += ["--config.adapt.controls=()", "--until", "pretrain", "--track", "none"]
    kills.finish([*arguments, "--workdir", folder / "run"])
    return arguments, folder / "run"


@pytest.mark.slow  # the command starts three times
def test_killed_on_one_machine_a_run_ends_on_another_at_the_same_bits(local, bucket, tmp_path, monkeypatch, capsys):
    arguments, expected_run = local
    there = [*arguments, "--workdir", f"{bucket}/runs/tiny"]
    bucket.proxy.faults = ["503", None, "cut", None, "lost", None, "half", None] * 6
    found = kills.kill(there, signal.SIGKILL, lambda place: 0.5 if place == "pretrain/clean" else None)
    assert (found.hit, found.code) == ("pretrain/clean", -signal.SIGKILL), found
    monkeypatch.setenv("RANJAX_STAGING", str(tmp_path / "another machine"))
    said = kills.finish(there)
    assert "prepare: done before, skipped" in said
    assert not any(secret in said + found.output for secret in bucket.server.secrets)
    again = fetched(f"{bucket}/runs/tiny", "WORKDIR")
    for name in ("prepare", "pretrain/clean"):
        expected, got = (files.read_json(folder / name / "manifest.json") for folder in (expected_run, again))
        assert got["files"] == expected["files"]
        assert got["fingerprint"] == expected["fingerprint"]
    assert kills.records(again) == kills.records(expected_run)
    assert console.call(["status", f"{bucket}/runs/tiny"]) == outcome.UNFINISHED
    shown = capsys.readouterr().out
    assert shown.startswith(f"{bucket}/runs/tiny: ")
    assert "pretrain/clean           done in" in shown
    with Lease(f"{bucket}/runs/tiny", "k"):
        with_lease = [sys.executable, "-m", "ranjax.main", "run", *map(str, there)]
        second = subprocess.run(with_lease, capture_output=True, text=True, cwd=kills.ROOT, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (outcome.REFUSED, 1)
        assert "expected a folder that no other run uses; process" in second.stderr
