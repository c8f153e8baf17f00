"""`ranjax status`: on an empty folder, while a run is on, after a kill or a stop, and on damaged files."""

import json
import os
import socket
import subprocess
import sys

import pytest

from ranjax.cli import console, outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.run import config as configs
from ranjax.run import heartbeat
from ranjax.run import plan as planning
from ranjax.run import run_status as status
from ranjax.run.context import Stopped
from ranjax.training.progress import Progress


def begun(workdir, runs, work=True):
    """A workdir as the pipeline leaves it in the middle: the first two runs done, the third with a checkpoint."""
    config = configs.default_config()
    files.write_json(workdir / "config.json", configs.flatten(config))
    for number, run in enumerate(planning.plan(config)[:runs]):
        folder = workdir / run.id
        files.write_json(folder / "stage.json", {})
        if number < runs - 1:
            files.write_json(folder / "manifest.json", {"seconds": 75.0})
    return config


def test_an_empty_folder_has_no_run_and_an_absent_one_is_refused(tmp_path, capsys):
    assert console.call(["status", str(tmp_path)]) == outcome.UNFINISHED
    assert "no run was started here" in capsys.readouterr().out
    assert console.call(["status", str(tmp_path / "absent")]) == outcome.REFUSED
    assert "a folder that exists" in capsys.readouterr().err


def test_a_run_at_work_says_where_it_is_how_fast_and_how_long_still(tmp_path, monkeypatch, capsys):
    begun(tmp_path, 2)
    files.write_json(tmp_path / "pretrain/clean/checkpoints/130.json", {})
    (tmp_path / "pretrain/clean/checkpoints/130").mkdir()
    monkeypatch.setattr(status, "is_alive", lambda said: True)
    with heartbeat.Heartbeat(tmp_path) as beat:
        say = beat.wrap(lambda line: None)
        beat.at("pretrain/clean", 2, 10)
        say("  step 150: loss 2.5")
        standing = {"name": "pretrain clean", "done": 150, "total": 260, "unit": "steps", "rate": 5.5}
        beat.content["work"] = standing | {"metrics": {"loss": 2.5}}
        beat.began("step", 1.0)
        assert console.call(["status", str(tmp_path)]) == outcome.UNFINISHED
    shown = capsys.readouterr().out
    assert f"{tmp_path}: running, 1 of" in shown
    assert f"process {os.getpid()} on {socket.gethostname()}" in shown
    line = next(line for line in shown.splitlines() if line.strip().startswith("pretrain/clean"))
    said, _, compiling = line.split(None, 1)[1].rpartition(", ")
    assert said == (
        "running, last checkpoint of step 130, pretrain clean 150/260 steps, 5.5 steps/s, 20 s left, loss 2.5"
    )
    assert compiling.startswith("compiling step for ")
    assert "prepare                  done in 1 min 15 s" in shown
    assert "last word: step 150: loss 2.5" in shown


def test_every_progress_reaches_the_status(tmp_path):
    from ranjax.training import progress

    with heartbeat.Heartbeat(tmp_path) as beat, progress.listening(beat.work):
        shown = Progress("craft", 10, stream=open(os.devnull, "w"), unit="pairs")  # noqa: SIM115
        shown.update(4, {"loss": float("nan"), "other": 1.0})
        shown._stream.close()
    found = files.read_json(tmp_path / heartbeat.FILE)
    assert found["state"] == "done"
    assert found["work"] == {
        "name": "craft", "done": 4, "total": 10, "unit": "pairs", "rate": None, "metrics": {"other": 1.0},
    }  # fmt: skip
    Progress("later", 1, stream=sys.stderr)
    assert not progress._listeners


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Stopped("pretrain/clean, at step 4"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (ConfigError("a", 1, "else"), "refused"),
        (DataError("patient 77 is in two splits"), "refused"),
        (OSError("no disk"), "failed"),
    ],
)
def test_how_a_run_ended_is_written_down(tmp_path, error, state):
    begun(tmp_path, 2)
    with pytest.raises(type(error)), heartbeat.Heartbeat(tmp_path):
        raise error
    found = status.status(tmp_path)
    assert found["state"] == state
    # What is wrong with data may name a patient: the command says it, no file does.
    assert "77" not in json.dumps(found["said"])
    assert state in status.describe(found)


def test_a_process_that_is_gone_was_killed_and_another_hosts_is_judged_by_its_silence(tmp_path):
    begun(tmp_path, 2)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    said = {"state": "running", "process": int(gone.stdout), "host": socket.gethostname(), "started": heartbeat._now()}
    files.write_json(tmp_path / heartbeat.FILE, said | {"updated": heartbeat._now()})
    found = status.status(tmp_path)
    assert found["state"] == "killed"
    assert "the command of this run goes on from here" in status.describe(found)
    # This process works, but is no run.
    said["process"] = 1
    assert not status.is_alive(said)
    said["host"] = "elsewhere"
    assert status.is_alive(said | {"updated": heartbeat._now()})
    assert not status.is_alive(said | {"updated": "2020-01-01T00:00:00+00:00"})


def test_a_damaged_status_is_left_out(tmp_path):
    begun(tmp_path, 3)
    (tmp_path / heartbeat.FILE).write_text('{"state": "runn')
    found = status.status(tmp_path)
    assert found["state"] == "unfinished"
    assert [stage["state"] for stage in found["stages"]][:4] == ["done", "done", "unfinished", "waiting"]
    assert console.call(["status", str(tmp_path), "--json"]) == outcome.UNFINISHED


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_read_with_the_defaults_of_keys_that_it_lacks(tmp_path):
    begun(tmp_path, 3)
    stored = files.read_json(tmp_path / "config.json")
    for name in ("adapt.ran_v1.epochs_share", "adapt.defence_source"):
        del stored[name]
    files.write_json(tmp_path / "config.json", stored)
    assert configs.flatten(configs.of_run(tmp_path)) == configs.flatten(configs.default_config())
    assert sum(stage["state"] == "done" for stage in status.status(tmp_path)["stages"]) == 2
    files.write_json(tmp_path / "config.json", stored | {"adapt.ran_v1.epoch_share": 1.0})
    with pytest.raises(ConfigError, match=r"ran_v1\.epochs_share"):
        status.status(tmp_path)
