"""Show how far a stage is: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TextIO

from ranjax.training import hosts


class ProgressUpdate(NamedTuple):
    """How far a piece of work is.

    Attributes:
      name: of the work.
      done, total: units done, of how many.
      unit: what is counted.
      rate: units a second; None while it is not known.
      metrics: figures of the last update.
    """

    name: str
    done: int
    total: int
    unit: str
    rate: float | None
    metrics: dict[str, float]


Listener = Callable[[ProgressUpdate], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with every update of every `Progress` of this process inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Progress(AbstractContextManager["Progress"]):
    """Show ``pretrain  40/200  8.1 steps/s  20 s left  loss 1.234``. Use as a context manager, or `close` it.

    Rate and time left do not count the time before the first update (compilation).
    """

    def __init__(
        self,
        stage: str,
        total: int,
        start: int = 0,
        unit: str = "steps",
        stream: io.TextIOBase | TextIO | None = None,
        interval: float = 10.0,
        shown: tuple[str, ...] = ("loss",),
    ):
        """Args:
        stage: name in front of the line.
        total, start: units in all, and those done before (a resumed run).
        unit: what is counted.
        stream: standard error if None. A terminal gets a bar that redraws itself, anything else plain lines.
        interval: least seconds between two plain lines.
        shown: metrics that appear in the line.
        """
        self.stage, self.total, self.unit, self.shown = stage, total, unit, shown
        self._stream = sys.stderr if stream is None else stream
        self._interval = interval
        self._first: tuple[float, int] | None = None
        self._printed = float("-inf")
        self._silent = not hosts.first()
        self._bar: Any = None
        if self._stream.isatty() and not self._silent:
            from tqdm import tqdm

            text = "{desc}  {n_fmt}/{total_fmt} |{bar}| {postfix}"
            self._bar = tqdm(
                total=total, initial=start, desc=stage, file=self._stream, bar_format=text, dynamic_ncols=True
            )

    def update(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show that `done` units are finished (in all, not since the last call)."""
        now, metrics = time.monotonic(), metrics or {}
        since, begin = self._first = self._first or (now, done)
        rate = (done - begin) / (now - since) if done > begin and now > since else None
        for listener in _listeners:
            listener(ProgressUpdate(self.stage, done, self.total, self.unit, rate, dict(metrics)))
        parts = [] if rate is None else [f"{rate:.3g} {self.unit}/s"]
        if rate is not None and done < self.total:
            parts.append(f"{duration((self.total - done) / rate)} left")
        parts += [f"{name} {metrics[name]:.4g}" for name in self.shown if name in metrics]
        text = "  ".join(parts)
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(text, refresh=True)
        elif not self._silent and (now - self._printed >= self._interval or done >= self.total):
            self._printed = now
            print(f"{self.stage}  {done}/{self.total}  {text}".rstrip(), file=self._stream, flush=True)

    __call__ = update

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float | int) -> str:
    """Return ``"8 s"``, ``"3 min 20 s"``, ``"2 h 05 min"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
