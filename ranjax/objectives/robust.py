"""Objectives of robust fine-tuning: TeCoA, FARE and PMG-AFT, as pure functions of embeddings and logits.

Each is minimised over the encoder on attacked inputs x'. The caller makes x', usually by `ranjax.attacks.pgd` on the
loss that the paper names.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ranjax.core.math import unit
from ranjax.objectives import classification

Logits = Float[Array, "batch classes"]
Scale = Float[Array, ""] | float


def class_logits(images: Float[Array, "batch dim"], classes: Float[Array, "classes dim"], scale: Scale) -> Logits:
    """Return ``scale * cos(image, class)``; no gradient reaches `classes`."""
    return scale * (unit(images) @ lax.stop_gradient(unit(classes)).T)


def tecoa(
    attacked: Float[Array, "batch dim"],
    classes: Float[Array, "classes dim"],
    labels: Int[Array, "batch"],
    scale: Scale,
) -> Float[Array, ""]:
    """Return TeCoA's loss (Mao et al. 2023, arXiv 2212.07016): cross-entropy against frozen class prompts, in nats.

    x' raises the same loss.

    Args:
      attacked: image embeddings of x'.
      classes: text embeddings of the classes; no gradient reaches them.
      labels: in [0, classes).
      scale: exponentiated logit scale.
    """
    return jnp.mean(classification.cross_entropy(class_logits(attacked, classes, scale), labels))


def fare(attacked: Float[Array, "batch dim"], original: Float[Array, "batch dim"]) -> Float[Array, ""]:
    """Return FARE's loss (Schlarmann et al. 2024, arXiv 2402.12336): ``mean_i ||phi(x'_i) - phi_0(x_i)||_2^2``.

    x' raises the same distance. Labels are not needed.

    Args:
      attacked: embeddings of x' by the encoder in training, not normalised.
      original: embeddings of x by the encoder before training; no gradient reaches them.
    """
    if attacked.shape != original.shape:
        raise ValueError(f"fare needs two arrays of one shape [B, D], got {attacked.shape} and {original.shape}")
    return jnp.mean(jnp.sum(jnp.square(attacked - lax.stop_gradient(original)), axis=1))


def pmg_aft(
    attacked: Logits,
    clean: Logits,
    original: Logits,
    labels: Int[Array, "batch"],
    general: Scale = 1.0,
    own: Scale = 1.0,
) -> Float[Array, ""]:
    """Return PMG-AFT's loss (Wang et al. 2024, arXiv 2401.04350): cross-entropy on x' and two pulls.

    ``CE(x', y) + general KL(p_0(x') || p(x')) + own KL(p(x) || p(x'))`` pulls class probabilities towards the model
    before training (p_0, without gradient) and towards the model's own clean prediction, through which gradients do
    flow. Inputs and directions are those of the authors' public code (PMG_AFT.py, `train`: ``loss_advori`` compares
    both models on the attacked images). There cross-entropy is a mean over the batch but both divergences are sums, so
    that with its batch of 256 the pulls weigh 256; here all three are means, as in the paper's ``L_robust + alpha
    L_general + beta L_clean``, and ``general = own = 256`` gives the code's weighting.

    Args:
      attacked, clean, original: logits of x', of x, and of x' by the model before training.
      labels: in [0, classes).
      general, own: weights of the two pulls.
    """
    if not attacked.shape == clean.shape == original.shape:
        raise ValueError(
            f"pmg_aft needs three arrays of one shape, got {attacked.shape}, {clean.shape} and {original.shape}"
        )
    pull = general * classification.kl(lax.stop_gradient(original), attacked) + own * classification.kl(clean, attacked)
    return jnp.mean(classification.cross_entropy(attacked, labels) + pull)
