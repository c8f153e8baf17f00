"""R-TPT on embeddings: minimise the entropy of confident views, and weigh views by how much they agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.methods.defences.defence_table import EntropySettings
from ranjax.methods.defences.defended_model import Undefended
from ranjax.methods.defences.image_views import Images, agreement, crops, entropy, most_confident, of_views, pick

TINY = 1e-12
"""Keeps the length of a gradient of 0 differentiable."""


def tuned_by_entropy(
    model: Undefended, images: Images, keys: Key[Array, "batch"], settings: EntropySettings
) -> Float[Array, "batch classes"]:
    """Return logits after tuning at test time; the gradient by images passes through the tuning, unrolled.

    R-TPT (Sheng et al. 2025, arXiv 2504.11195): the pointwise entropies of the most confident views are minimised, and
    the tuned logits of all views are averaged with weights by `agreement`. Other than there, what is tuned is a shift
    of the embedding, common to an image's views, not the tokens of a prompt: a head has no prompt. A step goes along
    the gradient with a length of its own, not Adam's, whose first step is the gradient's sign and has no slope.
    """
    features = of_views(model.features, crops(images, keys, settings.views, settings.smallest))
    chosen = most_confident(of_views(model.classify, features), settings.confident)
    used = pick(features, chosen)
    length = jnp.linalg.norm(features[0], axis=-1, keepdims=True)

    def uncertainty(shift: Array) -> Array:
        return jnp.sum(jnp.mean(entropy(of_views(model.classify, used + shift[None])), axis=0))

    shift = jnp.zeros_like(features[0])
    for _ in range(settings.steps):
        slope = jax.grad(uncertainty)(shift)
        shift = shift - settings.rate * length * slope / jnp.sqrt(jnp.sum(slope**2, axis=-1, keepdims=True) + TINY)
    tuned = of_views(model.classify, features + shift[None])
    weights = agreement(features, settings.neighbours, settings.temperature)
    return jnp.sum(weights[:, :, None] * tuned, axis=0)
