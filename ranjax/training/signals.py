"""Ctrl-C and SIGTERM as a flag that the loop polls, so that a run can save before it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopFlag:
    """Context manager: inside, the first SIGINT or SIGTERM only sets a flag, which a call of the object returns.

        with StopFlag() as stop:
            train(..., should_stop=stop)

    A second SIGINT raises KeyboardInterrupt at once, for whoever cannot wait. The former handlers come back on exit.
    Outside the main thread, where Python allows no handlers, the flag works but no signal sets it.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
