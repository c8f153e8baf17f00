"""Named random streams.

Every random draw in ranjax comes from ``stream(seed, name)``, then a step or an example id is folded in. So what an
example receives depends neither on its batch-mates nor on the number of devices, workers or batches.

Keys are derived on the host, by the integer arithmetic of Threefry (Salmon et al. 2011) that JAX itself uses: the same
bits as `jax.random.key` and `jax.random.fold_in`, without a compiled program for each number of keys.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Shaped, UInt32

Words = UInt32[np.ndarray, "..."]
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_LEAST = 2**17
"""Normals that `normal` draws at a time at least: one program then serves nearly every array of a small model."""


def stable_hash(text: str) -> int:
    """Return a 32-bit hash of `text` that is the same in every process and on every machine (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def stream(seed: int, name: str) -> Key[Array, ""]:
    """Return the random key of the stream `name` under `seed`: a scalar typed key."""
    if not _threefry():
        return jax.random.fold_in(jax.random.key(seed), np.uint32(stable_hash(name)))
    # As JAX: without 64-bit integers, only the lower half of a seed counts.
    high = (seed >> 32) & 0xFFFFFFFF if _option("jax_enable_x64") else 0
    return _typed(_folded(np.array([high, seed & 0xFFFFFFFF], np.uint32), np.uint32(stable_hash(name))))


def streams(seeds: Sequence[int], name: str) -> Key[Array, " seeds"]:
    """Return the random keys of the stream `name` under each of several seeds."""
    return _typed(np.stack([_data(stream(seed, name)) for seed in seeds]))


def fold_in(key: Key[Array, ""], number: int) -> Key[Array, ""]:
    """Return ``jax.random.fold_in(key, number)`` of a number from 0 to 2^32 - 1."""
    if _on_host(key):
        return _typed(_folded(_data(key), np.uint32(number)))
    return jax.random.fold_in(key, np.uint32(number))


def example_keys(key: Key[Array, ""], ids: Sequence[str]) -> Key[Array, " batch"]:
    """Return one key per example id: ``fold_in(key, stable_hash(id))``."""
    hashes = np.array([stable_hash(i) for i in ids], dtype=np.uint32)
    if _on_host(key):
        return _typed(_folded(_data(key), hashes))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, hashes)


def take(keys: Key[Array, " keys"], index: Shaped[np.ndarray, "..."]) -> Key[Array, " taken"]:
    """Return ``keys[index]`` of keys on the host, without a program."""
    return jax.random.wrap_key_data(jax.device_put(_data(keys)[index]), impl=jax.random.key_impl(keys))


def normal(key: Key[Array, ""], shape: tuple[int, ...], std: float = 1.0) -> Float[Array, "..."]:
    """Return ``std * jax.random.normal(key, shape)`` in float32, to the bit, by one program for all smaller shapes.

    A draw depends on its place alone (partitionable Threefry), so that a longer row begins with a shorter one.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if _on_host(key) and _option("jax_threefry_partitionable"):
        row = _row(key, max(_LEAST, 1 << (size - 1).bit_length()))
        if not isinstance(row, jax.core.Tracer):
            return jax.device_put(np.float32(std) * np.asarray(row)[:size].reshape(shape))
    return std * jax.random.normal(key, shape, jnp.float32)


@functools.partial(jax.jit, static_argnums=1)
def _row(key: Key[Array, ""], size: int) -> Float[Array, "{size}"]:
    return jax.random.normal(key, (size,), jnp.float32)


def _option(name: str) -> Any:
    """Return an option of JAX, as a context manager may have set it; its stubs know none of them."""
    return getattr(jax.config, name)


def _threefry() -> bool:
    return str(_option("jax_default_prng_impl")) == "threefry2x32" and not _option("jax_random_seed_offset")


def _on_host(key: Array) -> bool:
    """Return whether a key's words can be read here, and are Threefry's."""
    here = not isinstance(key, jax.core.Tracer) and key.is_fully_addressable
    return here and str(jax.random.key_impl(key)) == "threefry2x32"


def _data(key: Array) -> Words:
    return np.asarray(jax.random.key_data(key))


def _typed(data: Words) -> Array:
    return jax.random.wrap_key_data(jax.device_put(data), impl="threefry2x32")


def _folded(key: Words, numbers: ArrayLike) -> Words:
    """Return u32[..., 2], the words of ``fold_in(key, number)`` for each number."""
    numbers = np.asarray(numbers, np.uint32)
    parts = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0]) ^ np.uint32(key[1]) ^ np.uint32(0x1BD11BDA)]
    with np.errstate(over="ignore"):
        x, y = np.broadcast_to(parts[0], numbers.shape).copy(), numbers + parts[1]
        for number in range(5):
            for rotation in _ROTATIONS[number % 2]:
                x = x + y
                y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
            x = x + parts[(number + 1) % 3]
            y = y + parts[(number + 2) % 3] + np.uint32(number + 1)
    return np.stack([x, y], axis=-1)
