"""Spectrum of a feature matrix (Chen et al. 2024, arXiv 2309.17002): singular values, SVE and LSVR."""

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
