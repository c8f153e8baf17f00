"""First-order gain of replacing a whole word, for words of any number of pieces.

With one piece each the gain is HotFlip's (Ebrahimi et al. 2018): ``(E_c - E_x) . g`` at the word's position, g the
gradient of the loss by the token's embedding. With p pieces x_0 .. x_{p-1} in the text and q pieces c_0 .. c_{q-1} in
the candidate, the pieces both have are compared one to one; the rest of the longer word is compared with the mean
embedding of the shorter one:

  sum_{j < min(p, q)} (E[c_j] - E[x_j]) . g_j
    + sum_{p <= j < q} (E[c_j] - mean_i E[x_i]) . g_{p-1}        (candidate longer)
    + sum_{q <= j < p} (mean_i E[c_i] - E[x_j]) . g_j            (candidate shorter)

That the tokens after the word move is left out. It is an approximation that only proposes; a forward pass decides.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ranjax.attacks.text.candidates import Table
from ranjax.attacks.text.words import Slots, TokenTable, pieces_at


class Features(NamedTuple):
    """Embeddings of every candidate: own pieces f[N, P*W], mean put at the length f[N, P*W] or None."""

    own: jax.Array
    mean: jax.Array | None


def candidate_features(table: TokenTable, candidates: Table) -> Features:
    """Return embeddings of all candidates in the layout of `word_gains`."""
    number, width = candidates.pieces.shape
    offset = jnp.arange(width, dtype=jnp.int32)
    inside = offset[None, :] < candidates.lengths[:, None]
    own = jnp.where(inside[..., None], table[candidates.pieces], 0.0)
    if width == 1:
        return Features(own[:, 0], None)
    mean = own.sum(1) / candidates.lengths[:, None].astype(own.dtype)
    at_length = jnp.where((offset[None, :] == candidates.lengths[:, None])[..., None], mean[:, None, :], 0.0)
    return Features(own.reshape(number, -1), at_length.reshape(number, -1))


def word_gains(
    table: TokenTable,
    features: Features,
    candidates: Table,
    tokens: Int[Array, "length"],
    gradient: Float[Array, "length width"],
    slots: Slots,
    lists: Int[Array | np.ndarray, "length columns"] | None,
) -> Float[Array, "length entries"]:
    """Return the gain of every allowed replacement in one row: f[L, N], or f[L, K] with `lists` i32[L, K].

    Args:
      table, tokens, slots: the token embeddings, and the row in them.
      features: of `candidate_features`.
      gradient: of the loss by the row's embeddings.
      lists: table indices per slot (negative entries give meaningless gains), or None for all.
    """
    width = candidates.pieces.shape[1]
    positions, inside = pieces_at(tokens, slots, width)
    present = table[tokens[positions]]  # [L, P, W]
    slope = gradient[positions]
    last = gradient[slots.start + jnp.maximum(slots.length - 1, 0)]
    here = inside[..., None]
    before = jnp.sum(jnp.where(here, slope * present, 0.0), axis=(1, 2))

    def product(left: Array, right: Array) -> Float[Array, "length entries"]:
        flat = left.reshape(left.shape[0], -1)
        if lists is None:
            return jnp.matmul(flat, right.T, precision="highest")
        return jnp.einsum("ld,lkd->lk", flat, right[jnp.maximum(lists, 0)], precision="highest")

    if features.mean is None:  # all candidates are of one piece
        return product(slope, features.own) - before[:, None]
    pieces = jnp.maximum(slots.length, 1)
    mean = jnp.sum(jnp.where(here, present, 0.0), axis=1) / pieces[:, None].astype(table.dtype)
    # slope of the pieces from j on, for every j: what a candidate of j pieces leaves uncovered
    rest = jnp.flip(jnp.cumsum(jnp.flip(jnp.where(here, slope, 0.0), 1), 1), 1)
    after = product(jnp.where(here, slope, last[:, None, :]), features.own) + product(rest, features.mean)
    length = candidates.lengths[None, :] if lists is None else candidates.lengths[jnp.maximum(lists, 0)]
    longer = jnp.maximum(length - slots.length[:, None], 0).astype(table.dtype)
    return after - before[:, None] - longer * jnp.sum(last * mean, axis=1)[:, None]
