"""Classification losses of a batch: softmax cross-entropy for one label an example, sigmoid for several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

Labels = Int[Array, "batch"] | Num[Array, "batch classes"]
"""One class an example, or multi-hot."""


def cross_entropy(logits: Float[Array, "batch classes"], labels: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """Return the softmax cross-entropy of each example, in nats; labels lie in [0, classes)."""
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - picked


def binary_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch classes"],
    positive: Float[Array, "classes"] | None = None,
) -> Float[Array, "batch"]:
    """Return the mean over classes of the sigmoid cross-entropy of each example, in nats; labels are multi-hot.

    `positive` multiplies the loss of a class where it is present.
    """
    present = -jax.nn.log_sigmoid(logits) * labels
    if positive is not None:
        present = present * positive[None, :]
    return jnp.mean(present - jax.nn.log_sigmoid(-logits) * (1 - labels), axis=1)


def kl(p_logits: Float[Array, "batch classes"], q_logits: Float[Array, "batch classes"]) -> Float[Array, "batch"]:
    """Return KL(softmax(p) || softmax(q)) of each example, in nats."""
    log_p, log_q = jax.nn.log_softmax(p_logits, axis=1), jax.nn.log_softmax(q_logits, axis=1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def loss(
    logits: Float[Array, "batch classes"],
    labels: Labels,
    class_weights: Float[Array, "classes"] | None = None,
    multi_label: bool = False,
) -> Float[Array, ""]:
    """Return the mean loss of a batch, in nats.

    Args:
      logits: of each class.
      labels: one class an example, or multi-hot where `multi_label`.
      class_weights: one label: the weighted mean ``sum w_y ce / sum w_y``; several: a factor where present.
      multi_label: whether any number of classes may be present.
    """
    if multi_label:
        return jnp.mean(binary_cross_entropy(logits, labels, class_weights))
    each = cross_entropy(logits, labels)
    if class_weights is None:
        return jnp.mean(each)
    weights = class_weights[labels]
    return jnp.sum(weights * each) / jnp.sum(weights)
