"""The spectrum of a feature matrix (Chen et al. 2024, arXiv 2309.17002), and its plane of most variance for plots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from ranjax.core.errors import DataError


class Spectrum(NamedTuple):
    """A spectrum, with p_i = sigma_i / sum sigma.

    Attributes:
      sigma: singular values, descending.
      sve: singular value entropy, - sum p_i log p_i.
      lsvr: largest singular value ratio, - log p_1.
    """

    sigma: Float64[np.ndarray, "rank"]
    sve: float
    lsvr: float


def spectrum(features: ArrayLike, centred: bool = False) -> Spectrum:
    """Return the spectrum of features [N, D], in float64; `centred` subtracts the column means first.

    Raises:
      DataError: not a finite matrix, or all zero: the shares do not exist.
    """
    array = np.asarray(features, np.float64)
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise DataError(f"features have shape {array.shape}, expected a finite matrix [N, D]")
    if centred:
        array = array - array.mean(0, keepdims=True)
    sigma = np.linalg.svd(array, compute_uv=False)
    if not sigma.sum() > 0:
        raise DataError("features are all zero (or all rows equal, where centred): there is no spectrum")
    shares = sigma / sigma.sum()
    positive = shares[shares > 1e-15]
    return Spectrum(sigma, float(-(positive * np.log(positive)).sum()), float(-np.log(shares[0])))


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
