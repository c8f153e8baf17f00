"""Whole words inside rows of tokens: where each one lies, and how to replace one.

All functions take one row of fixed length L (vmap them over a batch) and keep every shape static, so that they run
inside jit. A *slot* is the index of a word in its row, ``0 .. L-1``; `words` names the slot of every token, -1 on
special tokens and padding. The tokens of one word are neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

TokenTable = Float[Array, "vocabulary width"]
TokenRows = Int[Array, "batch length"]
MaskRows = Bool[Array, "batch length"]
Embedded = Float[Array, "batch length width"]
PerRow = Float[Array, "batch"]


class Slots(NamedTuple):
    """The place of every word of one row; slots beyond the last word have length 0.

    Attributes:
      start: i32[L], position of the word's first token (0 where the slot is empty).
      length: i32[L], number of its tokens.
    """

    start: jax.Array
    length: jax.Array


class Row(NamedTuple):
    """One row of text: tokens i32[L], mask bool[L] (True on real tokens), words i32[L] (slot of each token, or -1)."""

    tokens: jax.Array
    mask: jax.Array
    words: jax.Array


def find_slots(words: Int[Array, "length"]) -> Slots:
    """Return start and length of every word of one row."""
    slot = jnp.arange(words.shape[0], dtype=jnp.int32)
    here = words[None, :] == slot[:, None]
    return Slots(jnp.argmax(here, axis=1).astype(jnp.int32), jnp.sum(here, axis=1, dtype=jnp.int32))


def real_length(mask: Bool[Array, "length"]) -> Int[Array, ""]:
    """Return one past the last real token of one row."""
    return jnp.max(jnp.where(mask, jnp.arange(1, mask.shape[0] + 1, dtype=jnp.int32), 0))


def pieces_at(
    tokens: Int[Array, "length"], slots: Slots, width: int
) -> tuple[Int[Array, "length width"], Bool[Array, "length width"]]:
    """Return the positions of the first `width` tokens of every slot, clipped into the row, and which are the
    word's.
    """
    offset = jnp.arange(width, dtype=jnp.int32)
    positions = jnp.minimum(slots.start[:, None] + offset[None, :], tokens.shape[0] - 1)
    return positions, offset[None, :] < slots.length[:, None]


def replace_word(
    row: Row,
    slot: Int[Array, ""],
    slots: Slots,
    pieces: Int[Array, "pieces"],
    length: Int[Array, ""],
    pad_id: Int[Array, ""],
) -> Row:
    """Put another word into one slot of one row and shift the rest.

    The caller has checked that the row has room: ``real_length + length - slots.length[slot] <= L``.

    Args:
      row, slot, slots: the row to change, and the word of it to replace.
      pieces, length: tokens of the new word, of which the first `length` count.
      pad_id: token written where a shorter word leaves room at the end.
    """
    size = row.tokens.shape[0]
    start, shift = slots.start[slot], length - slots.length[slot]
    position = jnp.arange(size, dtype=jnp.int32)
    inside = (position >= start) & (position < start + length)
    source = jnp.where(position < start, position, position - shift)
    kept = source < size  # beyond: room that a shorter word leaves at the end
    source = jnp.clip(source, 0, size - 1)
    new = pieces[jnp.clip(position - start, 0, pieces.shape[0] - 1)]
    tokens = jnp.where(inside, new, jnp.where(kept, row.tokens[source], pad_id))
    mask = inside | (kept & row.mask[source])
    words = jnp.where(inside, slot, jnp.where(kept, row.words[source], -1))
    return Row(tokens, mask, words)
