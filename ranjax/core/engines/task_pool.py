"""A pool of tasks, and the one loop that works through a list of them.

A task is a function without arguments that can be sent to another process. Where its machine dies it is started again
from the beginning, so it leaves its files whole or not at all, and skips what is there.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

K = TypeVar("K")
Task = Callable[[], Any]


class TaskStopped(Exception):
    """A task was taken back, or ended, as `Pool.interrupt` asked."""


@runtime_checkable
class Pool(Protocol):
    """Takes tasks.

    Attributes:
      at_once: tasks that it is given before one has ended.
      dear: a task costs so much to start that work is bundled into at most `at_once` of them.
    """

    at_once: int
    dear: bool

    def submit(self, task: Task, name: str) -> Future[Any]:
        """Start a task, now or when its turn comes."""

    def interrupt(self) -> None:
        """Take back what waits, and ask what runs to save and stop."""


class LocalPool:
    """Tasks in threads or processes of this machine; a task with a method ``stop`` is asked to by `interrupt`."""

    dear = False

    def __init__(self, executor: Executor, at_once: int):
        self.at_once, self._executor = at_once, executor
        self._running: dict[Future[Any], Task] = {}

    def submit(self, task: Task, name: str) -> Future[Any]:
        future = self._executor.submit(task)
        self._running = {other: of for other, of in self._running.items() if not other.done()} | {future: task}
        return future

    def interrupt(self) -> None:
        for future, task in self._running.items():
            if not future.cancel() and hasattr(task, "stop"):
                task.stop()


@contextmanager
def in_threads(count: int) -> Iterator[Pool]:
    """Open a pool of threads, for tasks that start processes of their own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as executor:
        yield LocalPool(executor, count)


@contextmanager
def in_processes(count: int) -> Iterator[Pool]:
    """Open a pool of processes. At most two tasks each are waiting, so that a stop takes effect soon."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Spawned, not forked: the parent may hold threads (JAX, array_record) that do not survive a fork. Ctrl-C reaches
    # every process of the terminal, and the parent stops between tasks.
    spawn, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    executor = ProcessPoolExecutor(count, spawn, initializer=signal.signal, initargs=ignore)
    try:
        yield LocalPool(executor, 2 * count)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def work_through(
    pool: Pool, keys: deque[K], task_of: Callable[[K], tuple[str, Task]], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[K, Future[Any]]]:
    """Yield every key with the future of its task, as that ends.

    Args:
      pool: of an engine.
      keys: what is to be done, in order; emptied here, and whoever iterates may append what is to be done again.
      task_of: gives the name and the task of a key, once its turn comes.
      stop: polled; once it is true no further task starts, and those that run are asked to save and stop.
    """
    running: dict[Future[Any], K] = {}
    asked = False
    while True:
        while keys and not asked and len(running) < pool.at_once and not stop():
            key = keys.popleft()
            name, task = task_of(key)
            running[pool.submit(task, name)] = key
        if not running:
            return
        ended, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in ended:
            yield running.pop(future), future
        if not asked and stop():
            asked = True
            pool.interrupt()


def is_seen(path: Path) -> bool:
    """Return whether a file that another machine wrote is here; to list its folder renews what NFS remembers."""
    return path.exists() or (path.parent.is_dir() and path.name in os.listdir(path.parent))
