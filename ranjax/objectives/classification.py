"""Classification losses of a batch: softmax cross-entropy for one label an example, sigmoid for several."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy of each example, in nats: logits f[B, C], labels i32[B] in [0, C) -> f[B]."""
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - picked


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, positive: jax.Array | None = None) -> jax.Array:
    """Mean over classes of the sigmoid cross-entropy of each example: logits f[B, C], labels f[B, C] multi-hot -> f[B].

    `positive` f[C] multiplies the loss of a class where it is present.
    """
    present = -jax.nn.log_sigmoid(logits) * labels
    if positive is not None:
        present = present * positive[None, :]
    return jnp.mean(present - jax.nn.log_sigmoid(-logits) * (1 - labels), axis=1)


def kl(p_logits: jax.Array, q_logits: jax.Array) -> jax.Array:
    """KL(softmax(p) || softmax(q)) of each example, in nats: logits f[B, C] twice -> f[B]."""
    log_p, log_q = jax.nn.log_softmax(p_logits, axis=1), jax.nn.log_softmax(q_logits, axis=1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def loss(
    logits: jax.Array, labels: jax.Array, class_weights: jax.Array | None = None, multi_label: bool = False
) -> jax.Array:
    """The mean loss of a batch.

    Args:
      logits: f[B, C].
      labels: i32[B], or f[B, C] multi-hot where `multi_label`.
      class_weights: f[C]. One label: the weighted mean ``sum w_y ce / sum w_y``. Several: a factor where present.
      multi_label: which of the two.

    Returns:
      f[] in nats.
    """
    if multi_label:
        return jnp.mean(binary_cross_entropy(logits, labels, class_weights))
    each = cross_entropy(logits, labels)
    if class_weights is None:
        return jnp.mean(each)
    weights = class_weights[labels]
    return jnp.sum(weights * each) / jnp.sum(weights)
