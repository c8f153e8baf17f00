"""Slurm's engine through submitit's own executor for this machine, and the script that it would queue."""

import os
import signal
import time
from collections import deque
from functools import partial

import pytest

from ranjax.core.engines import engine_table
from ranjax.core.engines.task_pool import work_through
from ranjax.core.errors import ConfigError, RunError
from ranjax.run.sweep_runs import RunTask

pytest.importorskip("submitit", reason="Slurm's engine needs the extra slurm")
pytestmark = pytest.mark.slow


def test_jobs_give_results_and_their_errors(tmp_path):
    with engine_table.opened("slurm", ["cluster=local", "minutes=2"], tmp_path / "jobs") as pool:
        tasks = {"sum": partial(sum, [1, 2]), "fails": partial(int, "a fault of the task")}
        ended = dict(work_through(pool, deque(tasks), lambda name: (name, tasks[name])))
        assert ended["sum"].result() == 3
        with pytest.raises(RunError, match="a fault of the task"):
            ended["fails"].result()


def test_a_job_whose_time_is_up_saves_is_queued_again_and_goes_on(tmp_path, monkeypatch):
    # Stands in for `ranjax`: it leaves with 75 when it is told to stop, and is done the second time.
    package = tmp_path / "lab" / "ranjax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "mark = pathlib.Path('mark')\n"
        "if mark.exists(): print('done'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (mark.touch(), sys.exit(75)))\n"
        "print('began under', os.getppid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.chdir(package.parent)
    task = RunTask(["run"], tmp_path / "run.log")
    monkeypatch.chdir(tmp_path)
    with engine_table.opened("slurm", ["cluster=local", "minutes=2"], tmp_path / "jobs") as pool:
        future = pool.submit(task, "run")
        deadline = time.monotonic() + 60
        log = tmp_path / "run.log"
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # As Slurm does 90 seconds before the end.
        os.kill(int(log.read_text().split()[-1]), signal.SIGUSR2)
        ended = future.result(timeout=60)
    assert (ended.code, ended.said) == (0, "done")
    assert (tmp_path / "lab" / "mark").exists()


def test_a_machine_without_slurm_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ConfigError, match="--on = 'slurm': expected a machine that can queue jobs"),
        engine_table.opened("slurm", [], tmp_path),
    ):
        pass


def test_the_script_asks_slurm_for_what_the_settings_say(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    texts = ["partition=gpu", "gpus=4", "nodes=2", "processes=4", "cpus=8", "minutes=90", "options=account=lab"]
    with engine_table.opened("slurm", texts, tmp_path / "jobs") as pool:
        text = pool._executor._executor._make_submission_file_text("the task", "uid")
    for line in ("partition=gpu", "gpus-per-node=4", "nodes=2", "ntasks-per-node=4", "cpus-per-task=8", "time=90",
                 "account=lab", "signal=USR2@90", "open-mode=append"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text, text
