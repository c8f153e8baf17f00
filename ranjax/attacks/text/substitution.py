"""Text attacks on whole words, static-shaped, to be jitted by the caller.

`substitute` replaces words under the guidance of the gradient: every round ranks all allowed replacements by their
first-order gain, scores the `top_k` best by a true forward pass and takes the best of those if it raises the loss.

A loss maps ``(embeddings f32[B, L, W], tokens i32[B, L], mask bool[B, L]) -> f32[B]``, one value per row that depends
on that row alone, and is raised. `embeddings` are the token embeddings before positions are added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks.input_checks import check_rows, check_vocabulary, validate_count
from ranjax.attacks.text import candidates as candidates_lib
from ranjax.attacks.text import gains as gains_lib
from ranjax.attacks.text import words as words_lib
from ranjax.core.errors import ConfigError

TextLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
TextTest = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Most first-order gains held at once (rows x slots x candidates), which bounds the memory: 128 MiB in float32.
GAINS_AT_ONCE = 2**25


@dataclass(frozen=True)
class Substitution:
    """Settings of `substitute`; hashable, so that it may be a static argument of jit.

    Attributes:
      max_words: most words of a row to be replaced; 0 changes nothing; None: only `share` binds.
      share: most words as a share of the row's words, rounded up (0.4 of 12 words: 5); None: only `max_words` binds.
      top_k: replacements scored by a forward pass per round and beam member.
      beam: texts of a row kept from round to round; 1 is greedy.
      max_queries: most forward passes on replaced texts per row; None: no bound but the rounds.
      forward_rows: most rows of one forward pass, which bounds the memory.
    """

    max_words: int | None = 1
    share: float | None = None
    top_k: int = 8
    beam: int = 1
    max_queries: int | None = None
    forward_rows: int = 256

    def __post_init__(self) -> None:
        if self.max_words is None and self.share is None:
            raise ConfigError("max_words", None, "a number of words, unless share is given")
        for name, least in (("max_words", 0), ("max_queries", 0), ("top_k", 1), ("beam", 1), ("forward_rows", 1)):
            value = getattr(self, name)
            if value is not None or least:
                validate_count(value, name, least)
        number = isinstance(self.share, (int, float)) and not isinstance(self.share, bool)
        if self.share is not None and not (number and 0 <= self.share <= 1):
            raise ConfigError("share", self.share, "a share of the words between 0 and 1")

    def budgets(self, length: int) -> np.ndarray:
        """Most words that may be replaced in a row of n words, i32[length + 1], n = 0 .. length; exact arithmetic."""
        number = np.arange(length + 1)
        most = number if self.max_words is None else np.minimum(number, self.max_words)
        if self.share is not None:
            share = Fraction(str(self.share))
            most = np.minimum(most, [ceil(share * int(n)) for n in number])
        return most.astype(np.int32)


def needed_length(mask: np.ndarray, table: candidates_lib.Table, settings: Substitution) -> int:
    """Tokens that rows with this mask bool[N, L] can come to need; beyond them is padding before and after.

    The longest row, plus what the longest word of the table adds to it at every replacement; rounded up to a multiple
    of 4, at most L. Padding never matters, so rows cut to this length give the same attack for less work.
    """
    length = mask.shape[1]
    growth = int(settings.budgets(length).max()) * (table.pieces.shape[1] - 1)
    needed = int(np.max(np.sum(mask, axis=1), initial=0)) + growth
    return min(-(-needed // 4) * 4, length)


class TextAttack(NamedTuple):
    """What a text attack found.

    Attributes:
      tokens: i32[B, L]; mask: bool[B, L]; words: i32[B, L]: the attacked rows, slots keep their numbers.
      loss: f32[B], of the attacked rows; clean_loss: f32[B], of the given ones.
      trace: f32[rounds + 1, B], best loss after every round; never falls.
      changed: bool[B, L], slots that were replaced.
      choices: i32[B, L], table index of the word put into each replaced slot, -1 elsewhere.
      edits: i32[B], number of words replaced.
      queries: i32[B], forward passes done on replaced texts of this row (a round's one gradient is not counted).
    """

    tokens: jax.Array
    mask: jax.Array
    words: jax.Array
    loss: jax.Array
    clean_loss: jax.Array
    trace: jax.Array
    changed: jax.Array
    choices: jax.Array
    edits: jax.Array
    queries: jax.Array


def similar_to(text_fn: TextLoss, features: jax.Array, threshold: float) -> TextTest:
    """An `accept_fn`: the cosine of a replaced text's features to those of its **original** is at least `threshold`.

    Args:
      text_fn: same arguments as a loss -> f[B, D], of any text encoder.
      features: f[B, D], of the original rows.
      threshold: least cosine, -1 .. 1.

    Raises:
      ConfigError: a threshold outside -1 .. 1.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError("threshold", threshold, "a cosine between -1 and 1")

    def accept(embeddings: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        replaced = text_fn(embeddings, tokens, mask)
        length = jnp.linalg.norm(replaced, axis=-1) * jnp.linalg.norm(features, axis=-1)
        return jnp.sum(replaced * features, axis=-1) >= threshold * length

    return accept


class _State(NamedTuple):
    """The beam between rounds: M members of every row, best first."""

    rows: words_lib.Row  # arrays [M, B, L]
    loss: jax.Array  # [M, B], -inf for a member that does not exist
    fresh: jax.Array  # bool[M, B], members whose replacements have not been tried
    choices: jax.Array  # i32[M, B, L]
    queries: jax.Array  # i32[B]
    trace: jax.Array  # [R + 1, B]
    round: jax.Array  # i32[]


def row_losses(loss_fn: TextLoss, table: jax.Array, rows: words_lib.Row, forward_rows: int) -> jax.Array:
    """Losses [n, B] of n replaced forms of every row (`rows` arrays [n, B, L]), at most `forward_rows` at a time."""
    number, batch = rows.tokens.shape[:2]
    together = max(1, min(number, forward_rows // batch))
    while number % together:
        together -= 1

    def one(row: words_lib.Row) -> jax.Array:
        return loss_fn(table[row.tokens], row.tokens, row.mask)

    grouped = jax.tree.map(lambda x: x.reshape((number // together, together) + x.shape[1:]), rows)
    if number == together:
        return jax.vmap(one)(rows)
    return jax.lax.map(jax.vmap(one), grouped).reshape(number, batch)


def substitute(
    loss_fn: TextLoss,
    table: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    words: jax.Array,
    candidates: candidates_lib.Table | candidates_lib.Candidates,
    settings: Substitution,
    accept_fn: TextTest | None = None,
) -> TextAttack:
    """Gradient-guided substitution of whole words (HotFlip, Ebrahimi et al. 2018, with true re-scoring).

    Every round, for each row: the gain of putting candidate c into slot s is taken to first order (module `gains`);
    the `top_k` best allowed ones (ties: smaller slot, then smaller table index) are scored by a forward pass; the best
    (ties: better rank) is taken if it is strictly above the present loss. No slot is replaced twice, no word by itself.
    A row ends when nothing raises its loss or its budget of words or queries is spent. With ``beam`` = M > 1 the M best
    distinct texts of each row, kept ones and replaced ones together, go on to the next round.

    Args:
      loss_fn: see the module; it sees B rows at a time, in the order given.
      table: f[V, W], token embeddings.
      tokens: i32[B, L].
      mask: bool[B, L], True on real tokens, BOS and EOS included.
      words: i32[B, L], slot of every token, -1 on special tokens and padding.
      candidates: what may replace what.
      settings: budget and width of the search.
      accept_fn: same arguments as the loss -> bool[B]; a replaced text for which it is False is not taken, e.g. one too
        far from the original (`similar_to`).

    Returns:
      A `TextAttack`; the loss is that of the forward pass that chose the text.

    Raises:
      ValueError: shapes or dtypes do not fit.
    """
    table, tokens, mask, words = (jnp.asarray(x) for x in (table, tokens, mask, words))
    check_rows(table, tokens, mask, words)
    if isinstance(candidates, candidates_lib.Lexicon):
        candidates = candidates.table
    if isinstance(candidates, candidates_lib.Table):
        candidates = candidates_lib.for_rows(candidates, tokens, words)
    check_vocabulary(table, candidates.table.pieces, "the tokens of the candidates")
    batch, length = tokens.shape
    entries = candidates.table
    features = gains_lib.candidate_features(table, entries)
    budgets = settings.budgets(length)
    budget = jnp.asarray(budgets)[jnp.max(words, axis=1) + 1]
    rounds = int(budgets.max())

    def propose(row: words_lib.Row, gradient: jax.Array, used: jax.Array, present: jax.Array, open_: jax.Array, lists):
        """The best replacements of one row: gains f[k], slots i32[k], table indices i32[k], rows [k, L]."""
        slots = words_lib.find_slots(row.words)
        gains = gains_lib.word_gains(table, features, entries, row.tokens, gradient, slots, lists)
        entry = jnp.arange(entries.lengths.shape[0], dtype=jnp.int32)[None, :] if lists is None else lists
        known = jnp.maximum(entry, 0)
        room = length - words_lib.real_length(row.mask)
        allowed = (open_ & ~used)[:, None] & (entry >= 0) & entries.offered[known] & (entry != present[:, None])
        allowed &= entries.lengths[known] - slots.length[:, None] <= room
        gains = jnp.where(allowed & ~jnp.isnan(gains), gains, -jnp.inf).reshape(-1)
        best, where = jax.lax.top_k(gains, min(settings.top_k, gains.shape[0]))
        slot, column = where // allowed.shape[1], where % allowed.shape[1]
        choice = column if lists is None else lists[slot, column]
        choice = jnp.maximum(choice, 0)
        change = jax.vmap(words_lib.replace_word, in_axes=(None, 0, None, 0, 0, None))
        replaced = change(row, slot, slots, entries.pieces[choice], entries.lengths[choice], entries.pad_id)
        return best, slot, choice, replaced

    def propose_all(rows: words_lib.Row, gradient: jax.Array, used: jax.Array) -> tuple:
        """`propose` for [M, B] rows, as many at a time as `GAINS_AT_ONCE` allows."""
        members = used.shape[0]
        again = lambda x: jnp.tile(x, (members,) + (1,) * (x.ndim - 1))  # noqa: E731
        given = jax.tree.map(again, (candidates.present, candidates.open, candidates.lists))
        flat = jax.tree.map(lambda x: x.reshape((members * batch,) + x.shape[2:]), (rows, gradient, used))
        columns = entries.lengths.shape[0] if candidates.lists is None else candidates.lists.shape[2]
        together = max(1, GAINS_AT_ONCE // (length * columns))
        one = lambda x: propose(*x)  # noqa: E731
        if members * batch <= together:
            found = jax.vmap(one)((*flat, *given))
        else:
            found = jax.lax.map(one, (*flat, *given), batch_size=together)
        return jax.tree.map(lambda x: x.reshape((members, batch) + x.shape[1:]), found)

    def total(embeddings: jax.Array, rows: words_lib.Row) -> tuple[jax.Array, jax.Array]:
        loss = _each_member(loss_fn)(embeddings, rows.tokens, rows.mask)
        return jnp.sum(loss), loss

    def one_round(state: _State) -> _State:
        rows, used = state.rows, state.choices >= 0
        gradient, value = jax.grad(total, has_aux=True)(table[rows.tokens], rows)
        # The first gradient brings the loss of the given rows along; later ones are of the pass that chose.
        loss, trace = at_start(value[0])
        begun = state.round > 0
        state = state._replace(loss=jnp.where(begun, state.loss, loss), trace=jnp.where(begun, state.trace, trace))
        gain, slot, choice, replaced = propose_all(rows, gradient, used)
        expands = state.fresh & (used.sum(-1, dtype=jnp.int32) < budget[None, :])
        valid = (gain > -jnp.inf) & expands[..., None]  # [M, B, k]
        members, _, width = gain.shape
        flat = lambda x: jnp.moveaxis(x, 2, 1).reshape((members * width, batch) + x.shape[3:])  # noqa: E731
        replaced, valid, slot, choice = jax.tree.map(flat, (replaced, valid, slot, choice))
        if settings.max_queries is not None:
            valid &= jnp.cumsum(valid, axis=0, dtype=jnp.int32) + state.queries[None, :] <= settings.max_queries
        loss = row_losses(loss_fn, table, replaced, settings.forward_rows)
        taken = valid & ~jnp.isnan(loss)
        if accept_fn is not None:
            taken &= row_losses(accept_fn, table, replaced, settings.forward_rows)
        parent = jnp.repeat(jnp.arange(members, dtype=jnp.int32), width)
        chosen = jnp.where(
            jnp.arange(length, dtype=jnp.int32)[None, None, :] == slot[..., None],
            choice[..., None],
            state.choices[parent],
        )
        join = lambda old, new: jnp.concatenate([old, new], axis=0)  # noqa: E731
        pool_rows = jax.tree.map(join, rows, replaced)
        pool_loss = join(state.loss, jnp.where(taken, loss, -jnp.inf))
        if members > 1:
            pool_loss = jnp.where(_repeats(pool_rows.tokens, pool_loss), -jnp.inf, pool_loss)
        pool_choices = join(state.choices, chosen)
        best_loss, best = jax.lax.top_k(pool_loss.T, members)  # ties: present texts first, then the better rank
        best = best.T
        pick = lambda x: jnp.take_along_axis(x, best.reshape(best.shape + (1,) * (x.ndim - 2)), axis=0)  # noqa: E731
        later = jnp.arange(rounds + 1, dtype=jnp.int32)[:, None] > state.round
        return _State(
            rows=jax.tree.map(pick, pool_rows),
            loss=best_loss.T,
            fresh=(best >= members) & (-jnp.inf < best_loss.T),
            choices=pick(pool_choices),
            queries=state.queries + valid.sum(0, dtype=jnp.int32),
            trace=jnp.where(later, best_loss[:, 0][None, :], state.trace),
            round=state.round + 1,
        )

    def going(state: _State) -> jax.Array:
        more = state.fresh & ((state.choices >= 0).sum(-1, dtype=jnp.int32) < budget[None, :])
        return (state.round < rounds) & jnp.any(more)

    def at_start(clean_loss: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Losses and trace of a beam that holds the given rows alone."""
        known = jnp.where(first, clean_loss[None, :], -jnp.inf)
        return known, jnp.broadcast_to(clean_loss[None, :], (rounds + 1, batch))

    def clean() -> jax.Array:
        return loss_fn(table[tokens], tokens, mask)

    first = jnp.arange(settings.beam, dtype=jnp.int32)[:, None] == 0
    copies = lambda x: jnp.broadcast_to(x[None], (settings.beam,) + x.shape)  # noqa: E731
    kind = jax.eval_shape(clean)
    # Where a round is sure to follow, its gradient gives this loss, too.
    loss, trace = at_start(jax.lax.cond(jnp.any(budget > 0), lambda: jnp.zeros(kind.shape, kind.dtype), clean))
    state = _State(
        rows=jax.tree.map(copies, words_lib.Row(tokens, mask, words)),
        loss=loss,
        fresh=jnp.broadcast_to(first, (settings.beam, batch)),
        choices=jnp.full((settings.beam, batch, length), -1, jnp.int32),
        queries=jnp.zeros((batch,), jnp.int32),
        trace=trace,
        round=jnp.zeros((), jnp.int32),
    )
    if rounds:
        state = jax.lax.while_loop(going, one_round, state)
    best, choices = jax.tree.map(lambda x: x[0], (state.rows, state.choices))
    changed = choices >= 0
    edits = changed.sum(-1, dtype=jnp.int32)
    return TextAttack(
        best.tokens,
        best.mask,
        best.words,
        state.loss[0],
        state.trace[0],
        state.trace,
        changed,
        choices,
        edits,
        state.queries,
    )


def _each_member(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` over a leading axis; one of length 1 is taken off instead, because it slows XLA's reductions on a CPU."""

    def run(*arrays: jax.Array) -> Any:
        if arrays[0].shape[0] > 1:
            return jax.vmap(fn)(*arrays)
        return jax.tree.map(lambda x: x[None], fn(*(x[0] for x in arrays)))

    return run


def _repeats(tokens: jax.Array, loss: jax.Array) -> jax.Array:
    """bool[n, B]: texts of a pool [n, B, L] that an earlier entry with a finite rank already holds."""
    same = jnp.all(tokens[:, None] == tokens[None, :], axis=-1)  # [n, n, B]
    number = tokens.shape[0]
    earlier = jnp.arange(number, dtype=jnp.int32)[None, :] < jnp.arange(number, dtype=jnp.int32)[:, None]
    return jnp.any(same & earlier[..., None] & (loss > -jnp.inf)[None, :, :], axis=1)
