"""Validation metrics in JAX, for choosing an epoch inside a compiled training program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def accuracy(logits: jax.Array, labels: jax.Array, multi_label: bool = False) -> jax.Array:
    """Share of right answers, f32[]: argmax against i32[N], or every entry's sign against a multi-hot f32[N, C]."""
    if multi_label:
        return jnp.mean((logits > 0) == (labels > 0.5), dtype=jnp.float32)
    return jnp.mean(jnp.argmax(logits, axis=1) == labels, dtype=jnp.float32)


def _one_hot(logits: jax.Array, labels: jax.Array, multi_label: bool) -> jax.Array:
    return labels > 0.5 if multi_label else jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.bool_)


def _counts(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, axis=0, dtype=jnp.float32)


def _over_defined(values: jax.Array, defined: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(defined, values, jnp.zeros_like(values))) / jnp.maximum(_counts(defined), 1)


def balanced_accuracy(logits: jax.Array, labels: jax.Array, multi_label: bool = False) -> jax.Array:
    """Mean recall over the classes present, f32[]; multi-label: mean of (sensitivity + specificity) / 2."""
    truth = _one_hot(logits, labels, multi_label)
    positive, negative = _counts(truth), _counts(~truth)
    if multi_label:
        said = logits > 0
        sensitivity = _counts(said & truth) / jnp.maximum(positive, 1)
        specificity = _counts(~said & ~truth) / jnp.maximum(negative, 1)
        return _over_defined((sensitivity + specificity) / 2, (positive > 0) & (negative > 0))
    right = (jnp.argmax(logits, axis=1) == labels)[:, None]
    return _over_defined(_counts(truth & right) / jnp.maximum(positive, 1), positive > 0)


def auroc(logits: jax.Array, labels: jax.Array, multi_label: bool = False) -> jax.Array:
    """Macro area under the ROC curve, f32[], one class against the rest, over classes with both kinds; ties count half.

    One label: the scores are the softmax probabilities, so that scores of different examples compare.
    """
    truth = _one_hot(logits, labels, multi_label)
    scores = logits if multi_label else jax.nn.log_softmax(logits, axis=1)

    def mid_ranks(column: jax.Array) -> jax.Array:
        ordered = jnp.sort(column)
        below = jnp.searchsorted(ordered, column, side="left")
        return (below + jnp.searchsorted(ordered, column, side="right") + 1).astype(jnp.float32) / 2

    ranks = jax.vmap(mid_ranks, in_axes=1, out_axes=1)(scores)
    positive, negative = _counts(truth), _counts(~truth)
    rank_sum = jnp.sum(jnp.where(truth, ranks, jnp.zeros_like(ranks)), axis=0)
    area = (rank_sum / jnp.maximum(positive, 1) - (positive + 1) / 2) / jnp.maximum(negative, 1)
    return _over_defined(area, (positive > 0) & (negative > 0))


@functools.partial(jax.jit, static_argnums=(0, 3))
def score(metric: str, logits: jax.Array, labels: jax.Array, multi_label: bool) -> jax.Array:
    """The metric named (one of `method_settings.METRICS`), f32[]; -inf where a logit is not finite: such an epoch is
    not chosen.
    """
    functions = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "auroc": auroc}
    value = functions[metric](logits, labels, multi_label).astype(jnp.float32)
    return jnp.where(jnp.all(jnp.isfinite(logits)), value, -jnp.inf)
