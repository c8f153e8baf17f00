"""Shards of a noisy store as tasks of an engine: its machines take them from one queue, and each is written whole.

A machine that dies costs the shards that it was at; one that is there already is not made again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

from ranjax.core.engines.task_pool import Pool, Task, TaskStopped, is_seen, work_through
from ranjax.core.errors import ConfigError
from ranjax.data.store import StoreWriter
from ranjax.training.progress import Progress

Numbers = tuple[int, ...]
"""Shards of one task, by number."""


def hand_out(
    pool: Pool,
    writer: StoreWriter,
    task_of: Callable[[Numbers], Task],
    title: str,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Let the machines of an engine write the shards that are missing; on a stop, those that are done remain.

    Args:
      pool: of the engine.
      writer: of the store, in a folder that all machines see.
      task_of: gives the task that writes some shards.
      title: of the progress.
      stop: polled.
      say: receives a line of text at a time.

    Raises:
      ConfigError: the engine refuses its tasks, or what its machines wrote is not seen here.
      DataError, RunError: a task failed, or its machine died too often.
    """
    missing, begin, before = writer.missing(), time.monotonic(), writer.done
    size = -(-len(missing) // pool.at_once) if pool.dear else 1
    bundles = deque(tuple(missing[at : at + size]) for at in range(0, len(missing), size))
    if not bundles:
        return
    say(f"  {len(missing)} of {writer.shards} shards go to the engine")
    with Progress(title, len(writer.ids), before, unit="pairs") as progress:
        for numbers, future in work_through(pool, bundles, lambda n: (f"craft {n[0]}", task_of(n)), stop):
            try:
                future.result()
            except (TaskStopped, CancelledError):
                continue
            for number in numbers:
                if not is_seen(writer.path_of(number)):
                    expected = f"a folder that all machines of the engine see; shard {number} was written elsewhere"
                    raise ConfigError("--workdir", str(writer.folder), expected)
            progress.update(writer.done)
    rate = (writer.done - before) / (time.monotonic() - begin)
    say(f"  {writer.done - before} pairs by the engine, {rate:.3g} pairs/s")
