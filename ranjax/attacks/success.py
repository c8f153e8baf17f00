"""Attack success on retrieval, by the two definitions of the literature, which share a name and differ."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ranjax.core.errors import DataError


class Success(NamedTuple):
    """Both definitions, from the same queries.

    Attributes:
      recall_drop: f32[], clean recall minus attacked recall (Co-Attack); may be negative.
      turned_wrong: f32[], share of the originally correct queries that turn wrong (SGA); NaN if none was correct.
    """

    recall_drop: jax.Array
    turned_wrong: jax.Array


def attack_success(clean_hits: Array, attacked_hits: Array) -> Success:
    """Return attack success from whether each query finds a match among its first k, before and after the attack.

    Queries that were wrong before count for nothing in `turned_wrong`; those that turn right offset others in
    `recall_drop`.

    Args:
      clean_hits, attacked_hits: bool[queries].

    Raises:
      DataError: shapes or dtypes that do not fit.
    """
    for hits in (clean_hits, attacked_hits):
        if hits.ndim != 1 or hits.shape != clean_hits.shape or hits.dtype != jnp.bool_:
            found = f"{clean_hits.dtype}{list(clean_hits.shape)} and {attacked_hits.dtype}{list(attacked_hits.shape)}"
            raise DataError(f"hits are {found}, expected bool[Q] both")
    clean, attacked = (jnp.sum(hits, dtype=jnp.float32) for hits in (clean_hits, attacked_hits))
    lost = jnp.sum(clean_hits & ~attacked_hits, dtype=jnp.float32)
    share = jnp.where(clean > 0, lost / jnp.maximum(clean, 1), jnp.nan)
    return Success((clean - attacked) / jnp.float32(clean_hits.shape[0]), share)
