"""The real command killed in every stage, at random moments, its clock set back: the same bits come out (slow)."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.reliability import kills
from ranjax.cli import console, outcome
from ranjax.core import files
from ranjax.run import run_status as status

TINY = kills.ROOT / "experiments" / "reliability" / "tiny.py"
BACKWARDS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* The wall clock is set back; the monotonic one is not. */
typedef long long ns;
static ns origin;
static ns back(ns now) { if (!origin) origin = now; return BACK; }
int clock_gettime(clockid_t which, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(which, at);
  if (which == CLOCK_REALTIME) {
    ns now = back(at->tv_sec * 1000000000LL + at->tv_nsec);
    at->tv_sec = now / 1000000000LL;
    at->tv_nsec = now % 1000000000LL;
  }
  return code;
}
time_t time(time_t *at) {
  struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
"""

DEAF = """
from ranjax.training import signals
signals.StopFlag.__call__ = lambda flag: flag._raise_held_back()
"""
"""Makes a run that is always between two polls: the first request never stops it, so that the second one has to."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody kills: (workdir, its signature, the arguments but for the workdir)."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = ["--config", TINY, f"--config.compile_cache={folder / 'cache'}"]
    kills.finish([*arguments, "--workdir", folder / "run"])
    return folder / "run", kills.signature(folder / "run"), arguments


@pytest.fixture
def clock_that_goes_back(tmp_path):
    """Makes a library that sets a process's wall clock back, as an expression in C of `now` and `origin` (ns) says."""
    compiler = shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux to turn a process's clock back")
    (tmp_path / "back.c").write_text(BACKWARDS)

    def made(how):
        line = [
            compiler,
            f"-DBACK={how}",
            "-shared",
            "-fPIC",
            "-o",
            str(tmp_path / "back.so"),
            str(tmp_path / "back.c"),
        ]
        subprocess.run([*line, "-ldl"], check=True, capture_output=True)
        return str(tmp_path / "back.so")

    return made


@pytest.mark.slow
def test_killed_in_every_stage_with_the_clock_going_back_a_run_ends_at_the_same_bits(
    whole, tmp_path, clock_that_goes_back, monkeypatch
):
    workdir, expected, arguments = whole
    arguments = [*arguments, "--workdir", tmp_path / "run"]
    seconds, draw = kills.durations(workdir), random.Random(11)
    # By an hour every three seconds.
    monkeypatch.setenv("LD_PRELOAD", clock_that_goes_back("now-3600000000000LL*((now-origin)/3000000000LL)"))
    code = "import time; a = time.time(); time.sleep(3.1); print(time.time() < a - 3000)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    signals = itertools.cycle([signal.SIGKILL, signal.SIGTERM])
    aimed = ("prepare", "pretrain/clean", "craft", "adapt/clean", "evaluate/clean", "report")
    for run_id in aimed:
        delay = draw.uniform(0.0, 0.5 * seconds[run_id])
        found = kills.kill(arguments, next(signals), lambda place: delay if place == run_id else None)  # noqa: B023
        assert found.expected, found
        assert found.code != 0 or run_id == "report", found
    kills.finish(arguments)
    assert kills.signature(tmp_path / "run") == expected
    assert kills.examples(tmp_path / "run") == kills.examples(workdir)
    assert not list((tmp_path / "run").rglob(".*.tmp"))


@pytest.mark.slow
def test_a_clock_that_runs_backwards_all_the_time_ends_a_run_in_one_line(whole, tmp_path, clock_that_goes_back):
    """Under such a clock tensorstore never writes a byte; with the clock right again the same command goes on."""
    workdir, expected, arguments = whole
    for name in ("prepare", "data"):
        shutil.copytree(workdir / name, tmp_path / "run" / name)
    arguments = [*map(str, arguments), "--workdir", str(tmp_path / "run"), "--until", "pretrain"]
    code = "import sys; from ranjax import main; from ranjax.training import checkpoints; checkpoints.PATIENCE = 3.0"
    environment = {**os.environ, "LD_PRELOAD": clock_that_goes_back("2*origin-now")}
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(main.main({arguments}))"], capture_output=True, text=True,
        timeout=200, cwd=kills.ROOT, check=False, env=environment,
    )  # fmt: skip
    assert found.returncode == 3, found.stdout + found.stderr
    (said,) = (line for line in found.stderr.splitlines() if line.startswith("error:"))
    assert "this machine's clock went back by" in said
    assert status.status(tmp_path / "run")["state"] == "failed"
    kills.finish(arguments)
    name = "pretrain/clean/encoder/model.safetensors"
    assert files.sha256(tmp_path / "run" / name) == expected[name]


@pytest.mark.slow
def test_two_interrupts_end_at_once_and_a_second_run_names_the_first(whole, tmp_path):
    workdir, expected, arguments = whole
    shutil.copytree(workdir, tmp_path / "run")
    for name in ("craft", "pretrain/coattack_30", "adapt", "evaluate", "report"):
        shutil.rmtree(tmp_path / "run" / name)
    arguments = [*arguments, "--workdir", tmp_path / "run", "--until", "craft"]
    # With stages to come: crafting alone may end before the second request is answered.
    with kills.start([*arguments[:-1], "report"], before=DEAF) as process:
        for line in process.stdout:
            if "] craft" in line:
                break
        found = status.status(tmp_path / "run")
        assert (found["state"], found["process"]) == ("running", process.pid)
        second = subprocess.run(kills.command(arguments), capture_output=True, text=True, cwd=kills.ROOT, check=False)
        assert second.returncode == 2
        assert f"process {process.pid} on {found['host']} holds it" in second.stderr
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 130, rest
        assert "stopped at once; finished shards and the last checkpoint remain" in rest
        assert "Traceback" not in rest
    # Inside a compilation, which no handler interrupts, the process is ended from a thread and writes nothing more.
    assert status.status(tmp_path / "run")["state"] in ("stopped", "killed")
    # A byte of a finished shard turns: named, set aside on request, and made again.
    kills.finish(arguments)
    shard = sorted((tmp_path / "run" / "craft" / "store").glob("*.array_record"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refused = subprocess.run(
        kills.command([*arguments[:-1], "pretrain"]), capture_output=True, text=True, cwd=kills.ROOT, check=False
    )
    assert refused.returncode == 2
    assert f"{shard} does not match its SHA-256" in refused.stderr
    assert "--repair sets it aside" in refused.stderr
    assert console.call(["verify", str(tmp_path / "run"), "--repair", "--sample=0"]) == outcome.WRONG
    kills.finish(arguments)
    assert files.sha256(shard) == expected[str(shard.relative_to(tmp_path / "run"))]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_in_one_line_and_keeps_the_last_good_checkpoint(whole, tmp_path):
    workdir, _, arguments = whole
    shutil.copytree(workdir, tmp_path / "run")
    for name in ("pretrain", "craft", "adapt", "evaluate", "report"):
        shutil.rmtree(tmp_path / "run" / name)
    hot = ["--config.pretrain.learning_rate=1e38", "--config.pretrain.checkpoint_every=1", "--config.pretrain.warmup=1"]
    line = kills.command([*arguments, "--workdir", tmp_path / "run", *hot])
    done = subprocess.run(line, capture_output=True, text=True, cwd=kills.ROOT, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert "is not finite" in said
    assert "Traceback" not in done.stderr
    (ids,) = (tmp_path / "run" / "pretrain" / "clean" / "checkpoints").glob("nonfinite-step-*.json")
    assert len(files.read_json(ids)["batch"]["ids"]) == 8
    assert status.status(tmp_path / "run")["state"] == "failed"
