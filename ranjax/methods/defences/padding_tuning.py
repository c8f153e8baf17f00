"""TTP: detect an attack by what a border does to the feature, and answer behind a border that is tuned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.core.errors import ConfigError
from ranjax.core.math import unit
from ranjax.methods.defences.defence_table import PaddingSettings
from ranjax.methods.defences.defended_model import Undefended
from ranjax.methods.defences.image_views import (
    Images,
    agreement,
    border_of,
    crops,
    entropy,
    most_confident,
    of_views,
    padded_within,
    pick,
)

TINY = 1e-12
"""Keeps the division by a slope of 0 finite."""


def cosine_behind_border(model: Undefended, images: Images, border: int) -> Float[Array, "batch"]:
    """Return the cosine of an image's feature to that of the image in a black border."""
    plain, framed = model.features(images), model.features(padded_within(images, border))
    return jnp.sum(unit(plain) * unit(framed), axis=-1)


def padded(
    model: Undefended, images: Images, keys: Key[Array, "batch"], settings: PaddingSettings
) -> Float[Array, "batch classes"]:
    """Return the model's own logits of images taken as clean, and those behind a tuned border of the others.

    TTP (Li et al. 2025, arXiv 2512.16523). Random crops share one border, black at first, which descends the mean
    entropy of the most confident of them; their logits are averaged by `agreement`. The paper's code was not public:
    widths, rates and threshold are ours, a step's greatest change is its rate, and the image is shrunk into the border,
    as position embeddings are of its size. The attacker's gradient passes through the tuning, unrolled.

    Raises:
      ConfigError: a border that leaves nothing of the image.
    """
    if 2 * settings.border >= min(images.shape[1:3]):
        expected = f"less than half of the image's {min(images.shape[1:3])} pixels"
        raise ConfigError("ttp.border", settings.border, expected)
    views = crops(images, keys, settings.views, settings.smallest)
    inner = of_views(lambda x: padded_within(x, settings.border), views)
    place = border_of(images, settings.border)

    def features_at(border: Array, parts: Array) -> Array:
        return of_views(model.features, parts + (place * border)[None])

    def uncertainty(border: Array, parts: Array) -> Array:
        return jnp.sum(jnp.mean(entropy(of_views(model.classify, features_at(border, parts))), axis=0))

    border = jnp.zeros_like(images)
    first = features_at(border, inner)
    chosen = pick(inner, most_confident(of_views(model.classify, first), settings.confident))
    for _ in range(settings.steps):
        slope = jax.grad(uncertainty)(border, chosen)
        greatest = jnp.max(jnp.abs(slope), axis=(1, 2, 3), keepdims=True)
        border = jnp.clip(border - settings.rate * slope / (greatest + TINY), 0, 1)
    features = features_at(border, inner)
    weights = agreement(features, settings.views, settings.temperature)
    adapted = jnp.sum(weights[:, :, None] * of_views(model.classify, features), axis=0)
    plain = model.features(images)
    # The first view is the image itself, behind the black border before any tuning.
    clean = jnp.sum(unit(plain) * unit(first[0]), axis=-1) >= settings.threshold
    return jnp.where(clean[:, None], model.classify(plain), adapted)
