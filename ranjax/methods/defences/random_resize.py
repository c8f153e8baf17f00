"""Defences that change images alone: a low-pass filter, and random resizing and padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.attacks.transforms import shrunk
from ranjax.methods.defences.defence_table import LowPassSettings, ResizeSettings
from ranjax.methods.defences.defended_model import Undefended
from ranjax.methods.defences.image_views import Images, of_views
from ranjax.models import input_filter


def low_pass(model: Undefended, images: Images, keys: Key[Array, "batch"], settings: LowPassSettings) -> Images:
    """Return images behind a Gaussian low-pass filter."""
    del model, keys
    return input_filter.apply(input_filter.gaussian(settings.sigma), images)


def random_resize(
    model: Undefended, images: Images, keys: Key[Array, "batch"], settings: ResizeSettings
) -> Float[Array, "batch classes"]:
    """Return the mean logits over draws of a side in [smallest, 1] and a place, padded by zeros.

    Xie et al. 2018 (arXiv 1711.01991), one draw. The side is continuous, and the size of the image stays, as position
    embeddings are of that size.
    """
    drawn = jax.vmap(lambda key: jax.random.split(key, settings.views), out_axes=1)(keys)
    views = jax.vmap(jax.vmap(lambda image, key: shrunk(image, key, settings.smallest)), in_axes=(None, 0))(
        images, drawn
    )
    return jnp.mean(of_views(model.logits, views), axis=0)
