"""Standardised features: less their mean on training images, over their deviation there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ranjax.core.errors import DataError

CONSTANT = 1e-6
"""Features whose deviation is below this share of their size are constant but for rounding."""


class Standard(NamedTuple):
    """Mean and inverse deviation of each feature on training images; a constant one counts 0 ever after."""

    mean: Float[np.ndarray, "*encoders width"]
    inverse: Float[np.ndarray, "*encoders width"]

    def __call__(self, features: Shaped[np.ndarray, "*encoders examples width"]) -> Float[np.ndarray, "..."]:
        """Return standardised features, f64."""
        return (np.asarray(features, np.float64) - self.mean[..., None, :]) * self.inverse[..., None, :]


def standard_of(features: Shaped[np.ndarray, "*encoders examples width"], constant: bool = False) -> Standard:
    """Return the standardisation of training features, of one encoder or of several.

    Args:
      features: of the training examples.
      constant: whether features may be the same for every example, as all questions are where one alone is asked.

    Raises:
      DataError: features that are the same for every example, and may not be.
    """
    wide = np.asarray(features, np.float64)
    mean, deviation = wide.mean(-2), wide.std(-2)
    moving = deviation > CONSTANT * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    if not constant and not moving.any(axis=-1).all():
        count = wide.shape[-2]
        raise DataError(f"train features are the same for all {count} examples: there is nothing to learn from")
    return Standard(mean, np.where(moving, 1 / np.where(moving, deviation, 1.0), 0.0))
