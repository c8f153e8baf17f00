"""The one loop: steps, checkpoints, logs and stops of every training here.

A run is a function of its state and its step number alone: ``batch_at(step)`` is pure, and the key of a step is
``fold_in(key, step)``. So to resume is to restore the state, and the rest follows bit for bit.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.core import files
from ranjax.core.errors import RunError
from ranjax.training.checkpoints import Checkpoints
from ranjax.training.optimizer import tensor_paths

# jax 0.10 can deadlock on several CPU devices once about 35 steps with collectives are in flight.
MAX_IN_FLIGHT = 16
# A slow step is waited for at once: there is nothing to gain from running ahead, and the display stays fresh.
MAX_SECONDS = 1.0

State = TypeVar("State")
StepFn = Callable[[Any, Any, jax.Array], tuple[Any, Mapping[str, Any]]]
log_ = logging.getLogger("ranjax")


class NonFiniteError(RunError, FloatingPointError):
    """Training produced or was given NaN or infinity; `step`, `tensor` and `file` (the batch's ids) say where."""

    def __init__(self, step: int, tensor: str, file: Path | None, kept: int | None):
        self.step, self.tensor, self.file, self.kept = step, tensor, file, kept
        where = "" if file is None else f" The ids of its batch are in {file}."
        last = (
            " No checkpoint was saved before it." if kept is None else f" The last good checkpoint is of step {kept}."
        )
        super().__init__(f"step {step}: {tensor} is not finite.{where}{last}")


class Interrupted(Exception):
    """The run was asked to stop, and saved its state first (if it has checkpoints); `step` is where it goes on."""

    def __init__(self, step: int, saved: bool):
        self.step, self.saved = step, saved
        super().__init__(f"stopped at step {step}" + (", state saved: run again to go on" if saved else ""))


def train(
    step_fn: StepFn,
    state: State,
    batch_at: Callable[[int], Any],
    steps: int,
    *,
    key: jax.Array,
    place: Callable[[Any], Any] | None = None,
    checkpoints: Checkpoints | None = None,
    meta: Any = None,
    log: Callable[[int, Mapping[str, float]], None] | None = None,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
    log_every: int = 10,
    save_every: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    failures: str | os.PathLike[str] | None = None,
    prefetch: int = 2,
    before_step: Callable[[int, Any], None] | None = None,
    validate: Callable[[Any], float] | None = None,
) -> State:
    """Runs `step_fn` from ``state.step`` until `steps` updates are done.

    Args:
      step_fn: ``(state, batch, key) -> (state, metrics)``, e.g. from `devices.data_parallel`. Metrics are scalars, the
        same on all devices; any that is NaN or infinite stops the run. If there is a ``bad_tensor`` (see
        `pretrain.make_step`), it names the tensor.
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
      Interrupted: `should_stop` said so; the state is saved first.
      Whatever `batch_at` and `step_fn` raise.
    """
    if log_every < 1 or prefetch < 1 or (save_every is not None and save_every < 1):
        raise ValueError(f"log_every = {log_every}, prefetch = {prefetch}, save_every = {save_every}: at least 1 each")
    start = int(state.step)
    names = tensor_paths(state.params)
    watch = _Watch(start, steps, names, log, progress, log_every, checkpoints, failures, batch_at)
    fold_in = jax.jit(jax.random.fold_in)

    saved = -1

    def save(step: int) -> None:
        nonlocal saved
        # A stop may come right after a checkpoint: there is nothing new to weigh or to keep then.
        if checkpoints is not None and step != saved:
            watch.check_params(step, state.params)
            checkpoints.save(step, state, meta, None if validate is None else validate(state.params))
        saved = step

    with _prefetched(batch_at, place, start, steps, prefetch) as batches:
        for step in range(start, steps):
            if should_stop is not None and should_stop():
                watch.catch_up()
                save(step)
                if checkpoints is not None:
                    checkpoints.wait()
                raise Interrupted(step, saved=checkpoints is not None)
            if before_step is not None:
                before_step(step, state)
            batch, ids = next(batches)
            state, metrics = step_fn(state, batch, fold_in(key, np.uint32(step)))
            watch.add(step, metrics, ids)
            if save_every is not None and (step + 1) % save_every == 0 and step + 1 < steps:
                watch.catch_up()
                save(step + 1)
        watch.catch_up()
        if before_step is not None:
            before_step(steps, state)
    if start < steps:
        save(steps)
    if checkpoints is not None:
        checkpoints.wait()
    return state


class _Watch:
    """Metrics of the steps in flight: brings them to the host now and then, checks, logs and shows them."""

    def __init__(
        self,
        start: int,
        steps: int,
        names: Sequence[str],
        log: Callable[[int, Mapping[str, float]], None] | None,
        progress: Callable[[int, Mapping[str, float]], None] | None,
        log_every: int,
        checkpoints: Checkpoints | None,
        failures: str | os.PathLike[str] | None,
        batch_at: Callable[[int], Any],
    ):
        self.start, self.steps, self.names, self.log_every = start, steps, names, log_every
        self.log, self.progress, self.checkpoints, self.batch_at = log, progress, checkpoints, batch_at
        folder = failures if failures is not None else (checkpoints.folder if checkpoints is not None else None)
        self.failures = None if folder is None else Path(folder)
        self.pending: list[tuple[int, Mapping[str, Any], Any]] = []
        self.last_ids: Any = {}
        self.caught_up = time.monotonic()

    def add(self, step: int, metrics: Mapping[str, Any], ids: Any) -> None:
        self.pending.append((step, metrics, ids))
        self.last_ids = ids
        late = time.monotonic() - self.caught_up > MAX_SECONDS
        if len(self.pending) >= MAX_IN_FLIGHT or (step + 1) % self.log_every == 0 or step == self.start or late:
            self.catch_up()

    def catch_up(self) -> None:
        """Waits for the steps in flight. Raises NonFiniteError for the first that went wrong."""
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

    def _check(self, step: int, metrics: Mapping[str, Any], ids: Any) -> None:
        wrong = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
        bad = int(metrics.get("bad_tensor", -1))
        if not wrong and bad < 0:
            return
        # The loss says more than what follows from it.
        tensor = "loss" if "loss" in wrong else "" if bad >= 0 else f"metric {wrong[0]}"
        if bad >= 0:
            gradient = f"the gradient of {self.names[bad]}"
            tensor = f"{tensor} (and {gradient}, the first of the gradients)" if tensor else gradient
        if given := nonfinite_rows(self.batch_at(step)):
            tensor = f"{tensor or 'a metric'}, as {given} was before,"
        raise NonFiniteError(step, tensor, self._save_ids(step, tensor, metrics, ids), self._kept())

    def check_params(self, done: int, params: Any) -> None:
        """Raises NonFiniteError, so that no checkpoint ever holds a non-finite tensor."""
        path = nonfinite_path(params)
        if path is not None:
            tensor = f"the parameter {path}, after the update,"
            raise NonFiniteError(done - 1, tensor, self._save_ids(done - 1, tensor, {}, self.last_ids), self._kept())

    def _kept(self) -> int | None:
        return None if self.checkpoints is None else self.checkpoints.latest()

    def _save_ids(self, step: int, tensor: str, metrics: Mapping[str, Any], ids: Any) -> Path | None:
        if self.failures is None:
            return None
        path = self.failures / f"nonfinite-step-{step}.json"
        # JSON has no NaN: such values are words.
        plain = {k: float(v) if math.isfinite(float(v)) else str(float(v)) for k, v in metrics.items()}
        files.write_json(path, {"step": step, "tensor": tensor, "metrics": plain, "batch": ids})
        return path


def nonfinite_rows(batch: Any) -> str:
    """The first entry of a batch that holds NaN or infinity, with its rows, in words; empty where all is finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(split_host(batch)[0]):
        values = np.asarray(leaf)
        if values.ndim and np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).tolist()
            name = "/".join(str(getattr(k, "key", k)) for k in path)
            return f"entry {name!r} of the batch in row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:8]))}"
    return ""


@contextmanager
def _prefetched(
    batch_at: Callable[[int], Any], place: Callable[[Any], Any] | None, start: int, steps: int, ahead: int
) -> Iterator[Iterator[tuple[Any, Any]]]:
    """Iterator of (placed batch, its host-only entries) for steps start, start + 1, ..., made `ahead` in one thread."""

    def make(step: int) -> tuple[Any, Any]:
        arrays, ids = split_host(batch_at(step))
        return (arrays if place is None else place(arrays)), ids

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")

    def produce() -> Iterator[tuple[Any, Any]]:
        waiting: deque[Future[tuple[Any, Any]]] = deque()
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


def split_host(batch: Any) -> tuple[Any, dict[str, list[str]]]:
    """Parts a batch dict into arrays for the device and entries of strings, which stay on the host."""
    if not isinstance(batch, Mapping):
        return batch, {}
    strings = {k: [str(x) for x in v] for k, v in batch.items() if _is_text(v)}
    return {k: v for k, v in batch.items() if k not in strings}, strings


def _is_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(x, str) for x in value)
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


def nonfinite_path(tree: Any) -> str | None:
    """Path of the first tensor that holds NaN or infinity, or None. Waits for the device."""
    fine = jax.device_get(_all_finite(jax.tree.leaves(tree)))
    return next((path for path, ok in zip(tensor_paths(tree), fine, strict=True) if not ok), None)
