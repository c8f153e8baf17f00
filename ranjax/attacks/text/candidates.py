"""A table of candidate words as pieces, with the allowed replacements of every word.

On the host, `build` turns a list of words and any tokenizer's encode function into a `Lexicon`; its `table` is arrays
alone and travels into jit. Restrictions are lists of table indices per original word, -1 filled: `neighbours` in an
embedding, a `thesaurus`, a masked language model (`masked_lm_lists`), and intersections of them (`intersect`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from ranjax.attacks.text.words import Row, Slots, TokenRows, find_slots, pieces_at, real_length, replace_word
from ranjax.core.errors import ConfigError, DataError


class Table(NamedTuple):
    """Candidate words as arrays; a pytree, to be passed as an argument of jitted functions.

    Attributes:
      pieces: i32[N, P], tokens of every word, `pad_id` beyond its length.
      lengths: i32[N], 1 .. P.
      replaceable: bool[N], whether the word may be replaced where it stands in a text.
      insertable: bool[N], whether the word may be put in place of another.
      lists: i32[N, K] or None, table indices that may replace the word, -1 filled; None: every insertable word.
      hashes: u32[N], ascending hashes of the pieces, and order: i32[N], the word that each of them belongs to.
      multiplier: u32[], of the hash.
      pad_id: i32[], the padding token.
      classes: u32[N] or None, a bit for each class that a word is in: words that share none do not replace each other,
        where both have one; see `candidate_sources.class_bits`.
    """

    pieces: jax.Array
    lengths: jax.Array
    replaceable: jax.Array
    insertable: jax.Array
    lists: jax.Array | None
    hashes: jax.Array
    order: jax.Array
    multiplier: jax.Array
    pad_id: jax.Array
    classes: jax.Array | None = None


class Candidates(NamedTuple):
    """A table with its entries for the words of a batch of rows.

    Attributes:
      table: the table.
      present: i32[B, L], table index of the word in each slot of the original rows, -1 where there is none.
      open: bool[B, L], slots that may be replaced.
      lists: i32[B, L, K] or None, table indices allowed per slot, -1 filled; None: every insertable word.
    """

    table: Table
    present: jax.Array
    open: jax.Array
    lists: jax.Array | None


class Lexicon(NamedTuple):
    """The words of a table on the host: ``words[i]`` is the text of table entry i."""

    words: tuple[str, ...]
    table: Table

    def indices(self) -> dict[str, int]:
        """Return the table index of every word."""
        return {word: i for i, word in enumerate(self.words)}


def build(
    words: Iterable[str],
    encode: Callable[[str], Sequence[int]],
    *,
    pad_id: int,
    protected: Collection[str] | Callable[[str], bool] = (),
    max_pieces: int = 8,
    vocab_size: int | None = None,
    unk_id: int | None = None,
) -> Lexicon:
    """Build the table of candidate words.

    A protected word is neither replaced nor inserted. Words that encode to nothing, to more than `max_pieces` tokens,
    or to the same tokens as an earlier word (then the stricter protection of the two holds) get no entry of their own;
    a word without an entry is never replaced.

    Args:
      words: the words, e.g. the vocabulary of a corpus; order is kept and settles ties.
      encode: text of one word -> its tokens, without special tokens.
      pad_id: the padding token.
      protected: the protected words, or a predicate such as `constraints.Protection`.
      max_pieces: longest word in tokens.
      unk_id: the token of what the tokenizer does not know: all unknown words and marks share it, so that none of them
        has an entry, is replaced or proposed.
      vocab_size: rows of the model's token table, where known: a tokenizer of another model is then found out here.

    Raises:
      DataError: no word is left. ConfigError: a word whose tokens are not in the token table.
    """
    is_protected = protected if callable(protected) else frozenset(protected).__contains__
    kept: dict[tuple[int, ...], str] = {}
    closed: set[tuple[int, ...]] = set()
    for word in words:
        pieces = tuple(int(piece) for piece in encode(word))
        if not 0 < len(pieces) <= max_pieces or unk_id in pieces:
            continue
        if vocab_size is not None and not 0 <= min(pieces) <= max(pieces) < vocab_size:
            allowed = f"0 to {vocab_size - 1}, the rows of the token table"
            raise ConfigError(f"tokens of {word!r}", pieces, allowed, "Is this the tokenizer of another model?")
        kept.setdefault(pieces, word)
        if is_protected(word):
            closed.add(pieces)
    if not kept:
        raise DataError(
            f"no candidate word is left: every word encodes to nothing, to more than {max_pieces} "
            "tokens, or to the unknown token"
        )
    pieces = filled(list(kept), pad_id)
    lengths = np.array([len(entry) for entry in kept], np.int32)
    free = np.array([entry not in closed for entry in kept])
    multiplier, hashes = _distinct_hashes(pieces, lengths)
    order = np.argsort(hashes).astype(np.int32)
    arrays = (pieces, lengths, free, free, None, hashes[order], order, multiplier, np.int32(pad_id))
    return Lexicon(tuple(kept.values()), Table(*jax.tree.map(jax.device_put, arrays)))


def in_tokens_of(
    lexicon: Lexicon,
    encode: Callable[[str], Sequence[int]],
    *,
    pad_id: int,
    max_pieces: int = 8,
    unk_id: int | None = None,
) -> Table:
    """Return the same words in the tokens of another model, entry for entry, for `sources.masked_lm_lists`.

    A word that this model encodes to nothing, to more than `max_pieces` tokens, or to its unknown token `unk_id`, which
    all words share that it does not know, has length 0 there: never proposed.
    """
    found = [[int(piece) for piece in encode(word)] for word in lexicon.words]
    fitting = [piece if len(piece) <= max_pieces and unk_id not in piece else [] for piece in found]
    lengths = jnp.asarray([len(piece) for piece in fitting], jnp.int32)
    return lexicon.table._replace(pieces=jax.device_put(filled(fitting, pad_id)), lengths=lengths, lists=None)


def filled(rows: Sequence[Sequence[int]], fill: int) -> Int[np.ndarray, "rows columns"]:
    """Return rows of different lengths as one array i32[rows, columns >= 1], `fill` beyond the end of each."""
    columns = max(1, max(map(len, rows)))
    return np.array([[*row, *[fill] * (columns - len(row))] for row in rows], np.int32)


def _distinct_hashes(
    pieces: Int[np.ndarray, "entries pieces"], lengths: Int[np.ndarray, "entries"]
) -> tuple[np.uint32, Shaped[np.ndarray, "entries"]]:
    """Return a multiplier under which no two words share a hash, and the hashes u32[N]."""
    for multiplier in range(0x9E3779B1, 0x9E3779B1 + 2_000, 2):
        hashes = np.zeros(len(pieces), np.uint64)
        for j in range(pieces.shape[1]):
            longer = (hashes * np.uint64(multiplier) + pieces[:, j].astype(np.uint64) + np.uint64(1)) % np.uint64(2**32)
            hashes = np.where(j < lengths, longer, hashes)
        if len(np.unique(hashes)) == len(hashes):
            return np.uint32(multiplier), hashes.astype(np.uint32)
    raise DataError(f"{len(pieces)} candidate words are too many to be told apart by a 32-bit hash; use fewer")


def lookup(
    table: Table, tokens: Int[Array | np.ndarray, "batch length"], words: Int[Array | np.ndarray, "batch length"]
) -> TokenRows:
    """Return the table index of the word in every slot, -1 where the word has no entry; runs inside jit.

    Args:
      table: the table.
      tokens: i32[B, L].
      words: i32[B, L], slot of every token, -1 on special tokens and padding.
    """

    def one(tokens: Int[Array, "length"], words: Int[Array, "length"]) -> Int[Array, "length"]:
        slots = find_slots(words)
        width = table.pieces.shape[1]
        positions, inside = pieces_at(tokens, slots, width)
        found = jnp.where(inside, tokens[positions], table.pad_id)
        value = jnp.zeros(words.shape, jnp.uint32)
        for j in range(width):
            longer = value * table.multiplier + found[:, j].astype(jnp.uint32) + jnp.uint32(1)
            value = jnp.where(inside[:, j], longer, value)
        entry = table.order[jnp.minimum(jnp.searchsorted(table.hashes, value), len(table.hashes) - 1)]
        same = (table.lengths[entry] == slots.length) & jnp.all(table.pieces[entry] == found, axis=1)
        return jnp.where(same & (slots.length > 0), entry, -1)

    return jax.vmap(one)(jnp.asarray(tokens), jnp.asarray(words))


def for_rows(
    table: Table,
    tokens: Int[Array | np.ndarray, "batch length"],
    words: Int[Array | np.ndarray, "batch length"],
    lists: Int[Array, "batch length columns"] | None = None,
) -> Candidates:
    """Return the replacements that `table` allows in a batch of rows; runs inside jit.

    Args:
      table: the table; its own `lists`, where present, restrict every word.
      tokens: i32[B, L].
      words: i32[B, L].
      lists: i32[B, L, K], table indices allowed per slot of these rows, e.g. from `masked_lm_lists`; intersected
        with the table's own.
    """
    present = lookup(table, tokens, words)
    entry = jnp.maximum(present, 0)
    open_ = (present >= 0) & table.replaceable[entry]
    if table.lists is not None:
        own = jnp.where(open_[..., None], table.lists[entry], -1)
        lists = own if lists is None else intersect(lists, own)
    return Candidates(table, present, open_, lists)


def may_replace(
    table: Table,
    row: Row,
    entry: Int[Array, "..."],
    present: Int[Array, "..."],
    length: Int[Array, "..."],
) -> Bool[Array, "..."]:
    """Return which entries of the table (-1 for none) may stand in a slot of one row: a longer word needs room there.

    `present`, the table index of the slot's own word, and `length`, its number of tokens, broadcast against `entry`.
    """
    known = jnp.maximum(entry, 0)
    room = row.tokens.shape[0] - real_length(row.mask)
    allowed = (entry >= 0) & table.insertable[known] & (entry != present)
    if table.classes is not None:
        own, other = table.classes[jnp.maximum(present, 0)], table.classes[known]
        allowed &= (own == 0) | (other == 0) | ((own & other) != 0)
    return allowed & (table.lengths[known] - length <= room)


def put_words(table: Table, row: Row, slot: Int[Array, "forms"], slots: Slots, choice: Int[Array, "forms"]) -> Row:
    """Return forms of one row, arrays [forms, L]: in each, entry `choice` of the table stands in `slot`."""
    change = jax.vmap(replace_word, in_axes=(None, 0, None, 0, 0, None))
    return change(row, slot, slots, table.pieces[choice], table.lengths[choice], table.pad_id)


def intersect(
    first: Int[Array | np.ndarray, "*rows columns"], *others: Int[Array | np.ndarray, "..."]
) -> Int[Array, "*rows columns"]:
    """Return entries of `first` that every other list holds too; -1 for the rest, order kept."""
    first = jnp.asarray(first)
    for other in others:
        held = jnp.any(first[..., :, None] == other[..., None, :], axis=-1)
        first = jnp.where(held, first, -1)
    return first
