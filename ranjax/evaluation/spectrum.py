"""Spectrum of a feature matrix (Chen et al. 2024, arXiv 2309.17002): singular values, SVE and LSVR."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ranjax.core.errors import DataError


class Spectrum(NamedTuple):
    """A spectrum, with p_i = sigma_i / sum sigma.

    Attributes:
      sigma: f64[min(N, D)], descending.
      sve: singular value entropy, - sum p_i log p_i.
      lsvr: largest singular value ratio, - log p_1.
    """

    sigma: np.ndarray
    sve: float
    lsvr: float


def spectrum(features: Any, centred: bool = False) -> Spectrum:
    """The spectrum of features [N, D], in float64; `centred` subtracts the column means first.

    Raises:
      DataError: not a finite matrix, or all zero, where the shares do not exist.
    """
    array = np.asarray(features, np.float64)
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise DataError(f"features must be a finite matrix [N, D], got shape {array.shape}")
    if centred:
        array = array - array.mean(0, keepdims=True)
    sigma = np.linalg.svd(array, compute_uv=False)
    if not sigma.sum() > 0:
        raise DataError("features are all zero (or all rows equal, where centred): there is no spectrum")
    shares = sigma / sigma.sum()
    positive = shares[shares > 1e-15]
    return Spectrum(sigma, float(-(positive * np.log(positive)).sum()), float(-np.log(shares[0])))
