"""Profiler traces on request: what the devices and the host did in a few steps, for TensorBoard or Perfetto.

    --config.profile=pretrain              five steps of every pre-training, after its first three
    --config.profile=pretrain/clean:100-104
    --config.profile=evaluate/clean        the whole of another stage run (traces are large: take a small one)

Traces lie in the stage run's folder under ``profile/``: ``plugins/profile/DATE/`` for TensorBoard's profile plugin
(``*.xplane.pb``), and there ``perfetto_trace.json.gz`` for ui.perfetto.dev. A trace changes no result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import ConfigError

FOLDER = "profile"
STAGES = ("prepare", "pretrain", "craft", "controls", "adapt", "evaluate", "report")
_AFTER, _STEPS = 3, 5


class Request(NamedTuple):
    """What to trace: a stage or one of its runs; its steps from the first to the last, counted from 1, or None."""

    run: str
    steps: tuple[int, int] | None


def parse(text: str) -> Request | None:
    """Read the key `profile`; None where it is empty.

    Raises:
      ConfigError: no such stage, or steps that cannot be.
    """
    if not text:
        return None
    found = re.fullmatch(r"([a-z]+(?:/[\w.]+)?)(?::(\d+)-(\d+))?", text)
    if found is None or found[1].split("/")[0] not in STAGES:
        expected = f"STAGE, STAGE/CONDITION or pretrain/CONDITION:FIRST-LAST; stages: {', '.join(STAGES)}"
        raise ConfigError("profile", text, expected)
    if found[2] is None:
        return Request(found[1], None)
    first, last = int(found[2]), int(found[3])
    if not found[1].startswith("pretrain") or not 1 <= first <= last:
        raise ConfigError("profile", text, "steps of pretrain, counted from 1, the first not after the last")
    return Request(found[1], (first, last))


def check(text: str) -> str:
    """Return words that say what is expected, or "" for a valid `profile`."""
    try:
        parse(text)
    except ConfigError as error:
        return error.expected
    return ""


def matches(request: Request | None, run_id: str) -> bool:
    """Return whether a stage run is to be traced."""
    return request is not None and request.run in (run_id, run_id.split("/")[0])


@contextmanager
def of_stage(text: str, run_id: str, folder: Path) -> Iterator[None]:
    """Trace the block if `text` asks for this whole stage run; pre-training traces steps, see `of_steps`."""
    asked = matches(parse(text), run_id) and not run_id.startswith("pretrain")
    with _trace(folder) if asked else nullcontext():
        yield


@contextmanager
def of_steps(text: str, run_id: str, folder: Path, start: int, steps: int) -> Iterator[Callable[[int, object], None]]:
    """Yield a function to call before each step with (updates done, state); it starts and ends the trace.

    Args:
      text: the key `profile`.
      run_id, folder: of the stage run.
      start, steps: updates done at the start, and in all.

    Raises:
      ConfigError: the steps asked for lie behind `start`, or beyond `steps`.
    """
    request = parse(text)
    if request is None or not matches(request, run_id) or start >= steps:
        yield lambda done, state: None
        return
    import jax

    # The first steps compile, and fill the pipe.
    first, last = request.steps or (min(start + _AFTER + 1, steps), min(start + _AFTER + _STEPS, steps))
    if not start < first <= last <= steps:
        raise ConfigError("profile", text, f"steps from {start + 1} (where this run goes on) to {steps}")

    def before(done: int, state: object) -> None:
        if done + 1 == first:
            jax.block_until_ready(state)
            running.enter_context(_trace(folder))
        elif done == last:
            jax.block_until_ready(state)
            running.close()

    with ExitStack() as running:
        yield before


def _trace(folder: Path) -> AbstractContextManager[None]:
    import jax

    return jax.profiler.trace(str(folder / FOLDER), create_perfetto_trace=True)
