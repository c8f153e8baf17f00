"""Copies of labelled images as another examination might have taken them: turned, moved, scaled, of other contrast.

A head that is fitted on such copies besides learns what acquisition changes and a finding does not (vicinal risk
minimisation, Chapelle et al. 2000; Simard et al. 2003, section 2). The encoder stays frozen: copies cost one more
forward pass each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key

from ranjax.methods.method_settings import Variation


def vary(
    images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"], settings: Variation
) -> Float[Array, "batch height width channels"]:
    """Return one copy of each image f32 in [0, 1]; a copy depends on its image and its key alone.

    Turn, zoom and shift are about the centre, by bilinear interpolation, and edge pixels repeat beyond the border;
    contrast scales deviations from the image's mean, brightness is added, and the result is clipped to [0, 1].
    """

    def one(image: Float[Array, "height width channels"], key: Key[Array, ""]) -> Array:
        draws = jax.random.uniform(key, (6,), jnp.float32, -1.0, 1.0)
        height, width, channels = image.shape
        angle, scale = jnp.deg2rad(settings.turn) * draws[0], 1.0 + settings.zoom * draws[1]
        cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
        rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2 - settings.shift * height * draws[2]
        columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2 - settings.shift * width * draws[3]
        places = [cos * rows - sin * columns + (height - 1) / 2, sin * rows + cos * columns + (width - 1) / 2]
        planes = [map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(channels)]
        found = jnp.stack(planes, axis=-1)
        mean = jnp.mean(found)
        found = (found - mean) * (1.0 + settings.contrast * draws[4]) + mean + settings.brightness * draws[5]
        return jnp.clip(found, 0.0, 1.0)

    return jax.vmap(one)(images, keys)
