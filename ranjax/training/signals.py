"""Turn Ctrl-C and SIGTERM into a flag that the loop polls, so that a run can save before it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

APART = 3.0
"""Seconds by which a second SIGTERM must follow the first to count as another: one request may be delivered twice."""
PATIENCE = 2.0
"""Seconds that the interpreter has to answer a second request by itself, before the process is ended."""
Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers
AT_ONCE = "stopped at once; finished shards and the last checkpoint remain"


class StopFlag:
    """Context manager: inside, the first SIGINT or SIGTERM only sets a flag, which a call of the object returns.

        with StopFlag() as stop:
            train(..., should_stop=stop)

    A second SIGINT, or a SIGTERM at least `APART` seconds after the first signal, raises KeyboardInterrupt at once.
    Where Python would swallow it (in a finaliser, in a callback of the garbage collector), the next call of the object
    raises it instead, or the end of the block. The former handlers come back on exit. Outside
    the main thread, where Python allows no handlers, the flag works but no signal sets it.

    Args:
      at_once: exit code for a second request that finds the main thread inside a call that no handler can interrupt:
        the process then ends `PATIENCE` seconds later from a thread, as by SIGKILL, with a line on the standard error.
        Calls that keep the interpreter's lock, as XLA's CPU compiler does, are waited for even so. None: all are.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, at_once: int | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._held_back = False
        self._at_once = at_once
        self._first: float | None = None
        self._before: dict[signal.Signals, Handler | None] = {}
        self._left = threading.Event()
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._former = -1

    def __call__(self) -> bool:
        self._raise_held_back()
        return self.signal is not None

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            if self._at_once is not None:
                self._left.clear()
                # Python's own handler, in C, writes each signal's number here even while the main thread is busy in C.
                self._wake = socket.socketpair()
                for end in self._wake:
                    end.setblocking(end is self._wake[0])
                self._former = signal.set_wakeup_fd(self._wake[1].fileno(), warn_on_full_buffer=False)
                threading.Thread(target=self._watch, args=(self._wake[0],), name="signals", daemon=True).start()
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        if self._wake is not None:
            signal.set_wakeup_fd(self._former)
            ours, theirs = self._wake
            self._wake = None
            theirs.close()  # the thread then reads the end
            del ours
        if kind is None:
            self._raise_held_back()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        if self.signal is not None and _is_another(number, now - self._first):
            if not _swallows(frame):
                raise KeyboardInterrupt
            self._held_back = True
            return
        self.signal = signal.Signals(number)

    def _raise_held_back(self) -> None:
        if self._held_back:
            self._held_back = False
            raise KeyboardInterrupt

    def _watch(self, woken: socket.socket) -> None:
        first: float | None = None
        with woken:
            while numbers := woken.recv(1):
                if numbers[0] not in self.SIGNALS:
                    continue
                now = time.monotonic()
                if first is None:
                    first = now
                elif _is_another(numbers[0], now - first):
                    if not self._left.wait(PATIENCE):
                        os.write(2, f"{AT_ONCE}\n".encode())
                        os._exit(self._at_once or 0)
                    return


def answer_with(handler: Handler) -> None:
    """Answer every further SIGINT and SIGTERM with the handler, as `signal.signal` takes it."""
    for number in StopFlag.SIGNALS:
        signal.signal(number, handler)


def _swallows(frame: FrameType | None) -> bool:
    """Return True if an exception raised in this frame would be printed and lost: in a finaliser, or JAX's callback."""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_xla_gc_callback"):
            return True
        frame = frame.f_back
    return False


def _is_another(number: int, after: float) -> bool:
    """Return True if a signal so many seconds after the first asks for an end at once."""
    return number == signal.SIGINT or after >= APART
