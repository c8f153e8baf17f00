"""A small separable low-pass filter in front of an image tower, as an optional part of its parameters.

A perturbation that is bounded pixel by pixel has most of its room in high spatial frequencies, where radiographs have
little to say; a filter in front takes that room away, at the price of fine detail. It is linear and part of the model:
an attack differentiates through it, so nothing is masked. Kept in the parameters under `NAME`, it goes wherever the
encoder goes; parameters without it mean none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.core.errors import ConfigError

NAME = "input_filter"
Filter = dict[str, jax.Array]


def gaussian(sigma: float) -> Filter:
    """Taps of a Gaussian: {"rows": f32[k], "columns": f32[k]}, k = 2 ceil(3 sigma) + 1, each summing to 1.

    Args:
      sigma: standard deviation in pixels, above 0.

    Raises:
      ConfigError: sigma is not a finite number above 0.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ConfigError("input_filter.sigma", sigma, "a finite number of pixels above 0")
    reach = math.ceil(3 * sigma)
    taps = np.exp(-np.square(np.arange(-reach, reach + 1)) / (2 * sigma**2))
    found = jax.device_put((taps / taps.sum()).astype(np.float32))
    return {"rows": found, "columns": found}


def apply(taps: Mapping[str, jax.Array | np.ndarray], images: jax.Array) -> jax.Array:
    """Images f[B, H, W, C] correlated with the taps along rows and columns; edge pixels repeat beyond the border.

    Each direction is a product with a banded matrix, which on small images is faster than a convolution and its
    transposes. Differentiable by taps and images.
    """
    down = _banded(jnp.asarray(taps["rows"], images.dtype), images.shape[1])
    across = _banded(jnp.asarray(taps["columns"], images.dtype), images.shape[2])
    return jnp.einsum("jw,bhwc->bhjc", across, jnp.einsum("ih,bhwc->biwc", down, images))


def _banded(taps: jax.Array, size: int) -> jax.Array:
    """[size, size]: row i holds the taps around i, those beyond an end added to it."""
    reach = taps.shape[0] // 2
    places = np.clip(np.arange(size)[:, None] + np.arange(-reach, taps.shape[0] - reach)[None, :], 0, size - 1)
    rows = np.broadcast_to(np.arange(size)[:, None], places.shape)
    values = jnp.broadcast_to(taps[None, :], places.shape)
    return jnp.zeros((size, size), taps.dtype).at[rows, places].add(values)
