"""Where candidate words come from: a thesaurus, classes of words, neighbours in the embedding, a masked language model.

Each gives lists of table indices per original word, i32[N, K] (or per slot of a batch, i32[B, L, K]), -1 filled, to be
put into a table by `restrict`, or handed to `candidates.for_rows`; together they intersect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from ranjax.attacks.text.candidates import Lexicon, Table, filled, intersect
from ranjax.attacks.text.words import find_slots, pieces_at
from ranjax.core.errors import ConfigError
from ranjax.core.math import unit_numpy

Lists = Int[Array | np.ndarray, "entries columns"]
"""Table indices that may replace each entry of a table, -1 filled."""


def restrict(table: Table, *lists: Int[Array | np.ndarray, "entries ..."]) -> Table:
    """Return the table with its words' lists intersected with `lists`, each i32[N, K]; the first list's order is
    kept.
    """
    held = () if table.lists is None else (table.lists,)
    return table._replace(lists=intersect(*held, *lists))


def from_groups(lexicon: Lexicon, groups: Iterable[Sequence[str]]) -> Lists:
    """Return lists that hold the other words of a word's groups; words in no group stay.

    Args:
      lexicon: the candidate words; matched without regard to case.
      groups: e.g. `constraints.read_groups("radiology_synonyms")`. A word may be in several.
    """
    index = _places(lexicon)
    found: list[dict[int, None]] = [{} for _ in lexicon.words]
    for group in groups:
        members = [i for word in group for i in index.get(word.lower(), ())]
        for i in members:
            found[i].update(dict.fromkeys(j for j in members if j != i))
    return jax.device_put(filled([list(listed) for listed in found], -1))


def same_class(lexicon: Lexicon, lists: Lists, groups: Iterable[Sequence[str]]) -> Lists:
    """Return `lists` without words of another class than the original's, where both classes are known.

    Args:
      lexicon: the candidate words.
      lists: the words allowed so far.
      groups: classes, e.g. `constraints.read_groups("word_classes")`. A word may be in several.
    """
    index, groups = _places(lexicon), tuple(groups)
    member = np.zeros((len(lexicon.words), len(groups)), bool)
    for column, group in enumerate(groups):
        member[[i for word in group for i in index.get(word.lower(), ())], column] = True
    held = np.asarray(lists)
    shared = (member[:, None, :] & member[held]).any(-1)
    known = np.asarray(member.any(1))
    clash = known[:, None] & known[held] & ~shared
    return jax.device_put(np.where(clash, -1, held))


def class_bits(lexicon: Lexicon, groups: Iterable[Sequence[str]]) -> Shaped[Array, "entries"]:
    """Return u32[N] for `Table.classes`: a bit for each group that a word is in, 0 for a word in none.

    Args:
      lexicon: the candidate words; matched without regard to case.
      groups: at most 32, e.g. `constraints.read_groups("word_classes")`.

    Raises:
      ConfigError: more groups.
    """
    index, groups = _places(lexicon), tuple(groups)
    if len(groups) > 32:
        raise ConfigError("groups", len(groups), "at most 32 classes of words")
    bits = np.zeros(len(lexicon.words), np.uint32)
    for number, group in enumerate(groups):
        bits[[i for word in group for i in index.get(word.lower(), ())]] |= np.uint32(1 << number)
    return jax.device_put(bits)


def _places(lexicon: Lexicon) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for i, word in enumerate(lexicon.words):
        index.setdefault(word.lower(), []).append(i)
    return index


def neighbours(
    embeddings: Float[Array | np.ndarray, "vocabulary width"], table: Table, k: int, min_similarity: float | int = 0.0
) -> Lists:
    """Return the k nearest insertable words by the cosine of mean piece embeddings, nearest first.

    Args:
      embeddings: f32[V, W], e.g. the token table of the attacked text tower.
      table: the candidate words.
      k: neighbours per word.
      min_similarity: least cosine to the original word, -1 .. 1.

    Raises:
      ConfigError: a threshold outside -1 .. 1, or k below 1.
    """
    if not -1 <= min_similarity <= 1:
        raise ConfigError("min_similarity", min_similarity, "a cosine between -1 and 1")
    if k < 1:
        raise ConfigError("k", k, "1 or more")
    vectors = np.asarray(embeddings, np.float64)
    pieces, lengths = np.asarray(table.pieces), np.asarray(table.lengths)
    inside = np.arange(pieces.shape[1])[None] < lengths[:, None]
    mean = np.where(inside[..., None], vectors[pieces], 0).sum(1) / lengths[:, None]
    unit = unit_numpy(mean)
    insertable = np.asarray(table.insertable)
    out = np.full((len(unit), min(k, len(unit))), -1, np.int32)
    for first in range(0, len(unit), 1024):  # blocks bound the memory
        rows = np.arange(first, min(first + 1024, len(unit)))
        cosine = unit[rows] @ unit.T
        cosine[:, ~insertable] = -np.inf
        cosine[np.arange(len(rows)), rows] = -np.inf
        best = np.argsort(-cosine, axis=1, kind="stable")[:, : out.shape[1]]
        value = np.take_along_axis(cosine, best, axis=1)
        out[rows] = np.where((value >= min_similarity) & np.isfinite(value), best, -1)
    return jax.device_put(out)


def masked_lm_lists(
    logits: Float[Array, "batch positions vocabulary"],
    words: Int[Array | np.ndarray, "batch positions"],
    table: Table,
    k: int,
    slots: int | None = None,
) -> Int[Array, "batch slots columns"]:
    """Return the k words that a masked language model likes best in every slot, best first; runs inside jit.

    Only words of as many pieces as the original has are compared, by the mean of their pieces' logits at the
    original's own positions (the row's `words` say which, so special tokens in front cannot shift them). Protected
    words count for the k and are left out by the attack, as in BERT-Attack (Li et al. 2020).

    Args:
      logits: f32[B, M, V], of the model on its own tokens of the texts: plain, or each position masked in turn
        (`masked_logits`).
      words: i32[B, M], slot of each of these tokens, -1 on special tokens and padding. Slots number the same words as
        in the attacked rows, also where the two tokenizers differ.
      table: the candidate words **in the model's tokens**: entry i is the same word as entry i of the attack's table.
      k: words per slot (10 in Co-Attack and SGA, 48 in BERT-Attack).
      slots: number of slots L of the attacked rows; default M.
    """
    width, number = table.pieces.shape[1], table.lengths.shape[0]
    slots = words.shape[1] if slots is None else slots

    def one(logits: Array, words: Array) -> Int[Array, "positions columns"]:
        where = find_slots(words)
        positions, inside = pieces_at(words, where, width)
        total = jnp.zeros((words.shape[0], number), logits.dtype)
        for j in range(width):
            total = total + jnp.where(inside[:, j : j + 1], logits[positions[:, j]][:, table.pieces[:, j]], 0)
        same = table.lengths[None, :] == where.length[:, None]
        mean = jnp.where(same, total / jnp.maximum(where.length, 1)[:, None].astype(logits.dtype), -jnp.inf)
        value, best = jax.lax.top_k(mean, min(k, number))
        return jnp.where(value > -jnp.inf, best, -1)

    lists = jax.vmap(one)(logits, jnp.asarray(words))[:, :slots]
    return jnp.pad(lists, ((0, 0), (0, slots - lists.shape[1]), (0, 0)), constant_values=-1)


def masked_logits(
    model: Callable[[jax.Array, jax.Array], jax.Array],
    tokens: Int[Array, "batch positions"],
    mask: Bool[Array, "batch positions"],
    words: Int[Array, "batch positions"],
    mask_id: int,
) -> Float[Array, "batch positions vocabulary"]:
    """Return logits of a masked language model, each word's from a row in which that word is masked as a whole.

    Args:
      model: tokens i32[B, M], mask bool[B, M] -> logits f32[B, M, V]; called once per slot.
      tokens, mask, words: the texts in the model's tokens.
      mask_id: the model's mask token.
    """

    def add(slot: Int[Array, ""], total: Array) -> Array:
        here = words == slot
        logits = model(jnp.where(here, jnp.int32(mask_id), tokens), mask)
        return jnp.where(here[..., None], logits, total)

    shape = jax.eval_shape(model, tokens, mask)
    return jax.lax.fori_loop(0, jnp.max(words) + 1, add, jnp.zeros(shape.shape, shape.dtype))
