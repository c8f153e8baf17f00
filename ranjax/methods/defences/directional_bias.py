"""DBD: views of an attacked image move its feature one way, which is followed beyond them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.core.math import unit
from ranjax.methods.defences.defence_table import DirectionSettings
from ranjax.methods.defences.defended_model import Undefended
from ranjax.methods.defences.image_views import Images, crops, most_confident, noisy, of_views, pick


def directed(
    model: Undefended, images: Images, keys: Key[Array, "batch"], settings: DirectionSettings
) -> Float[Array, "batch classes"]:
    """Return logits of the feature moved along the mean displacement of its most confident views.

    DBD (Liu et al. 2026, arXiv 2606.06186, and their public code): with unit features, d_v = f_v - f, d their mean over
    the kept views and s the mean cosine of d_v to d, the answer is of f + d, or of f + `strength` d where s exceeds
    `threshold`. Other than there, views are crops with noise, and the result is given the length of the image's own
    feature, as a head reads more than its direction.
    """
    views = noisy(crops(images, keys, settings.views + 1, settings.smallest), keys, settings.noise)
    raw = of_views(model.features, views)
    features = unit(raw)
    chosen = most_confident(of_views(model.classify, raw[1:]), settings.kept)
    shifts = pick(features[1:], chosen) - features[:1]
    direction = jnp.mean(shifts, axis=0)
    score = jnp.mean(jnp.sum(unit(shifts) * unit(direction)[None], axis=-1), axis=0)
    factor = jnp.where(score > settings.threshold, settings.strength, 1.0).astype(direction.dtype)
    length = jnp.linalg.norm(raw[0], axis=-1, keepdims=True)
    return model.classify(unit(features[0] + factor[:, None] * direction) * length)
