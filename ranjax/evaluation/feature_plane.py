"""Two directions for plots of features: principal components, fitted on clean features and kept for attacked ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from ranjax.core.errors import DataError


class Plane(NamedTuple):
    """Attributes: mean of the features; axes, unit columns; explained, their shares of the variance."""

    mean: Float64[np.ndarray, "dim"]
    axes: Float64[np.ndarray, "dim 2"]
    explained: Float64[np.ndarray, "2"]

    def project(self, features: ArrayLike) -> Float64[np.ndarray, "examples 2"]:
        """Return the coordinates of features [N, D] in the plane."""
        return (np.asarray(features, np.float64) - self.mean[None]) @ self.axes


def principal_plane(features: ArrayLike) -> Plane:
    """Return the plane of most variance of features [N, D]; each axis's largest entry is positive, which fixes signs.

    Raises:
      DataError: fewer than 3 rows, fewer than 2 columns, entries that are not finite, or no variance.
    """
    array = np.asarray(features, np.float64)
    if array.ndim != 2 or array.shape[0] < 3 or array.shape[1] < 2 or not np.isfinite(array).all():
        raise DataError(f"features have shape {array.shape}, expected a finite matrix of at least 3 x 2")
    mean = array.mean(0)
    _, sigma, rows = np.linalg.svd(array - mean[None], full_matrices=False)
    total = float((sigma**2).sum())
    if not total > 0:
        raise DataError("all rows of the features are equal: there is no plane")
    axes = rows[:2].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(2)])[None]
    return Plane(mean, axes, sigma[:2] ** 2 / total)
