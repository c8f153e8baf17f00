"""Log a training: metrics in ``metrics.jsonl``, speed and memory in ``speed.jsonl``, both to the trackers.

``metrics.jsonl`` holds no times: an interrupted and resumed run leaves the same file as an uninterrupted one. A line of
``speed.jsonl`` is

    {"step", "time", "step_seconds", "examples_per_second", "host_memory", "device_memory", "device_memory_peak"}

``time`` is UTC. Memory is in bytes; that of devices is of this process's fullest, null where the backend does not count
it (CPU). The first line after a start has no rate, as its steps hold the compilation.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import jax

from ranjax.core import files, host_memory
from ranjax.training import trackers

FILE, SPEED_FILE = "metrics.jsonl", "speed.jsonl"


class MetricsLog(AbstractContextManager["MetricsLog"]):
    """Append a line ``{"step": ..., "loss": ..., ...}`` for each call with a step and its metrics. A context manager.

    To open it cuts the file back to `resume_step`: rows of later steps (written after the checkpoint that is resumed)
    and a half-written last row go, so that no step appears twice. The same holds for the TensorBoard events.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        resume_step: int = 0,
        tensorboard: bool | None = None,
        examples: int | None = None,
        stage: str = "",
    ):
        """Args:
        folder: made where absent.
        resume_step: updates done when the run starts; 0: a fresh run.
        tensorboard: also write event files into ``folder/tensorboard``; None: as `trackers.boards` says.
        examples: of the global batch; where given, speed and memory are logged too.
        stage: the stage run's name, under which `trackers` get the figures; empty: they get none.
        """
        folder = Path(folder)
        rows = [row for row in read_rows(folder) if row["step"] <= resume_step and resume_step > 0]
        files.write_text(folder / FILE, "".join(json.dumps(row) + "\n" for row in rows))
        self._open = ExitStack()
        self._metrics = self._open.enter_context((folder / FILE).open("a", encoding="utf-8"))
        self._speed: TextIO | None = None
        if examples is not None:
            self._speed = self._open.enter_context((folder / SPEED_FILE).open("a", encoding="utf-8"))
        self._examples = examples or 0
        self._last_call: tuple[float, int] | None = None
        wanted = trackers.boards() if tensorboard is None else tensorboard
        self._board = _board(folder / "tensorboard", resume_step) if wanted else None
        self._stage = stage
        if self._board is not None:
            self._open.callback(self._board.close)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the rows of a step; they survive the process, as the system has them."""
        _append(self._metrics, {"step": step, **metrics})
        shown = dict(metrics)
        if self._speed is not None:
            figures = self._measure(step)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            _append(self._speed, {"step": step, "time": now, **figures})
            shown |= {f"speed/{name}": float(value) for name, value in figures.items() if value is not None}
        if self._board is not None:
            for name, value in shown.items():
                self._board.add_scalar(name, value, step)
        if self._stage:
            trackers.send(self._stage, step, shown)

    def _measure(self, step: int) -> dict[str, float | None]:
        now, seconds = time.monotonic(), None
        if self._last_call is not None and step > self._last_call[1]:
            seconds = (now - self._last_call[0]) / (step - self._last_call[1])
        self._last_call = (now, step)
        counted = [device.memory_stats() or {} for device in jax.local_devices()]
        return {
            "step_seconds": seconds,
            "examples_per_second": self._examples / seconds if seconds else None,
            "host_memory": host_memory.current(),
            "device_memory": max((x["bytes_in_use"] for x in counted if "bytes_in_use" in x), default=None),
            "device_memory_peak": max(
                (x["peak_bytes_in_use"] for x in counted if "peak_bytes_in_use" in x), default=None
            ),
        }

    def close(self) -> None:
        """Flush and close all files."""
        self._open.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of ``folder/metrics.jsonl``, oldest first, up to a half-written one; none without the file."""
    path = Path(folder) / FILE
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def _append(file: TextIO, row: Mapping[str, object]) -> None:
    with files.no_space(file.name):
        file.write(json.dumps(row, allow_nan=True) + "\n")
        file.flush()


def _board(folder: Path, resume_step: int) -> Any:
    from tensorboardX import SummaryWriter

    # Events cannot be cut back; TensorBoard hides those from purge_step on that an earlier file holds.
    purge = resume_step + 1 if folder.is_dir() else None
    # Files are named by the second: without a suffix a quick resume would write over the one before.
    return SummaryWriter(str(folder), purge_step=purge, filename_suffix=f".{resume_step}.{os.getpid()}")
