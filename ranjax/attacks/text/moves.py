"""Moves of a search on words beside replacement: a word put in after another one, and a word left out.

A choice of a slot is one number: entry c of a table of N words replaces the slot's word as c, follows it as N + c, and
2 N leaves it out. The slot keeps its number either way, and holds two words or none.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ranjax.attacks.text.candidates import Table
from ranjax.attacks.text.words import Row, Slots, TokenTable, pieces_at, real_length, replace_word

MOVES = ("replace", "insert", "delete")


def decode(choice: int, words: int) -> tuple[str, int]:
    """Return the move and the table index (-1 of "delete") of a choice among a table of that many words."""
    kind = MOVES[min(choice // words, 2)]
    return kind, -1 if kind == "delete" else choice % words


def more_gains(
    table: TokenTable,
    entries: Table,
    row: Row,
    gradient: Float[Array, "length width"],
    slots: Slots,
    entry: Int[Array, "rows entries"],
    present: Int[Array, "length"],
    moves: tuple[str, ...],
) -> tuple[list[Float[Array, "length columns"]], list[Int[Array, "length columns"]]]:
    """Return first-order gains of putting words in and of leaving words out, -inf where not allowed, and the choices.

    As of a longer and of a shorter candidate in `gains`: what is put in is compared with the mean embedding of the word
    before it, and what is left out with nothing.
    """
    number, width = entries.pieces.shape
    positions, inside = pieces_at(row.tokens, slots, width)
    own = jnp.where(inside[..., None], table[row.tokens[positions]], 0)
    length = slots.length.shape[0]
    gains, choices = [], []
    if "insert" in moves:
        last = gradient[slots.start + jnp.maximum(slots.length - 1, 0)]
        mean = own.sum(1) / jnp.maximum(slots.length, 1)[:, None].astype(own.dtype)
        real = jnp.arange(width, dtype=jnp.int32)[None, :] < entries.lengths[:, None]
        sums = jnp.where(real[..., None], table[entries.pieces], 0).sum(1)
        known = jnp.broadcast_to(jnp.maximum(entry, 0), (length, entry.shape[1]))
        all_gains = jnp.matmul(last, sums.T, precision="highest")
        less = jnp.sum(last * mean, axis=1)[:, None] * entries.lengths[known].astype(own.dtype)
        room = row.tokens.shape[0] - real_length(row.mask)
        allowed = (entry >= 0) & entries.insertable[known] & (known != present[:, None])
        allowed &= entries.lengths[known] <= room
        gains.append(jnp.where(allowed, jnp.take_along_axis(all_gains, known, axis=1) - less, -jnp.inf))
        choices.append(number + known)
    if "delete" in moves:
        slope = jnp.where(inside[..., None], gradient[positions], 0)
        words_left = jnp.sum(slots.length > 0, dtype=jnp.int32)
        gain = -jnp.sum(own * slope, axis=(1, 2))[:, None]
        gains.append(jnp.where(words_left > 1, gain, -jnp.inf))
        choices.append(jnp.full((length, 1), 2 * number, jnp.int32))
    return gains, choices


def put(entries: Table, row: Row, slot: Int[Array, "forms"], slots: Slots, choice: Int[Array, "forms"]) -> Row:
    """Return forms of one row, arrays [forms, L]: in each, the move `choice` is done in `slot`."""
    number, width = entries.pieces.shape
    positions, _ = pieces_at(row.tokens, slots, width)
    place = jnp.arange(2 * width, dtype=jnp.int32)

    def one(slot: Int[Array, ""], choice: Int[Array, ""]) -> Row:
        kind, entry = choice // number, choice % number
        held = jnp.where(kind == 1, slots.length[slot], 0)
        own = row.tokens[positions[slot]][jnp.minimum(place, width - 1)]
        new = entries.pieces[entry][jnp.clip(place - held, 0, width - 1)]
        count = jnp.where(kind == 2, 0, held + entries.lengths[entry])
        return replace_word(row, slot, slots, jnp.where(place < held, own, new), count, entries.pad_id)

    return jax.vmap(one)(slot, choice)


def allowed_slots(
    open_: Bool[Array, "length"], used: Bool[Array, "length"], gains: Float[Array, "length columns"]
) -> Array:
    """Return gains with -inf in slots that may not change, and where there is no number."""
    return jnp.where((open_ & ~used)[:, None] & ~jnp.isnan(gains), gains, -jnp.inf)
