"""Train co-attention on the cached states of frozen towers, with a linear classifier of the answers behind it.

Images and questions are tables that examples point into, so that a picture or a wording is held once however many
questions are asked. The classifier is thrown away: any head is then fitted on the fused vectors.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ranjax.core.errors import DataError
from ranjax.core.keys import stream
from ranjax.core.types import Params
from ranjax.methods.epochs import adamw
from ranjax.methods.fusion_settings import FusionTraining
from ranjax.models.coattention import CoAttention, standardisation
from ranjax.objectives import classification

_ROWS = 512
"""Questions fused at a time outside of training, which bounds the memory."""
_WARM_UP = 0.05


class Asked(NamedTuple):
    """N questions about images.

    Attributes:
      places: f32[images, T, width], the image tower's states.
      tokens: f32[wordings, L, width], the text tower's; mask: bool[wordings, L].
      image, wording: i32[N], rows of these.
      labels: i32[N], the answer; -1 for one that training never gave.
    """

    places: Float[np.ndarray | Array, "images places image_width"]
    tokens: Float[np.ndarray | Array, "wordings length question_width"]
    mask: Bool[np.ndarray | Array, "wordings length"]
    image: Int[np.ndarray | Array, "questions"]
    wording: Int[np.ndarray | Array, "questions"]
    labels: Int[np.ndarray | Array, "questions"]


class FittedFusion(NamedTuple):
    """Attributes:
    fusion: the shape.
    variables: {"params", "stats"} of the best epoch by validation.
    history: f32[epochs], its accuracy there; chosen: the epoch, from 0.
    """

    fusion: CoAttention
    variables: Params
    history: np.ndarray
    chosen: int

    def features(self, asked: Asked) -> Float[np.ndarray, "questions features"]:
        """Return the fused vectors of questions about images."""
        return np.asarray(_features(self.fusion, self.variables, jax.tree.map(jnp.asarray, asked)))


def fit_fusion(
    train: Asked, validation: Asked, classes: int, settings: FusionTraining | None = None, seed: int = 0
) -> FittedFusion:
    """Train co-attention and a linear classifier by cross-entropy; validation accuracy chooses the epoch.

    AdamW (Loshchilov & Hutter 2019) with a short warm-up and a cosine; one compiled program for all seeds and
    encoders of one shape.

    Args:
      train, validation: every label of `train` in 0 .. classes - 1.
      classes: number of answers.
      settings: None: the defaults.
      seed: of first weights, batches and dropout.

    Raises:
      ConfigError: a width that its heads do not divide.
      DataError: labels outside the classes, fewer than two questions, states that are not finite.
    """
    settings = settings or FusionTraining()
    labels = np.asarray(train.labels)
    if len(labels) < 2 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels of {len(labels)} training questions lie outside 0..{classes - 1}, or are fewer than 2")
    for name, part in (("train", train), ("validation", validation)):
        if not all(np.isfinite(np.asarray(x)).all() for x in (part.places, part.tokens)):
            raise DataError(f"states of the {name} images or questions are not finite")
    length = max(train.tokens.shape[1], validation.tokens.shape[1])
    fusion = CoAttention(
        (train.places.shape[1], train.places.shape[2]),
        (length, train.tokens.shape[2]),
        settings.width,
        settings.heads,
        settings.layers,
        settings.outputs,
        settings.dropout,
    )
    stats = standardisation(*(np.asarray(x) for x in (train.places, train.tokens, train.mask)))
    given = jax.tree.map(jnp.asarray, (stats, train, validation))
    variables, history, chosen = _fit(fusion, settings, classes, stream(seed, "questions/fusion"), *given)
    return FittedFusion(fusion, variables, np.asarray(history), int(chosen))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fit(
    fusion: CoAttention,
    settings: FusionTraining,
    classes: int,
    key: Array,
    stats: Params,
    train: Asked,
    validation: Asked,
) -> tuple[Params, Array, Array]:
    count = train.labels.shape[0]
    batch = min(settings.batch_size, count)
    per_epoch = count // batch
    total = per_epoch * settings.epochs
    first, second, shuffle, drop = jax.random.split(key, 4)
    params = {
        "fusion": fusion.init(first),
        "kernel": 0.02 * jax.random.normal(second, (fusion.outputs, classes), jnp.float32),
        "bias": jnp.zeros((classes,), jnp.float32),
    }

    def logits(params: Params, z: Array) -> Array:
        return z @ params["kernel"] + params["bias"][None]

    def loss_fn(params: Params, rows: Array, key: Array) -> Array:
        inputs = _inputs(train, rows)
        found = logits(params, fusion.apply(params["fusion"], stats, *inputs, key))
        return classification.loss(found, train.labels[rows], None, False)

    def step(state: Any, given: Any) -> tuple[Any, None]:
        params, moments, done = state
        gradients = jax.grad(loss_fn)(params, *given)
        done = done + 1
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * done / total))
        rate = settings.learning_rate * jnp.minimum(cosine, done / max(1.0, _WARM_UP * total))
        params, moments = adamw(params, gradients, moments, done, rate, jnp.float32(settings.weight_decay))
        return (params, moments, done), None

    def epoch(carry: Any, index: Array) -> tuple[Any, Array]:
        state, best = carry
        order = jax.random.permutation(jax.random.fold_in(shuffle, index), count)[: per_epoch * batch]
        keys = jax.random.split(jax.random.fold_in(drop, index), per_epoch)
        state, _ = lax.scan(step, state, (order.reshape(per_epoch, batch), keys))
        z = _features(fusion, {"params": state[0]["fusion"], "stats": stats}, validation)
        right = jnp.argmax(logits(state[0], z), axis=1) == validation.labels
        accuracy = jnp.where(jnp.all(jnp.isfinite(z)), jnp.mean(right, dtype=jnp.float32), -1.0)
        better = accuracy > best[1]
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (state[0]["fusion"], accuracy, index), best)
        return (state, best), accuracy

    best = params["fusion"], jnp.float32(-1), jnp.int32(-1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, (zeros, zeros), jnp.float32(0))
    (_, best), history = lax.scan(epoch, (state, best), jnp.arange(settings.epochs, dtype=jnp.int32))
    return {"params": best[0], "stats": stats}, history, best[2]


def _inputs(asked: Asked, rows: Shaped[Array, "batch"]) -> tuple[Array, Array, Array]:
    wording = asked.wording[rows]
    return asked.places[asked.image[rows]], asked.tokens[wording], asked.mask[wording]


@functools.partial(jax.jit, static_argnums=0)
def _features(fusion: CoAttention, variables: Params, asked: Asked) -> Float[Array, "questions features"]:
    count = asked.image.shape[0]

    def of(rows: Array) -> Array:
        return fusion.apply(variables["params"], variables["stats"], *_inputs(asked, rows))

    rows = jnp.arange(-(-count // _ROWS) * _ROWS, dtype=jnp.int32) % count
    return lax.map(of, rows.reshape(-1, _ROWS)).reshape(-1, fusion.outputs)[:count]
