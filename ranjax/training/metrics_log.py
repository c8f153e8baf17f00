"""Metrics of a run, a line a step in ``metrics.jsonl``, and as TensorBoard events beside it.

The lines hold figures of the training alone, no times: an interrupted and resumed run leaves the same file as an
uninterrupted one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ranjax.core import files

FILE = "metrics.jsonl"


class MetricsLog:
    """Writes ``{"step": ..., "loss": ..., ...}`` lines; call it with a step and its metrics.

    Opening it cuts the file back to `resume_step`: rows of later steps (written after the checkpoint that is resumed)
    and a half-written last row go, so that no step appears twice. The same holds for the TensorBoard events.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        resume_step: int = 0,
        tensorboard: bool = True,
        examples: int | None = None,
    ):
        """Args:
        folder: made where absent.
        resume_step: updates done when the run starts; 0: a fresh run.
        tensorboard: also write event files into ``folder/tensorboard``.
        examples: of the global batch; where given, rates and memory go to ``speed.jsonl`` and to TensorBoard.
        """
        self.path = Path(folder) / FILE
        kept = [row for row in read_rows(folder) if row["step"] <= resume_step and resume_step > 0]
        files.write_text(self.path, "".join(_line(row) for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._speed = None
        if examples is not None:
            from ranjax.training.speed import Speed

            self._speed = Speed(folder, resume_step, examples)
        self._board: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            place = Path(folder) / "tensorboard"
            # Events cannot be cut back; TensorBoard hides those from purge_step on that an earlier file holds.
            purge = resume_step + 1 if place.is_dir() else None
            # Files are named by the second: without a suffix a quick resume would write over the one before.
            suffix = f".{resume_step}.{os.getpid()}"
            self._board = SummaryWriter(str(place), purge_step=purge, filename_suffix=suffix)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one row and hands it to the disk's cache (it survives the process)."""
        with files.no_space(self.path):
            self._file.write(_line({"step": step, **metrics}))
            self._file.flush()
        shown = dict(metrics)
        if self._speed is not None:
            shown |= {f"speed/{name}": value for name, value in self._speed(step).items()}
        if self._board is not None:
            for name, value in shown.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        if self._speed is not None:
            self._speed.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_rows(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of ``folder/metrics.jsonl``, oldest first, up to a half-written one; none if the file is absent."""
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


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=True) + "\n"
