"""What a head may read of an image tower besides its embedding: its last tokens on a small grid, or all its blocks.

A tower gives its states by `Tower.states`; this module makes vectors of one width of them, whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

GRID = 4
"""Places on a side that tokens are averaged to at most."""


class State(NamedTuple):
    """The activations behind one block, or one stage, of an image tower.

    Attributes:
      places: of each patch, or each place of a map.
      token: the class token, or None for a tower, or a stage, without one.
      pooled: the vector that a tower without a class token pools its last state to; elsewhere None.
    """

    places: Float[Array, "batch rows columns width"]
    token: Float[Array, "batch width"] | None = None
    pooled: Float[Array, "batch outputs"] | None = None


def tokens(states: Sequence[State]) -> Float[Array, "batch features"]:
    """Return the last state's places averaged to a grid of 4 x 4 at most, flattened, and the class token or, without
    one, the tower's pooled vector.
    """
    last = states[-1]
    grid = averaged(last.places, GRID)
    summary = last.pooled if last.token is None else last.token
    parts = [grid.reshape(grid.shape[0], -1), *([] if summary is None else [summary])]
    return jnp.concatenate(parts, axis=1)


def sequence(states: Sequence[State]) -> Float[Array, "batch places width"]:
    """Return the last state as a sequence for attention: class token, or pooled vector of the same width, then places
    averaged to a grid of 4 x 4 at most, in reading order.
    """
    last = states[-1]
    grid = averaged(last.places, GRID)
    places = grid.reshape(grid.shape[0], -1, grid.shape[-1])
    summary = last.pooled if last.token is None else last.token
    if summary is None or summary.shape[1] != places.shape[2]:
        return places
    return jnp.concatenate([summary[:, None], places], axis=1)


def blocks(states: Sequence[State]) -> Float[Array, "batch features"]:
    """Return the class token, where there is one, and the mean and the greatest value over all places, of every
    state.
    """
    parts: list[Array] = []
    for state in states:
        parts += [] if state.token is None else [state.token]
        parts += [jnp.mean(state.places, axis=(1, 2)), jnp.max(state.places, axis=(1, 2))]
    return jnp.concatenate(parts, axis=1)


def averaged(places: Float[Array, "batch rows columns width"], size: int) -> Float[Array, "batch down across width"]:
    """Average a map to `size` places on a side, as torch's adaptive average pooling does; smaller sides stay."""
    down, across = (jnp.asarray(_shares(side, size), places.dtype) for side in places.shape[1:3])
    return jnp.einsum("jw,biwc->bijc", across, jnp.einsum("ih,bhwc->biwc", down, places))


def _shares(side: int, size: int) -> Float[np.ndarray, "size side"]:
    """Place i of `size` is the mean of floor(i side / size) to ceil((i + 1) side / size)."""
    size = min(side, size)
    shares = np.zeros((size, side), np.float32)
    for i in range(size):
        start, stop = i * side // size, -(-(i + 1) * side // size)
        shares[i, start:stop] = 1 / (stop - start)
    return shares
