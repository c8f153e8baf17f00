"""Named random streams.

Every random draw in ranjax comes from ``stream(seed, name)``, then a step or an example id is folded in. So what an
example receives depends neither on its batch-mates nor on the number of devices, workers or batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Key


def stable_hash(text: str) -> int:
    """Return a 32-bit hash of `text` that is the same in every process and on every machine (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def stream(seed: int, name: str) -> Key[Array, ""]:
    """Return the random key of the stream `name` under `seed`: a scalar typed key."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(stable_hash(name)))


def example_keys(key: Key[Array, ""], ids: Sequence[str]) -> Key[Array, " batch"]:
    """Return one key per example id: ``fold_in(key, stable_hash(id))``."""
    hashes = np.array([stable_hash(i) for i in ids], dtype=np.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, hashes)
