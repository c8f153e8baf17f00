"""Fine-tuning that reaches into the image tower: every method as one loop, told apart by scope, head and objective.

    method = METHODS["at_lora"].settings
    found = tune(functions, params, method, train, validation, task, seed=0, settings=TowerFit())
    encoder = encoder_of(method, params, found.trained)

Images pass through the tower at every step, and attacked ones are made on the fly against the tower and the head as
they stand. What is trained is a small tree of its own: LoRA adapters, or the image tower with its projection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from ranjax.core.errors import DataError
from ranjax.core.keys import fold_in, stream
from ranjax.core.types import Params
from ranjax.methods import selection, tower_inputs, tower_step
from ranjax.methods.method_settings import TowerTraining
from ranjax.methods.tower_methods import ImageEncoder, Images, Task, TowerFit
from ranjax.objectives import classification
from ranjax.training import cpu
from ranjax.training.devices import make_mesh, replicate, shard_batch
from ranjax.training.loop import MAX_IN_FLIGHT


class Diverged(DataError):
    """The loss of a fit is no longer finite."""


class TowerOutcome(NamedTuple):
    """The result of `tune`.

    Attributes:
      trained: {"encoder": adapters or arrays (none in scope "head"), "head": {"params", "stats"} (absent for prompts)},
        of the best epoch; the filter, which is fixed, stands in "encoder" where there is one.
      chosen: that epoch, from 0.
      history: validation figure (`TowerFit.metric`) by epoch: the mean of clean and attacked for methods with attacks.
      losses: mean training loss by epoch.
      share: trained numbers, those of the head included, as a share of the encoder's.
      gradient: the norm of the mean gradient of the last epoch or the one kept, whichever is smaller, as a share of the
        largest mean of 16 or more batches from the first on, or of the first epoch's.
    """

    trained: Params
    chosen: int
    history: list[float]
    losses: list[float]
    share: float
    gradient: float


@cpu.one_lapack_thread()
def tune(
    functions: ImageEncoder,
    params: Params,
    method: TowerTraining,
    train: Images,
    validation: Images,
    task: Task,
    *,
    seed: int,
    settings: TowerFit,
    mesh: Mesh | None = None,
    check_stop: Callable[[str], None] = lambda where: None,
) -> TowerOutcome:
    """Train one method with one seed and keep its best epoch by the validation split.

    Deterministic in its arguments, and the same on any number of devices within float tolerance. The batch is split
    over as many devices of `mesh` as divide it (None: one device); each holds the whole encoder.

    Args:
      functions: an encoder: hashable, with ``image_features(params, images f32[B, H, W, C]) -> f32[B, D]`` and D as
        `config.embed_dim`. For methods that are `filtered`, one of your own begins with
        `ranjax.models.input_filter.apply` where `params` hold it.
      params: its parameters, a nested dict of arrays; `method.targets` and `method.trainable` choose by their paths.
      method: the settings of an entry of `METHODS`, or your own.
      train, validation: `Images`, of which a plain tuple will do. FARE learns from images alone: labels None.
      task: `Task`, or a plain tuple. Methods with a head of their own take the number of classes from its prompts, and
        nothing else.
      seed: of first weights, order and attacks.
      settings: see `TowerFit`.
      mesh: devices that share a batch.
      check_stop: called before every epoch; what it raises ends the fit.

    Raises:
      DataError: a class without training images, a validation split with one class only, embeddings that are not
        finite or of another width, images, labels or prompts that do not fit, a training split of one image.
      Diverged: a loss that is no longer finite, or outputs that are after no epoch; names the learning rates.
      ConfigError: a method, setting or seed that is refused, by its name; a batch of fewer than two images.
    """
    task = tower_inputs.as_task(task)
    train = tower_inputs.without_labels(method, train, len(task.prompts))
    train, validation = (tower_inputs.as_images(*x) for x in (("train", train), ("validation", validation)))
    tower_inputs.check(functions, params, method, train, validation, task, seed, settings)
    classes = len(task.prompts)
    settings = replace(settings, batch_size=min(settings.batch_size, len(train.labels)))
    mesh = _dividing(mesh, settings.batch_size)
    program = tower_step.program(functions, method, settings, classes, len(train.labels), mesh)
    key = stream(seed, "adapt/tune")
    state = replicate(tower_step.State(params, task, *program.start(params, key)), mesh)
    best: tuple[float, float, int, Params] = (-np.inf, -np.inf, -1, None)
    history, means, norms = [], [], []
    begun = 0.0
    for epoch in range(settings.epochs):
        check_stop(f"tuning, epoch {epoch + 1} of {settings.epochs}")
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(train.labels))
        summed = []
        for step, start in enumerate(range(0, len(order) - settings.batch_size + 1, settings.batch_size)):
            rows = order[start : start + settings.batch_size]
            batch = shard_batch(Images(*(x[rows] for x in train)), mesh)
            drawn = fold_in(fold_in(key, epoch), step)
            state, (loss, norm) = program.step(state, batch, drawn)
            summed.append((loss, norm))
            if step % MAX_IN_FLIGHT == 0:
                loss.block_until_ready()
        by_step = np.asarray(jax.device_get(summed))
        means.append(float(np.mean(by_step[:, 0])))
        norms.append(float(by_step[-1, 1]))
        begun = begun or float(by_step[min(15, len(by_step) - 1) :, 1].max())
        if not np.isfinite(means[-1]):
            where = f"the loss is {means[-1]} in epoch {epoch + 1}"
            raise Diverged(_diverged(method, where))
        figure, loss = _judged(program, state, validation, fold_in(key, 2**20), settings, mesh)
        history.append(figure)
        if (figure, -loss) > best[:2]:
            best = (figure, -loss, epoch, jax.device_get(state.trained))
        if settings.patience and epoch - max(best[2], 0) >= settings.patience:
            break
    if best[3] is None:
        raise Diverged(_diverged(method, "the outputs on the validation split are finite after no epoch"))
    total = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
    share = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tower_step.moving_of(best[3]))) / total
    left = min(norms[-1], norms[best[2]]) / max(begun, float(np.finfo(np.float32).tiny))
    return TowerOutcome(best[3], best[2], history, means, share, left)


def _diverged(method: TowerTraining, what: str) -> str:
    rates = [] if method.scope == "head" else ["learning_rate"]
    rates += [] if method.head == "prompts" else ["head_learning_rate"]
    stated = " and ".join(f"{name} = {getattr(method, name):g}" for name in rates)
    return f"{what} with {stated}: lower {'one of them' if len(rates) > 1 else 'it'}"


def _dividing(mesh: Mesh | None, batch_size: int) -> Mesh:
    """As many devices of `mesh` as divide the batch, on one axis."""
    if mesh is None:
        return make_mesh(1)
    count = next(n for n in range(min(mesh.size, batch_size), 0, -1) if batch_size % n == 0)
    return make_mesh(list(mesh.devices.flat)[:count])


def _judged(
    program: tower_step.Program, state: tower_step.State, split: Images, key: Array, settings: TowerFit, mesh: Mesh
) -> tuple[float, float]:
    """Figure and loss on a split, means over clean and attacked images, in batches of one shape."""
    count = len(split.labels)
    keys = jax.random.split(key, count)
    parts = []
    for start in range(0, count, settings.batch_size):
        rows = np.arange(start, start + settings.batch_size)
        index = np.minimum(rows, count - 1)
        batch = (Images(*(x[index] for x in split)), keys[index])
        parts.append(np.asarray(program.judge(state, shard_batch(batch, mesh), key)[1]))
    figure, loss = _figures(settings.metric, settings.multi_label, np.concatenate(parts)[:count], split.labels)
    return float(figure), float(loss)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _figures(metric: str, multi_label: bool, logits: Array, labels: Array) -> tuple[Array, Array]:
    """Means over the sides of logits f32[N, sides, C]: the figure named, and the loss."""
    sides = [logits[:, side] for side in range(logits.shape[1])]
    figure = jnp.stack([selection.score(metric, x, labels, multi_label) for x in sides])
    loss = jnp.stack([classification.loss(x, labels, None, multi_label) for x in sides])
    return jnp.mean(figure), jnp.mean(loss)
