"""Unit vectors, for JAX arrays and for NumPy ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def unit(vectors: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
    """Return rows divided by their L2 norm; a row of zeros stays zero and has zero gradient."""
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    zero = square == 0
    return jnp.where(zero, jnp.zeros_like(vectors), vectors * jax.lax.rsqrt(jnp.where(zero, 1, square)))


def unit_clamped(vectors: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
    """Return rows divided by their L2 norm or 1e-12, the larger one; a row of zeros stays zero, its gradient is finite.

    Equal to `unit` but for rounding in compiled gradients. Pre-training and attacks use it, so that recorded figures
    stay equal to the bit.
    """
    square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def unit_numpy(vectors: Float[np.ndarray, "*batch features"]) -> Float[np.ndarray, "*batch features"]:
    """Return rows divided by their L2 norm, as `unit` does; a row of zeros stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)
