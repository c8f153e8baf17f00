"""Runs as tasks of an engine: each one a command line in a process of its own, tried again after a crash or a stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ranjax.core.buckets import object_store, workdirs
from ranjax.core.engines.task_pool import Pool, TaskStopped, is_seen, work_through
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.lock import PATIENCE
from ranjax.run import run_status

PATIENT = "180"
"""Seconds that a run waits for a workdir which a lost machine still holds; a lease of an object store ends in 60."""
REFUSED, FAILED, STOPPED = 2, 3, 75
"""Exit codes of `ranjax run` after which it is not tried again, and the one of a stop."""
_SHOWN = 4096
# On Linux the child is told to save and stop when its parent dies, however that is (prctl 1: PR_SET_PDEATHSIG); other
# systems have nothing like it. submitit's signal is for its parent alone.
_BOOT = """
import ctypes, os, runpy, signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
if sys.platform == "linux": ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != {parent}: sys.exit(75)
runpy.run_module("ranjax", run_name="__main__", alter_sys=True)
"""


class Ended(NamedTuple):
    """How a process of a run ended: its exit code, the end of its output, and its machine."""

    code: int
    said: str
    host: str


class RunTask:
    """The command line of a run, as a task: it can be sent to another machine, stopped, and started again.

    Args:
      words: what follows ``ranjax``.
      log: file that gets the output, behind what is there.
    """

    def __init__(self, words: Sequence[str], log: Path):
        self.words, self.log, self.here = tuple(words), log.absolute(), Path.cwd()
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None}

    def __call__(self) -> Ended:
        """Carry it out. The current directory is the one in which the task was made."""
        host = socket.gethostname()
        if not self.here.is_dir():
            return Ended(REFUSED, f"error: {host} does not see {self.here}, where the command was given", host)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "-c", _BOOT.format(parent=os.getpid()), *self.words]
        environment = {PATIENCE: PATIENT, "PYTHONUNBUFFERED": "1", **os.environ}
        with open(self.log, "ab") as log:
            before = log.tell()
            # A session of its own: a Ctrl-C on the terminal reaches this process only, which passes it on once.
            self._process = subprocess.Popen(
                line, stdout=log, stderr=subprocess.STDOUT, cwd=self.here, env=environment, start_new_session=True
            )
            try:
                while self._process.poll() is None:
                    time.sleep(0.1)
            except KeyboardInterrupt:
                self.stop()
                self._process.wait()
        with open(self.log, "rb") as log:
            log.seek(max(before, self.log.stat().st_size - _SHOWN))
            said = log.read().decode(errors="replace")
        return Ended(self._process.returncode, said.strip(), host)

    def stop(self) -> None:
        """Ask the process to save and stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def checkpoint(self) -> Any:
        """Save and stop, and return what submitit queues again: this task."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        if self._process is not None:
            self._process.wait()
        return DelayedSubmission(self)


@dataclass
class Tally:
    """How runs ended.

    Attributes:
      done: names of those that are done.
      failed: by the name of a run that is not, the reason.
      last: by name, how its last process ended.
      stopped: whether a stop was asked for.
    """

    done: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    last: dict[str, Ended] = field(default_factory=dict)
    stopped: bool = False


def state_of(workdir: str) -> str:
    """Return where the run of a workdir, which may be the URL of one, stands: see `run_status.status`."""
    if object_store.local_path(workdir, "workdir") is None:
        try:
            folder = workdirs.fetched(workdir, "workdir", lambda name: name.endswith(".json"))
        except ConfigError:
            return "not started"
        return str(run_status.status(folder)["state"])
    return str(run_status.status(workdir)["state"]) if Path(workdir).is_dir() else "not started"


def run_all(
    runs: Sequence[tuple[str, str, Sequence[str]]],
    pool: Pool,
    logs: Path,
    *,
    attempts: int = 3,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> Tally:
    """Carry out runs on an engine.

    A run that crashes or is stopped goes on from where it was, `attempts` times in all; one that was refused or cannot
    go on is not tried again. On a stop no new run starts, the running ones are asked to save and stop, and the same
    call goes on later.

    Args:
      runs: (name, workdir, words of the command line), see `RunTask`.
      pool: of the engine.
      logs: folder of the outputs, ``<name>.log``.
      attempts: tries of a run that crashes.
      stop: polled.
      say: receives a line of text at a time.

    Raises:
      ConfigError: the engine refuses its tasks, e.g. for the versions on its machines.
    """
    tally = Tally([])
    tries = dict.fromkeys((name for name, *_ in runs), 1)
    tasks = {name: RunTask(words, logs / f"{name}.log") for name, _, words in runs}
    places = {name: workdir for name, workdir, _ in runs}
    waiting = deque(tasks)
    for name, future in work_through(pool, waiting, lambda name: (name, tasks[name]), stop):
        ended = _ended(future)
        tally.last[name] = ended
        reason = f"exit code {ended.code} on {ended.host}, see {tasks[name].log}"
        if ended.code == 0 and not _is_seen(places[name]):
            tally.failed[name] = f"done on {ended.host}, but {places[name]} is not seen here; all machines must see it"
        elif ended.code == 0:
            tally.done.append(name)
            say(f"{name}: done")
            continue
        elif ended.code in (REFUSED, FAILED) or (tries[name] >= attempts and not stop()):
            tally.failed[name] = reason
        elif not stop():
            tries[name] += 1
            say(f"{name}: {reason}; attempt {tries[name]} of {attempts}")
            waiting.append(name)
            continue
        else:
            continue
        say(f"{name}: given up, {tally.failed[name]}")
    tally.stopped = stop()
    return tally


def _ended(future: Future[Any]) -> Ended:
    try:
        ended: Ended = future.result()
    except (ConfigError, DataError):
        raise
    except (TaskStopped, CancelledError):
        ended = Ended(STOPPED, "", "the cluster")
    except Exception as error:  # a machine that died too often, a job without a result
        ended = Ended(1, str(error), "the cluster")
    return ended


def _is_seen(workdir: str) -> bool:
    return object_store.is_url(workdir) or is_seen(Path(workdir) / "config.json")
