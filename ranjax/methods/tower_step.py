"""The compiled step of `ranjax.methods.tower_training`: attack, objective and optimiser of one method.

Each device attacks and embeds its rows of the batch, which is all of the work; embeddings are then gathered, and every
device computes head and objective on the whole batch, so that batch norm and RAN's terms see what one device would.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from ranjax.attacks import losses, pgd
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.methods.head_training import Head
from ranjax.methods.method_settings import TowerTraining
from ranjax.methods.tower_methods import ImageEncoder, Images, Task, TowerFit, adapters, encoder_of, head_of
from ranjax.models import input_filter
from ranjax.models.trainable import partition, select
from ranjax.objectives import classification, rectification, robust
from ranjax.objectives.rectification import Weights
from ranjax.training.devices import AXIS, data_parallel
from ranjax.training.optimizer import plain_promotion


class State(NamedTuple):
    """What a step is given on every device: the frozen encoder, the task, what is trained, its optimiser's state."""

    params: Params
    task: Task
    trained: Params
    opt_state: PyTree


class Program(NamedTuple):
    """Compiled for a mesh.

    ``start(params, key) -> (trained, opt_state)``; ``step(state, batch, key) -> (state, (loss, norm))``, the state
    donated, with the norm of the mean gradient of the epoch's steps so far;
    ``judge(state, (batch, keys key[B]), key) -> (None, logits f32[B, sides, C])``, of clean images and,
    where the method trains on them, of attacked ones.
    """

    start: Callable[..., tuple[Params, PyTree]]
    step: Callable[..., tuple[State, tuple[Array, Array]]]
    judge: Callable[..., tuple[None, Array]]


@functools.lru_cache(maxsize=32)
def program(
    functions: ImageEncoder, method: TowerTraining, settings: TowerFit, classes: int, examples: int, mesh: Mesh
) -> Program:
    """Compiled once for all seeds and upstream conditions of one shape; the mesh's size divides the batch."""
    head = head_of(method, functions.config.embed_dim, classes)
    optimizer = _optimizer(method, settings, examples)

    def start(params: Params, key: Array) -> tuple[Params, PyTree]:
        encoder: dict[str, Params] = {}
        if method.scope == "lora":
            encoder = adapters(params, method, jax.random.fold_in(key, 1))
        elif method.scope == "full":
            encoder = partition(params, select(params, method.trainable, "method.trainable"))[0]
        if method.filtered and settings.sigma:
            encoder = {**encoder, input_filter.NAME: input_filter.gaussian(settings.sigma)}
        trained: dict[str, Params] = {"encoder": jax.tree.map(jnp.asarray, encoder)}
        if head is not None:
            first, stats = head.init(jax.random.fold_in(key, 2))
            trained["head"] = {"params": first, "stats": stats}
        return trained, optimizer.init(moving_of(trained))

    def attacked(params: Params, task: Task, trained: Params, batch: Images, keys: Array) -> Array:
        """x', made against the tower and head as they stand, batch norm in evaluation mode; no gradient."""
        classify = logits_of(functions, method, head)
        encoder = encoder_of(method, params, trained)

        def loss(x: Array) -> Array:
            if method.objective == "fare":
                return losses.squared_distance(functions.image_features(encoder, x), batch.original)
            each = losses.binary_cross_entropy if settings.multi_label else losses.cross_entropy
            return each(classify(encoder, task, trained, x), batch.labels)

        found = pgd.pgd(loss, as_float(batch.images), keys, settings.attack)
        return jax.lax.stop_gradient(found.images)

    def loss_of(
        moving: Params, trained: Params, params: Params, task: Task, batch: Images, hurt: Array | None
    ) -> tuple[Array, Params]:
        trained = _with(trained, moving)
        encoder = encoder_of(method, params, trained)
        stats = trained.get("head", {}).get("stats", {})

        def features(images: Any, weights: Params = encoder) -> Array:
            return _whole(functions.image_features(weights, images))

        def applied(f: Array, training: bool, stats: Params) -> tuple[Array, Array, Params]:
            return head.apply(trained["head"]["params"], stats, f, training)  # type: ignore[union-attr]

        if method.objective == "fare":
            return robust.fare(features(hurt), batch.original), stats
        if method.objective == "tecoa":
            return robust.tecoa(features(hurt), task.prompts, batch.labels, task.scale), stats
        if method.objective == "pmg_aft":
            # The general pull compares both models on x', as the public code does.
            sides = (features(hurt), features(as_float(batch.images)), features(hurt, params))
            bad, clean, original = (robust.class_logits(f, task.prompts, task.scale) for f in sides)
            return robust.pmg_aft(bad, clean, original, batch.labels, method.pull, method.pull), stats
        given = hurt if method.objective == "at" else as_float(batch.images)
        z, logits, stats = applied(features(given), True, stats)
        if method.objective != "ran":
            return classification.loss(logits, batch.labels, task.weights, settings.multi_label), stats
        bad = applied(features(hurt), False, stats)[:2]
        total, _ = rectification.objective(
            Weights(**{term: getattr(method, term) for term in Weights._fields}),
            batch.original,
            z,
            logits,
            batch.labels,
            bad,
            class_weights=task.weights,
            multi_label=settings.multi_label,
            top_k=method.top_k,
            terms=frozenset(method.terms),
        )
        return total, stats

    def step(state: State, batch: Images, key: Array) -> tuple[State, tuple[Array, Array]]:
        params, task, trained, opt_state = state
        # One key per row of the global batch, whatever the number of devices.
        rows = batch.labels.shape[0]
        keys = jax.random.split(key, rows * mesh.size)
        keys = jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index(AXIS) * rows, rows)
        hurt = attacked(params, task, trained, batch, keys) if method.uses_attacked else None
        batch = Images(batch.images, _whole(batch.labels), _whole(batch.original))
        moving = moving_of(trained)
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(moving, trained, params, task, batch, hurt)
        # All devices computed the one loss from the gathered rows: the mean of their gradients is its gradient.
        grads = jax.lax.pmean(grads, AXIS)
        updates, opt_state = optimizer.update(grads, opt_state, moving)
        trained = _with(trained, optax.apply_updates(moving, updates))
        if head is not None:
            trained = {**trained, "head": {**trained["head"], "stats": stats}}
        return State(params, task, trained, opt_state), (loss, opt_state[0].norm())

    def judge(state: State, rows: tuple[Images, Array], key: Array) -> tuple[None, Array]:
        del key
        params, task, trained, _ = state
        batch, keys = rows
        encoder = encoder_of(method, params, trained)
        classify = logits_of(functions, method, head)
        sides = [as_float(batch.images)]
        if method.uses_attacked:
            sides.append(attacked(params, task, trained, batch, keys))
        return None, _whole(jnp.stack([classify(encoder, task, trained, x) for x in sides], axis=1))

    # check_vma=False: loops inside attacks start from unvaried constants.
    mapped = functools.partial(data_parallel, mesh=mesh, check_vma=False)
    return Program(jax.jit(start), mapped(step), mapped(judge, donate=False))


def _whole(rows: Array) -> Array:
    """The rows of all devices, in their order; gradients flow back to the device that a row came from."""
    return jax.lax.all_gather(rows, AXIS, tiled=True)


def logits_of(functions: ImageEncoder, method: TowerTraining, head: Head | None) -> Callable[..., Array]:
    """Return ``(encoder, task, trained, images f32[B, H, W, C]) -> logits f32[B, C]``, as deployed."""

    def classify(encoder: Params, task: Task, trained: Params, images: Array) -> Array:
        features = functions.image_features(encoder, images)
        if head is None:
            return robust.class_logits(features, task.prompts, task.scale)
        return head.apply(trained["head"]["params"], trained["head"]["stats"], features, False)[1]

    return classify


def moving_of(trained: Mapping[str, Params]) -> dict[str, Params]:
    """Return the optimiser's part: without batch statistics and without the filter, which is fixed."""
    encoder = {name: part for name, part in trained["encoder"].items() if name != input_filter.NAME}
    return {"encoder": encoder, **({"head": trained["head"]["params"]} if "head" in trained else {})}


def _with(trained: Mapping[str, Params], moving: Mapping[str, Params]) -> dict[str, Params]:
    head = {"head": {**trained["head"], "params": moving["head"]}} if "head" in trained else {}
    return {"encoder": {**trained["encoder"], **moving["encoder"]}, **head}


def _optimizer(method: TowerTraining, settings: TowerFit, examples: int) -> optax.GradientTransformation:
    per_epoch = max(1, examples // settings.batch_size)
    steps = per_epoch * settings.epochs

    def adamw(rate: float) -> optax.GradientTransformation:
        return optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=method.weight_decay)

    groups = {"encoder": adamw(method.learning_rate), "head": adamw(method.head_learning_rate)}

    def labels(tree: Mapping[str, Params]) -> dict[str, Params]:
        return {name: jax.tree.map(lambda _, name=name: name, part) for name, part in tree.items()}

    return optax.chain(_recorded(per_epoch), plain_promotion(optax.multi_transform(groups, labels)))


class _Recorded(NamedTuple):
    """The sum of the gradients of an epoch, and how many steps were made."""

    sums: Params
    done: Array
    since: Array

    def norm(self) -> Array:
        """Return the norm of the mean."""
        return optax.tree.norm(self.sums) / self.since.astype(jnp.float32)


def _recorded(per_epoch: int) -> optax.GradientTransformation:
    """Pass gradients on, and keep the sum of those since the epoch began."""

    def start(params: Params) -> _Recorded:
        return _Recorded(jax.tree.map(jnp.zeros_like, params), jnp.int32(0), jnp.int32(0))

    def update(gradients: Params, state: _Recorded, params: Params | None = None) -> tuple[Params, _Recorded]:
        anew = state.done % per_epoch == 0
        sums = jax.tree.map(lambda s, g: jnp.where(anew, jnp.zeros_like(s), s) + g, state.sums, gradients)
        return gradients, _Recorded(sums, state.done + 1, jnp.where(anew, 0, state.since) + 1)

    return optax.GradientTransformation(start, update)
