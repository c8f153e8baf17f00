"""The file ``status.json`` that a run writes into its workdir while it works, for ``ranjax status`` and schedulers.

    {"state": "running", "process": 4711, "host": "...", "started": "...", "updated": "...", "run": "pretrain/clean",
     "place": [2, 9], "work": {"name", "done", "total", "unit", "rate", "metrics"}, "compiling": {"name", "since"},
     "said": "..."}

``state`` is "running", "done", "stopped", "refused" or "failed"; a run that was killed leaves "running" with a process
that is gone. Times are UTC and of this machine's clock; nothing else reads them.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.run.context import Stopped
from ranjax.training.progress import ProgressUpdate

FILE = "status.json"
LARGE = 0.3
"""Seconds of lowering beyond which a program takes seconds to compile."""
INTERVAL = 5.0
"""Seconds between two writings; a run on another host counts as alive while its status is recent."""


class Heartbeat:
    """Write status.json: at once when the run enters a stage or ends, and every `INTERVAL` seconds.

    A context manager around the work of a run; an exception that passes through is written down as its end. A full or
    read-only disk does not stop the run here: the code that needs the space reports it.
    """

    def __init__(self, workdir: Path):
        self.path = workdir / FILE
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._writing = threading.Lock()
        self._say: Callable[[str], None] = lambda line: None
        self.content: dict[str, object] = {
            "state": "running",
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
        }

    def __enter__(self) -> Heartbeat:
        self._write()
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            state = "done"
        elif isinstance(error, Stopped | KeyboardInterrupt):
            state = "stopped"
        else:
            state = "refused" if isinstance(error, ConfigError | DataError) else "failed"
        said = self.content.get("said", "")
        if isinstance(error, DataError):
            # It may name a patient: the command says it, no file does.
            said = "the data were refused; the command's own output says why"
        elif error is not None:
            said = str(error).strip() or type(error).__name__
        self._ended.set()
        self._beats.join()
        self.content |= {"state": state, "said": said, "compiling": None}
        self._write()

    def at(self, run_id: str, number: int, count: int) -> None:
        """Record that the stage run `run_id` begins, the `number`-th of `count`."""
        self.content |= {"run": run_id, "place": [number, count], "work": None}
        self._write()

    def work(self, standing: ProgressUpdate) -> None:
        """Record how far the running work is."""
        # JSON has no NaN; the run itself stops because of one.
        metrics = {name: value for name, value in standing.metrics.items() if math.isfinite(value)}
        self.content["work"] = standing._asdict() | {"metrics": metrics}

    def began(self, name: str, preparing: float) -> None:
        """Record that a program is being compiled; say it where it is a large one, as the terminal is silent then."""
        self.content["compiling"] = {"name": name, "since": _now()}
        if preparing > LARGE:
            self._say(f"  compiling {name}")
        self._write()

    def ended(self, name: str, seconds: float) -> None:
        """Record that it is compiled; say it where that took long."""
        self.content["compiling"] = None
        if seconds > INTERVAL:
            self._say(f"  compiled {name} in {seconds:.0f} s")

    def wrap(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Return `say`, made to remember the last line."""

        self._say = say

        def both(line: str) -> None:
            say(line)
            if line.strip():
                self.content["said"] = line.strip()

        return both

    def _beat(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._write()

    def _write(self) -> None:
        beside = self.path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            with self._writing:
                # Without fsync, as it happens every few seconds: a status that a power cut loses is no loss.
                beside.write_text(files.json_text({**self.content, "updated": _now()}), encoding="utf-8")
                os.replace(beside, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
