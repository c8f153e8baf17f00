"""The one training loop: steps, checkpoints, logs and stops.

A run is a function of its state and its step number alone: ``batch_at(step)`` is pure, and the key of a step is
``fold_in(key, step)``. So to resume is to restore the state, and the rest follows bit for bit.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from ranjax.core import files, keys
from ranjax.core.errors import RunError
from ranjax.core.types import Metrics, Params, StateT, Step
from ranjax.training.checkpoints import Checkpoints, Json
from ranjax.training.optimizer import tensor_paths

# jax 0.10 can deadlock on several CPU devices once about 35 steps with collectives are in flight.
MAX_IN_FLIGHT = 16
# A slow step is waited for at once: there is nothing to gain from running ahead, and the display stays fresh.
MAX_SECONDS = 1.0

BatchAt = Callable[[int], PyTree]
"""The batch of a step, counted from 0."""
Report = Callable[[int, Mapping[str, float]], None]
"""Receives (updates done, metrics)."""
Ids = dict[str, list[str]]
"""Entries of a batch that stay on the host."""


class NonFiniteError(RunError, FloatingPointError):
    """A step met NaN or infinity, in its input or its result.

    Attributes:
      step: counted from 0.
      tensor: in words.
      file: with the ids of the batch.
      checkpoint: the last step that was saved.
    """

    def __init__(self, step: int, tensor: str, file: Path | None, checkpoint: int | None):
        self.step, self.tensor, self.file, self.checkpoint = step, tensor, file, checkpoint
        where = "" if file is None else f" The ids of its batch are in {file}."
        saved = "No checkpoint was saved before it."
        last = f" {saved if checkpoint is None else f'The last good checkpoint is of step {checkpoint}.'}"
        super().__init__(f"step {step}: {tensor} is not finite.{where}{last}")


class Interrupted(Exception):
    """A stop was requested, and the state saved first (if there are checkpoints); the run resumes at `step`."""

    def __init__(self, step: int, saved: bool):
        self.step, self.saved = step, saved
        super().__init__(f"stopped at step {step}" + (", state saved: run again to go on" if saved else ""))


def train(
    step_fn: Step[StateT],
    state: StateT,
    batch_at: BatchAt,
    steps: int,
    *,
    key: Key[Array, ""],
    place: Callable[[PyTree], PyTree] | None = None,
    checkpoints: Checkpoints | None = None,
    meta: Json = None,
    log: Report | None = None,
    progress: Report | None = None,
    log_every: int = 10,
    save_every: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    failures: str | os.PathLike[str] | None = None,
    prefetch: int = 2,
    before_step: Callable[[int, StateT], None] | None = None,
    validate: Callable[[Params], float] | None = None,
) -> StateT:
    """Run `step_fn` from ``state.step`` until `steps` updates are done.

    Args:
      step_fn: ``(state, batch, key) -> (state, metrics)``, e.g. from `devices.data_parallel`. Metrics are scalars, the
        same on all devices; any that is NaN or infinite stops the run. ``bad_tensor``, where it is among them, names
        the tensor (see `contrastive_step.make_step`).
      state: has ``step`` i32[] and ``params``; restored from a checkpoint or fresh. It may be donated.
      batch_at: the batch of step k (from 0), a pure function of k; runs in a background thread. Entries of strings
        (ids) stay on the host, the others go to `step_fn`.
      steps: updates in all, those before a resume included.
      key: its ``fold_in(key, k)`` goes to step k.
      place: puts a batch on the devices, e.g. ``lambda batch: devices.shard_batch(batch, mesh)``; runs in the thread.
      checkpoints: where to save; None: nowhere.
      meta: JSON value saved with every checkpoint.
      log: called with (updates done, metrics) after every `log_every`-th update, the first and the last.
      progress: called with (updates done, metrics) whenever the host has caught up with the device.
      log_every, save_every: in updates; `save_every` None: only at the end and on a stop.
      should_stop: polled between steps, e.g. a `signals.StopFlag`.
      failures: folder for ``nonfinite-step-K.json``; None: that of the checkpoints, if any.
      prefetch: batches made ahead of the one in use.
      before_step: called with (updates done, state), e.g. by a profiler; also once at the end.
      validate: ``params -> figure`` (lower is better) of every state that is saved, kept with its checkpoint.

    Returns:
      The last state (saved, if there are checkpoints).

    Raises:
      NonFiniteError: a metric is not finite; nothing is saved from then on.
      Interrupted: `should_stop` returned True; the state is saved first.
      The errors of `batch_at` and `step_fn`.
    """
    if log_every < 1 or prefetch < 1 or (save_every is not None and save_every < 1):
        raise ValueError(
            f"log_every = {log_every}, prefetch = {prefetch}, save_every = {save_every}: expected at least 1"
        )
    start = int(state.step)
    names = tensor_paths(state.params)
    place_of_failures = failures or (checkpoints.folder if checkpoints is not None else None)
    folder = None if place_of_failures is None else Path(place_of_failures)
    watch = _Watch(start, steps, names, log, progress, log_every, checkpoints, folder, batch_at)

    saved = -1

    def save(step: int) -> None:
        nonlocal saved
        # A stop may come right after a checkpoint: there is nothing new to save then.
        if checkpoints is not None and step != saved:
            watch.check_params(step, state.params)
            checkpoints.save(step, state, meta, None if validate is None else validate(state.params))
        saved = step

    with _prefetched(batch_at, place, start, steps, prefetch) as batches:
        for step in range(start, steps):
            # Between two steps: stop here, with everything saved.
            if should_stop is not None and should_stop():
                watch.catch_up()
                save(step)
                if checkpoints is not None:
                    checkpoints.wait()
                raise Interrupted(step, saved=checkpoints is not None)
            if before_step is not None:
                before_step(step, state)
            # The step itself is only dispatched; `watch` waits for it later.
            batch, ids = next(batches)
            state, metrics = step_fn(state, batch, keys.fold_in(key, step))
            watch.add(step, metrics, ids)
            if save_every is not None and (step + 1) % save_every == 0 and step + 1 < steps:
                watch.catch_up()
                save(step + 1)
        # The end: all steps have run, and the last state is saved.
        watch.catch_up()
        if before_step is not None:
            before_step(steps, state)
    if start < steps:
        save(steps)
    if checkpoints is not None:
        checkpoints.wait()
    return state


@dataclass
class _Watch:
    """The metrics of the steps in flight: fetched to the host in batches, checked, logged and shown."""

    start: int
    steps: int
    names: Sequence[str]
    log: Report | None
    progress: Report | None
    log_every: int
    checkpoints: Checkpoints | None
    failures: Path | None
    batch_at: BatchAt
    pending: list[tuple[int, Metrics, Ids]] = field(default_factory=list)
    last_ids: Ids = field(default_factory=dict)
    caught_up: float = field(default_factory=time.monotonic)

    def add(self, step: int, metrics: Metrics, ids: Ids) -> None:
        self.pending.append((step, metrics, ids))
        self.last_ids = ids
        late = time.monotonic() - self.caught_up > MAX_SECONDS
        if len(self.pending) >= MAX_IN_FLIGHT or (step + 1) % self.log_every == 0 or step == self.start or late:
            self.catch_up()

    def catch_up(self) -> None:
        """Wait for the steps in flight. Raises NonFiniteError for the first that went wrong."""
        pending, self.pending = self.pending, []
        fetched = jax.device_get([metrics for _, metrics, _ in pending])
        for (step, _, ids), metrics in zip(pending, fetched, strict=True):
            self._check(step, metrics, ids)
            done = step + 1
            values = {k: float(v) for k, v in metrics.items() if jnp.issubdtype(np.asarray(v).dtype, jnp.floating)}
            if self.log is not None and (done % self.log_every == 0 or step == 0 or done == self.steps):
                self.log(done, values)
        if pending and self.progress is not None:
            self.progress(pending[-1][0] + 1, values)
        self.caught_up = time.monotonic()

    def _check(self, step: int, metrics: Mapping[str, np.ndarray], ids: Ids) -> None:
        wrong = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
        bad = int(metrics.get("bad_tensor", -1))
        if not wrong and bad < 0:
            return
        # The loss names the fault best: other metrics follow from it.
        tensor = "loss" if "loss" in wrong else "" if bad >= 0 else f"metric {wrong[0]}"
        if bad >= 0:
            gradient = f"the gradient of {self.names[bad]}"
            tensor = f"{tensor} (and {gradient}, the first of the gradients)" if tensor else gradient
        if given := _nonfinite_rows(self.batch_at(step)):
            tensor = f"{tensor or 'a metric'}, as {given} was before,"
        self._fail(step, tensor, metrics, ids)

    def check_params(self, done: int, params: Params) -> None:
        """Raise NonFiniteError, so that no checkpoint ever holds a non-finite tensor."""
        leaves = jax.tree.leaves(params)
        if all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves):
            # The checkpoint is copied to the host anyway; a program of one reduction a tensor is slow to compile.
            fine = [bool(np.isfinite(leaf).all()) for leaf in jax.device_get(leaves)]
        else:
            fine = jax.device_get(_all_finite(leaves))
        path = next((path for path, ok in zip(tensor_paths(params), fine, strict=True) if not ok), None)
        if path is not None:
            self._fail(done - 1, f"the parameter {path}, after the update,", {}, self.last_ids)

    def _fail(self, step: int, tensor: str, metrics: Mapping[str, np.ndarray], ids: Ids) -> NoReturn:
        path = None
        if self.failures is not None:
            path = self.failures / f"nonfinite-step-{step}.json"
            # JSON has no NaN: such values become strings.
            plain = {k: float(v) if math.isfinite(float(v)) else str(float(v)) for k, v in metrics.items()}
            files.write_json(path, {"step": step, "tensor": tensor, "metrics": plain, "batch": ids})
        raise NonFiniteError(step, tensor, path, None if self.checkpoints is None else self.checkpoints.latest())


def _nonfinite_rows(batch: PyTree) -> str:
    """Describe the first entry of a batch that holds NaN or infinity, with its rows; empty where all is finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(split_host(batch)[0]):
        values = np.asarray(leaf)
        if values.ndim and np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).tolist()
            name = "/".join(str(getattr(k, "key", k)) for k in path)
            return f"entry {name!r} of the batch in row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:8]))}"
    return ""


@contextmanager
def _prefetched(
    batch_at: BatchAt, place: Callable[[PyTree], PyTree] | None, start: int, steps: int, ahead: int
) -> Iterator[Iterator[tuple[PyTree, Ids]]]:
    """Yield an iterator of (placed batch, its ids) for steps start, start + 1, ..., made `ahead` in one thread."""

    def make(step: int) -> tuple[PyTree, Ids]:
        arrays, ids = split_host(batch_at(step))
        return (arrays if place is None else place(arrays)), ids

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")

    def produce() -> Iterator[tuple[PyTree, Ids]]:
        waiting: deque[Future[tuple[PyTree, Ids]]] = deque()
        upcoming = iter(range(start, steps))
        for step in upcoming:
            waiting.append(pool.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield produce()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def split_host(batch: PyTree) -> tuple[PyTree, Ids]:
    """Split a batch dict into arrays for the device and entries of strings, which stay on the host."""
    if not isinstance(batch, Mapping):
        return batch, {}
    strings = {k: [str(x) for x in v] for k, v in batch.items() if _is_text(v)}
    return {k: v for k, v in batch.items() if k not in strings}, strings


def _is_text(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(x, str) for x in value)
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


@jax.jit
def _all_finite(leaves: list[Array]) -> list[Array]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]
