"""Pixels and lengths in pixel units: the one place that turns 8- or 16-bit integers to floats in [0, 1] and back.

Images are integers where they are stored and floats in [0, 1] where they are computed with. A length (epsilon, a step)
is in the units of the latter, and may be written "8/255".
"""

from __future__ import annotations

import contextlib
import fractions
import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16

from ranjax.core.errors import ConfigError

if TYPE_CHECKING:  # the command line parses epsilon, and must not wait for JAX
    import jax

GRID = 65535
"""Steps from 0 to 1 of stored perturbations: 257 steps are one of an 8-bit image, so every n/255 lies on the grid."""


def as_float(images: jax.Array) -> jax.Array:
    """Return 8-bit images as f32 in [0, 1], and float ones as they are; traceable.

    Dividing on the device moves a quarter of the bytes there.
    """
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def to_float(images: UInt8[np.ndarray, ...] | UInt16[np.ndarray, ...]) -> Float32[np.ndarray, ...]:
    """Return stored pixels as f32 in [0, 1]: 8-bit values over 255, 16-bit values over 65535.

    257 u / 65535 and u / 255 are one number and round to the same float, so an untouched pixel reads alike from both.

    Raises:
      ValueError: another dtype.
    """
    if images.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"images have dtype {images.dtype}, expected uint8 or uint16")
    # Divided in place: a second array of a batch's size costs more than the division.
    floats = images.astype(np.float32)
    floats /= np.float32(np.iinfo(images.dtype).max)
    return floats


def to_uint8(images: Float[np.ndarray, ...]) -> UInt8[np.ndarray, ...]:
    """Return images in [0, 1] rounded to 8 bits; over 255 again, none is off by more than 0.5/255."""
    return np.round(images * 255).astype(np.uint8)


def pixel_units(value: object, key: str = "epsilon") -> float:
    """Return a length in pixel units from a number, a fraction, or text such as "0.03" or "8/255".

    Raises:
      ConfigError: named `key`: no number, not finite, or a division by zero.
    """
    number = math.nan
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        with contextlib.suppress(ValueError, ZeroDivisionError):
            number = float(above) / float(below) if slash else float(above)
    elif isinstance(value, (int, float, fractions.Fraction, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
    if not math.isfinite(number):
        raise ConfigError(key, value, "a number in pixel units, e.g. 0.03 or '8/255'")
    return number
