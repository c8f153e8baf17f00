"""Runs on this machine: a few at a time, each tried again after a crash or a stop, until all are done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from experiments.batch.states import DONE, state_of
from experiments.batch.sweep import Run
from ranjax.cli import outcome


@dataclass
class Tally:
    """How a local sweep ended: names of runs that are done, and of those that are not with the reason."""

    done: list[str]
    failed: dict[str, str]
    stopped: bool = False


def run_all(
    runs: Sequence[Run],
    folder: Path,
    *,
    at_a_time: int = 1,
    attempts: int = 3,
    say: Callable[[str], None] = print,
) -> Tally:
    """Carries out every run that is not done, `at_a_time` processes at once.

    Each run has its own workdir ``folder/<name>`` and its output in ``folder/<name>.log``. A run that crashes or is
    stopped goes on from where it was, `attempts` times in all; one that was refused or cannot go on is not tried
    again. On SIGINT or SIGTERM no new run starts, the running ones are asked to save and stop, and the same call goes
    on later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in runs if state_of(folder / run.name) != DONE]
    tally = Tally([run.name for run in runs if run not in waiting], {})
    tries = {run.name: 0 for run in waiting}
    active: dict[str, tuple[Run, subprocess.Popen[bytes]]] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        tally.stopped = True
        for _, process in active.values():
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while active or (waiting and not tally.stopped):
            while waiting and len(active) < at_a_time and not tally.stopped:
                run = waiting.pop(0)
                tries[run.name] += 1
                say(f"{run.name}: starts (attempt {tries[run.name]} of {attempts})")
                active[run.name] = (run, _start(run, folder))
            for name, (run, process) in list(active.items()):
                code = process.poll()
                if code is None:
                    continue
                del active[name]
                if code == 0:
                    tally.done.append(name)
                    say(f"{name}: done")
                elif code in (outcome.REFUSED, outcome.FAILED) or (tries[name] >= attempts and not tally.stopped):
                    tally.failed[name] = f"exit code {code}, see {folder / name}.log"
                    say(f"{name}: given up, {tally.failed[name]}")
                elif not tally.stopped:
                    say(f"{name}: exit code {code}, goes on")
                    waiting.append(run)
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return tally


def _start(run: Run, folder: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", *run.arguments(str(folder / run.name))]
    with open(folder / f"{run.name}.log", "ab") as log:
        # A session of its own: a Ctrl-C on the terminal reaches this process only, which passes it on once.
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
