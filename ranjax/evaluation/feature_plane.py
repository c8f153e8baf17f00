"""Two directions to look at features by: principal components, fitted on clean features and kept for attacked ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ranjax.core.errors import DataError


class Plane(NamedTuple):
    """Attributes: mean f64[D]; axes f64[D, 2], unit columns; explained f64[2], their shares of the variance."""

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    def project(self, features: Any) -> np.ndarray:
        """f64[N, 2] of features [N, D]."""
        return (np.asarray(features, np.float64) - self.mean[None]) @ self.axes


def principal_plane(features: Any) -> Plane:
    """The plane of most variance of features [N, D]; signs are fixed by each axis's largest entry being positive.

    Raises:
      DataError: fewer than 3 rows, fewer than 2 columns, entries that are not finite, or no variance.
    """
    array = np.asarray(features, np.float64)
    if array.ndim != 2 or array.shape[0] < 3 or array.shape[1] < 2 or not np.isfinite(array).all():
        raise DataError(f"features must be a finite matrix of at least 3 x 2, got shape {array.shape}")
    mean = array.mean(0)
    _, sigma, rows = np.linalg.svd(array - mean[None], full_matrices=False)
    total = float((sigma**2).sum())
    if not total > 0:
        raise DataError("all rows of the features are equal: there is no plane")
    axes = rows[:2].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(2)])[None]
    return Plane(mean, axes, sigma[:2] ** 2 / total)
