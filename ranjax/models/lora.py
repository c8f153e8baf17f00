"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685): low-rank changes of linear maps, as pure functions.

Adapters are a nested dict of their own, ``{"down": [in, r], "up": [r, out]}`` at the place of each adapted kernel, so
an optimiser sees them alone and the base stays bit-equal.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.checkpoints.naming import nest, paths
from ranjax.models.trainable import combine

# Attention and MLP of every block of every tower.
ATTENTION_AND_MLP = r"blocks/.*/(attention|mlp)/[^/]+/kernel$"


def add(
    params: Params,
    rank: int,
    key: jax.Array,
    pattern: str = ATTENTION_AND_MLP,
    named: tuple[str, str] = ("lora.pattern", "lora.rank"),
) -> Params:
    """Return fresh adapters for every kernel whose path holds `pattern`.

    `down` is drawn from U(-1/sqrt(in), 1/sqrt(in)) (torch's default for a linear map, as in the authors' code) and `up`
    is zero, so that the first forward pass equals the base's.

    Args:
      params: parameters of an encoder.
      rank: r, at least 1 and below both sides of every adapted kernel.
      key: random key; each adapter's depends on its place in the tree alone.
      pattern: regular expression on "vision/blocks/layers/0/attention/query/kernel".
      named: what messages call pattern and rank.

    Raises:
      ConfigError: a pattern that meets no matrix, or a rank that does not fit.
    """
    kernels = {path: leaf for path, leaf in paths(dict(params)).items() if re.search(pattern, "/".join(path))}
    kernels = {path: leaf for path, leaf in kernels.items() if leaf.ndim == 2}
    if not kernels:
        raise ConfigError(named[0], pattern, "a pattern that meets the path of some matrix")
    least = min(min(leaf.shape) for leaf in kernels.values())
    if not 1 <= rank < least:
        raise ConfigError(named[1], rank, f"1 to {least - 1}, below both sides of every adapted matrix")
    flat = {}
    for path, part in zip(kernels, jax.random.split(key, len(kernels))):
        kernel = kernels[path]
        inputs, outputs = kernel.shape
        bound = inputs**-0.5
        flat[(*path, "down")] = jax.random.uniform(part, (inputs, rank), kernel.dtype, -bound, bound)
        flat[(*path, "up")] = jnp.zeros((rank, outputs), kernel.dtype)
    return nest(flat)


def apply(params: Params, adapters: Params, alpha: float | None = None) -> Params:
    """Return the parameters with ``kernel + (alpha / r) * down @ up``; differentiable by both.

    Args:
      params: the base.
      adapters: from `add`.
      alpha: LoRA's scale; None means r, a factor of 1.
    """
    return merge(params, adapters, alpha)[0]


def merge(params: Params, adapters: Params, alpha: float | None = None) -> tuple[Params, Params]:
    """Return the parameters with the adapters inside, and the kernels that they replaced.

    Floating-point sums cannot be undone exactly by subtraction; keeping the replaced kernels makes `unmerge` exact.
    """
    flat, changes = paths(dict(params)), paths(dict(adapters))
    replaced = {path[:-1]: flat[path[:-1]] for path in changes if path[-1] == "down"}
    for path, kernel in replaced.items():
        down, up = changes[(*path, "down")], changes[(*path, "up")]
        factor = 1.0 if alpha is None else alpha / down.shape[1]
        flat[path] = kernel + factor * jnp.matmul(down, up)
    return nest(flat), nest(replaced)


def unmerge(merged: Params, replaced: Params) -> Params:
    """Return the base again, bit for bit, from what `merge` returned."""
    return combine(merged, replaced)
