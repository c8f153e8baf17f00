"""Profiler traces on request: what the devices and the host did in a few steps, for TensorBoard or Perfetto.

    --config.profile=pretrain              five steps of every pre-training, after its first three
    --config.profile=pretrain/clean:100-104
    --config.profile=evaluate/clean        the whole of another stage run (traces are large: take a small one)

Traces lie in the stage run's folder under ``profile/``: ``plugins/profile/DATE/`` for TensorBoard's profile plugin
(``*.xplane.pb``), and there ``perfetto_trace.json.gz`` for ui.perfetto.dev. A trace changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from ranjax.core.errors import ConfigError
from ranjax.run.schema.profile_keys import matches, parse

FOLDER = "profile"
_AFTER, _STEPS = 3, 5


@contextmanager
def of_stage(text: str, run_id: str, folder: Path) -> Iterator[None]:
    """Traces the block if `text` asks for this whole stage run; pre-training traces steps, see `of_steps`."""
    if not matches(parse(text), run_id) or run_id.startswith("pretrain"):
        yield
        return
    _start(folder)
    try:
        yield
    finally:
        jax.profiler.stop_trace()


@contextmanager
def of_steps(text: str, run_id: str, folder: Path, start: int, steps: int) -> Iterator[Callable[[int, Any], None]]:
    """A function to be called before each step with (updates done, state), which starts and ends the trace.

    Args:
      text: the key `profile`.
      run_id, folder: of the stage run.
      start, steps: updates done at the start, and in all.

    Raises:
      ConfigError: the steps asked for lie behind `start`, or beyond `steps`.
    """
    wanted = parse(text)
    if wanted is None or not matches(wanted, run_id) or start >= steps:
        yield lambda done, state: None
        return
    # The first steps compile, and fill the pipe.
    first, last = wanted.steps or (min(start + _AFTER + 1, steps), min(start + _AFTER + _STEPS, steps))
    if not start < first <= last <= steps:
        raise ConfigError("profile", text, f"steps from {start + 1} (where this run goes on) to {steps}")
    running = False

    def before(done: int, state: Any) -> None:
        nonlocal running
        if done + 1 == first and not running:
            jax.block_until_ready(state)
            _start(folder)
            running = True
        elif done == last and running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            running = False

    try:
        yield before
    finally:
        if running:
            jax.profiler.stop_trace()


def _start(folder: Path) -> None:
    jax.profiler.start_trace(str(folder / FOLDER), create_perfetto_trace=True)
