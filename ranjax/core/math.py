"""Unit vectors, for JAX arrays and for NumPy ones, and the dtype of what half precision would spoil."""

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


def unit_numpy(vectors: Float[np.ndarray, "*batch features"]) -> Float[np.ndarray, "*batch features"]:
    """Return rows divided by their L2 norm, as `unit` does; a row of zeros stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Return float32 for half precision, else `dtype` itself: the dtype of moments, softmax and pixel arithmetic."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
