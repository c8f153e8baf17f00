"""Losses to raise, one value per example: functions of logits or embeddings.

All take and give float32 or float64 and never mix rows, but `info_nce_pair`, whose rows are coupled by design.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from ranjax.attacks.input_checks import Flags, PerExample, Pixels, is_traced, note_labels, validate_labels
from ranjax.attacks.probabilities import note_logits, refuse_values
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.math import unit

# Losses with a stationary point at the clean image: their gradient there is rounding noise, which a sign blows up.
NEEDS_RANDOM_START = ("cosine", "squared_distance", "coattack_kl")

Logits = Float[Array, "batch classes"]
Features = Float[Array, "batch features"]
Labels = Shaped[Array | np.ndarray, "..."]
"""Labels as a caller gives them: i32[B], or multi-hot f32[B, C] where a function says so."""


def _require_classes(logits: Logits, least: int, name: str) -> None:
    if logits.shape[-1] < least:
        raise ConfigError(f"{name}: shape of the logits", logits.shape, f"[B, C] with at least {least} classes")


def _checked(logits: Logits, labels: Labels) -> Array:
    """Return the labels i32[B] of logits [B, C]; the values of traced ones are taken on trust.

    Raises:
      DataError: another shape, no integers, or a class that is not there.
    """
    held = labels if is_traced(labels) else np.asarray(labels)
    if logits.ndim != 2:
        raise DataError(f"logits have shape {logits.shape}, expected [B, C]: a batch of them.")
    batch, classes = logits.shape
    if held.shape == logits.shape:
        hint = "One-hot labels? Use labels.argmax(-1); for several classes an example, binary_cross_entropy."
        raise DataError(f"labels have shape {held.shape}, expected ({batch},), one class per example. {hint}")
    if held.shape != (batch,) or not jnp.issubdtype(held.dtype, jnp.integer):
        expected = f"integers of shape ({batch},), one class per example"
        raise DataError(f"labels are {held.dtype} of shape {held.shape}, expected {expected}.")
    if isinstance(held, np.ndarray):
        validate_labels(held, classes)
    # `jitted` holds its own labels against this before it runs anything.
    note_labels(held, classes)
    return jnp.asarray(held)


def _at(logits: Logits, labels: Labels) -> PerExample:
    # A loss of probabilities is another loss; which class is on top, `is_wrong` may say of them as well.
    if is_traced(logits):
        note_logits(logits)
    else:
        refuse_values(logits)
    labels = _checked(logits, labels)
    # NaN, and so `finite` False, for a class that is not there: by itself -1 would read the last class.
    known = (labels >= 0) & (labels < logits.shape[-1])
    return jnp.where(known, jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0], jnp.nan)


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Return the cross-entropy against labels i32[B]."""
    _require_classes(logits, 1, "cross_entropy")
    return jax.nn.logsumexp(logits, axis=-1) - _at(logits, labels)


def binary_cross_entropy(logits: Logits, labels: Logits) -> PerExample:
    """Return the mean over the classes of the binary cross-entropy, for multi-hot labels f32[B, C]."""
    note_logits(logits)
    return jnp.mean(jax.nn.softplus(logits) - logits * labels, axis=-1)


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Return the difference of logits ratio (Croce & Hein 2020, eq. 6): above 0 where the label is not the top class.

    ``-(z_y - max_{i != y} z_i) / (z_(1) - z_(3))`` with z_(k) the k-th largest logit; invariant to shift and scale.

    Raises:
      ConfigError: fewer than 3 classes.
    """
    _require_classes(logits, 3, "dlr")
    top, _ = jax.lax.top_k(logits, 3)
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Return the targeted DLR (Croce & Hein 2020, eq. 7): ``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)``.

    Args:
      logits: f32[B, C]. labels: i32[B], the true classes. targets: i32[B], the classes to reach.

    Raises:
      ConfigError: fewer than 4 classes.
    """
    _require_classes(logits, 4, "dlr_targeted")
    top, _ = jax.lax.top_k(logits, 4)
    return -(_at(logits, labels) - _at(logits, targets)) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def margin(logits: Logits, labels: Labels) -> PerExample:
    """Return max_{i != y} z_i - z_y (Carlini & Wagner 2017): above 0 exactly where the label is not the top class."""
    _require_classes(logits, 2, "margin")
    labels = _checked(logits, labels)
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return jnp.max(others, axis=-1) - _at(logits, labels)


def margin_of_any(logits: Logits, labels: Logits) -> PerExample:
    """Return how far the worst class is on the wrong side of 0, for multi-hot labels f32[B, C].

    The counterpart of `margin` where any number of classes may be right: above 0 where a class is predicted wrongly.
    """
    _require_classes(logits, 1, "margin_of_any")
    note_logits(logits)
    return jnp.max(jnp.where(labels > 0.5, -logits, logits), axis=-1)


def is_wrong(logits: Logits, labels: Labels) -> Flags:
    """Return where the top class is not the label i32[B]; or, of multi-hot labels f32[B, C], a class is not on its side
    of 0.
    """
    if jnp.ndim(labels) == 2:
        if jnp.shape(labels) != logits.shape:
            found = jnp.shape(labels)
            raise DataError(f"multi-hot labels have shape {found}, expected that of the logits, {logits.shape}.")
        return jnp.any((logits > 0) != (jnp.asarray(labels) > 0.5), axis=-1)
    labels = _checked(logits, labels)
    return jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels


SINGLE_LABEL: dict[str, Callable[..., jax.Array]] = {"cross_entropy": cross_entropy, "dlr": dlr, "margin": margin}
MULTI_LABEL = {"binary_cross_entropy": binary_cross_entropy, "margin_of_any": margin_of_any}


def named(loss: str, multi_label: bool = False) -> Callable[..., jax.Array]:
    """Return the loss ``(logits, labels) -> f32[B]`` of a classifier by its name.

    Raises:
      ConfigError: a loss that is unknown or takes other labels.
    """
    known = MULTI_LABEL if multi_label else SINGLE_LABEL
    if loss not in known:
        hint = "Labels of two axes are multi-hot." if multi_label else nearest(loss, known)
        raise ConfigError("loss", loss, f"one of {', '.join(known)}", hint)
    return known[loss]


def of_classifier(
    logits_fn: Callable[[jax.Array], jax.Array], labels: Labels, loss: str = "cross_entropy"
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Return ``images -> (loss f32[B], success bool[B])`` of a classifier: success where `is_wrong`.

    An attack then prefers a misclassified iterate to one of higher loss that is still right.

    Args:
      logits_fn: ``images -> logits f32[B, C]``.
      labels: i32[B], or f32[B, C] multi-hot, where any number of classes may be right.
      loss: "cross_entropy", "dlr" or "margin"; of multi-hot labels "binary_cross_entropy" or "margin_of_any".

    Raises:
      ConfigError: a loss that is unknown or takes other labels, or too few classes for it.
    """
    raised = named(loss, jnp.ndim(labels) == 2)

    def loss_fn(images: Pixels) -> tuple[PerExample, Flags]:
        logits = logits_fn(images)
        return raised(logits, labels), is_wrong(logits, labels)

    return loss_fn


def cosine(embeddings: Features, reference: Features) -> PerExample:
    """Return the cosine distance 1 - cos of embeddings to a reference, e.g. the texts."""
    return 1 - jnp.sum(unit(embeddings) * unit(reference), axis=-1)


def squared_distance(embeddings: Features, reference: Features) -> PerExample:
    """Return the squared L2 distance of embeddings to a reference, not normalised (FARE)."""
    return jnp.sum(jnp.square(embeddings - reference), axis=-1)


def info_nce_pair(image: Features, text: Features, scale: ArrayLike) -> PerExample:
    """Return InfoNCE of each pair within its batch: half the cross-entropy of its row plus half that of its column.

    The mean over the batch is CLIP's loss (Radford et al. 2021). Rows are coupled: the other pairs are the negatives,
    so the result of an example depends on its batch-mates. A batch of one gives exactly 0, with a zero gradient.

    Args:
      image: f32[B, D]; text: f32[B, D], both normalised here. scale: f32[], the exponentiated logit scale.
    """
    logits = scale * (unit(image) @ unit(text).T)
    pairs = jnp.diagonal(logits)
    rows = jax.nn.logsumexp(logits, axis=1) - pairs
    columns = jax.nn.logsumexp(logits, axis=0) - pairs
    return (rows + columns) / 2


def coattack_kl(embeddings: Features, reference: Features) -> PerExample:
    """Return KL(softmax(reference) || softmax(embeddings)) of L2-normalised rows (Co-Attack, Zhang et al. 2022).

    Args:
      embeddings: f32[B, D], the attacked ones. reference: f32[B, D], the clean (or the other side's) ones.
    """
    log_p = jax.nn.log_softmax(unit(reference), axis=-1)
    log_q = jax.nn.log_softmax(unit(embeddings), axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
