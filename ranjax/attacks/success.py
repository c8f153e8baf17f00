"""Attack success on retrieval, by the two definitions of the literature, which share a name and differ."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Success(NamedTuple):
    """Both definitions, from the same queries.

    Attributes:
      recall_drop: f32[], clean recall minus attacked recall (Co-Attack); may be negative.
      turned_wrong: f32[], share of the originally correct queries that turn wrong (SGA); NaN if none was correct.
    """

    recall_drop: jax.Array
    turned_wrong: jax.Array


def attack_success(clean_hits: jax.Array, attacked_hits: jax.Array) -> Success:
    """Attack success from whether each query finds a match among its first k, before and after the attack.

    Queries that were wrong before count for nothing in `turned_wrong`; those that turn right offset others in
    `recall_drop`.

    Args:
      clean_hits: bool[Q]; attacked_hits: bool[Q].

    Raises:
      ValueError: shapes or dtypes that do not fit.
    """
    if clean_hits.ndim != 1 or clean_hits.shape != attacked_hits.shape:
        raise ValueError(f"hits must both be [Q], got shapes {clean_hits.shape} and {attacked_hits.shape}")
    if clean_hits.dtype != jnp.bool_ or attacked_hits.dtype != jnp.bool_:
        raise ValueError(f"hits must be bool, got {clean_hits.dtype} and {attacked_hits.dtype}")
    queries = jnp.float32(clean_hits.shape[0])
    clean = jnp.sum(clean_hits, dtype=jnp.float32)
    attacked = jnp.sum(attacked_hits, dtype=jnp.float32)
    lost = jnp.sum(clean_hits & ~attacked_hits, dtype=jnp.float32)
    share = jnp.where(clean > 0, lost / jnp.maximum(clean, 1), jnp.nan)
    return Success((clean - attacked) / queries, share)
