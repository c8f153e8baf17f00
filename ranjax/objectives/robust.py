"""Objectives of robust fine-tuning: TeCoA, FARE and PMG-AFT, as pure functions of embeddings and logits.

Each is minimised over the encoder on attacked inputs x'; who makes x' is the caller's choice, usually
:mod:`ranjax.attacks.pgd` on the loss that the paper names.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ranjax.core.math import unit
from ranjax.objectives import classification


def class_logits(images: jax.Array, classes: jax.Array, scale: jax.Array | float) -> jax.Array:
    """``scale * cos(image, class)``; images f[B, D], classes f[C, D], the latter without gradient -> f[B, C]."""
    return scale * (unit(images) @ lax.stop_gradient(unit(classes)).T)


def tecoa(attacked: jax.Array, classes: jax.Array, labels: jax.Array, scale: jax.Array | float) -> jax.Array:
    """TeCoA (Mao et al. 2023, arXiv 2212.07016): cross-entropy of attacked images against frozen class prompts.

    x' raises the same loss.

    Args:
      attacked: f[B, D], image embeddings of x'.
      classes: f[C, D], text embeddings of the classes; no gradient reaches them.
      labels: i32[B].
      scale: exponentiated logit scale.

    Returns:
      f[], in nats.
    """
    return jnp.mean(classification.cross_entropy(class_logits(attacked, classes, scale), labels))


def fare(attacked: jax.Array, original: jax.Array) -> jax.Array:
    """FARE (Schlarmann et al. 2024, arXiv 2402.12336): ``mean_i ||phi(x'_i) - phi_0(x_i)||_2^2``; needs no label.

    x' raises the same distance.

    Args:
      attacked: f[B, D], embeddings of x' by the encoder in training, not normalised.
      original: f[B, D], embeddings of x by the encoder before training; no gradient reaches them.
    """
    if attacked.shape != original.shape:
        raise ValueError(f"fare needs two arrays of one shape [B, D], got {attacked.shape} and {original.shape}")
    return jnp.mean(jnp.sum(jnp.square(attacked - lax.stop_gradient(original)), axis=1))


def pmg_aft(
    attacked: jax.Array,
    clean: jax.Array,
    original: jax.Array,
    labels: jax.Array,
    general: float = 1.0,
    own: float = 1.0,
) -> jax.Array:
    """PMG-AFT (Wang et al. 2024, arXiv 2401.04350): cross-entropy on x' and two pulls on its class probabilities.

    ``CE(x', y) + general KL(p_0(x') || p(x')) + own KL(p(x) || p(x'))``: towards the model before training (p_0,
    without gradient) and towards the model's own clean prediction, through which gradients do flow. Inputs and
    directions are those of the authors' public code (PMG_AFT.py, `train`: ``loss_advori`` compares both models on the
    attacked images). There cross-entropy is a mean over the batch but both divergences are sums, so that with its batch
    of 256 the pulls weigh 256; here all three are means, as in the paper's ``L_robust + alpha L_general + beta
    L_clean``, and ``general = own = 256`` gives the code's weighting.

    Args:
      attacked, clean, original: logits f[B, C] of x', of x, and of x' by the model before training.
      labels: i32[B].
      general, own: weights of the two pulls.
    """
    if not attacked.shape == clean.shape == original.shape:
        raise ValueError(f"logits must have one shape, got {attacked.shape}, {clean.shape} and {original.shape}")
    pull = general * classification.kl(lax.stop_gradient(original), attacked) + own * classification.kl(clean, attacked)
    return jnp.mean(classification.cross_entropy(attacked, labels) + pull)
