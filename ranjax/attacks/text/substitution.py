"""Text attacks on whole words, static-shaped, to be jitted by the caller.

`substitute` replaces words under the guidance of the gradient: every round ranks all allowed replacements by their
first-order gain, scores the `top_k` best by a true forward pass and takes the best of those if it raises the loss.

A loss maps ``(embeddings f32[B, L, W], tokens i32[B, L], mask bool[B, L]) -> f32[B]``, one value per row that depends
on that row alone, and is raised. `embeddings` are the token embeddings before positions are added.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from ranjax.attacks.input_checks import check_rows, check_vocabulary, validate_count
from ranjax.attacks.text.candidates import Candidates, Lexicon, Table, for_rows, may_replace, put_words
from ranjax.attacks.text.gains import Features, candidate_features, word_gains
from ranjax.attacks.text.moves import MOVES, allowed_slots, more_gains, put
from ranjax.attacks.text.words import Embedded, MaskRows, PerRow, Row, Slots, TokenRows, TokenTable, find_slots
from ranjax.core.errors import ConfigError

TextLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
TextTest = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Given = Shaped[Array | np.ndarray, "..."]
"""Arrays as a caller gives them, NumPy's or JAX's."""

# Most first-order gains held at once (rows x slots x candidates), or numbers that they are computed from, or tokens
# that are compared: this bounds the memory, to 128 MiB in float32.
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
      forward_rows: most rows of one pass of the loss or its gradient, which bounds the memory for any beam and `top_k`;
        a pass takes the B rows of the call at least.
      moves: what may be done to a word, some of `moves.MOVES`; `choices` of other moves than "replace" are those of
        `moves.decode`. A word put in or left out counts for the budget as a word replaced.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    max_words: int | None = 1
    share: float | int | None = None
    top_k: int = 8
    beam: int = 1
    max_queries: int | None = None
    forward_rows: int = 256
    moves: tuple[str, ...] = ("replace",)

    def __post_init__(self) -> None:
        if self.max_words is None and self.share is None:
            raise ConfigError("max_words", None, "a number of words, unless share is given")
        for name, least in (("max_words", 0), ("max_queries", 0), ("top_k", 1), ("beam", 1), ("forward_rows", 1)):
            value = getattr(self, name)
            if value is not None or least:
                validate_count(value, name, least)
        if not self.moves or not set(self.moves) <= set(MOVES):
            raise ConfigError("moves", self.moves, f"some of {', '.join(MOVES)}")
        number = isinstance(self.share, (int, float)) and not isinstance(self.share, bool)
        if self.share is not None and not (number and 0 <= self.share <= 1):
            raise ConfigError("share", self.share, "a share of the words between 0 and 1")

    def budgets(self, length: int) -> Int[np.ndarray, "counts"]:
        """Return the most words that may be replaced in a row of n words, n = 0 .. length; exact arithmetic."""
        number = np.arange(length + 1)
        most = number if self.max_words is None else np.minimum(number, self.max_words)
        if self.share is not None:
            share = Fraction(str(self.share))
            most = np.minimum(most, [ceil(share * int(n)) for n in number])
        return most.astype(np.int32)


def needed_length(mask: Bool[np.ndarray, "rows length"], table: Table, settings: Substitution) -> int:
    """Return the tokens that rows with this mask can come to need; beyond them is padding before and after.

    The longest row, plus the most that the longest word of the table adds to it at every replacement; rounded up to a
    multiple of 4, at most L. Padding never matters, so rows cut to this length give the same attack for less work.
    """
    length = mask.shape[1]
    longer = table.pieces.shape[1] - ("insert" not in settings.moves)
    growth = int(settings.budgets(length).max()) * longer
    needed = int(np.max(np.sum(mask, axis=1), initial=0)) + growth
    return min(-(-needed // 4) * 4, length)


class TextAttack(NamedTuple):
    """The result of a text attack.

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


def attack_of(
    rows: Row,
    loss: PerRow,
    trace: Float[Array, "rounds batch"],
    choices: TokenRows,
    queries: Int[Array, "batch"],
) -> TextAttack:
    """Return the `TextAttack` of attacked rows; the first entry of the trace is the clean loss."""
    changed = choices >= 0
    return TextAttack(*rows, loss, trace[0], trace, changed, choices, changed.sum(-1, dtype=jnp.int32), queries)


def similar_to(text_fn: TextLoss, features: Float[Array, "batch features"], threshold: float | int) -> TextTest:
    """Return an `accept_fn`: the cosine of a replaced text's features to those of its **original** is `threshold` up.

    Args:
      text_fn: same arguments as a loss -> f[B, D], of any text encoder.
      features: of the original rows.
      threshold: least cosine, -1 .. 1.

    Raises:
      ConfigError: a threshold outside -1 .. 1.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError("threshold", threshold, "a cosine between -1 and 1")

    def accept(embeddings: Embedded, tokens: TokenRows, mask: MaskRows) -> Bool[Array, "batch"]:
        replaced = text_fn(embeddings, tokens, mask)
        length = jnp.linalg.norm(replaced, axis=-1) * jnp.linalg.norm(features, axis=-1)
        return jnp.sum(replaced * features, axis=-1) >= threshold * length

    return accept


def row_losses(loss_fn: TextLoss, table: TokenTable, rows: Row, forward_rows: int) -> Shaped[Array, "forms batch"]:
    """Return losses of n replaced forms of every row (`rows` arrays [n, B, L]), at most `forward_rows` at a time."""
    number, batch = rows.tokens.shape[:2]
    together = _together(number, batch, forward_rows)
    losses = jax.vmap(lambda row: loss_fn(table[row.tokens], row.tokens, row.mask))
    if number == together:
        return losses(rows)
    grouped = jax.tree.map(lambda x: x.reshape((number // together, together) + x.shape[1:]), rows)
    return jax.lax.map(losses, grouped).reshape(number, batch)


def _together(forms: int, batch: int, forward_rows: int) -> int:
    """Return how many forms of every row one pass takes, a divisor of all of them."""
    together = max(1, min(forms, forward_rows // batch))
    while forms % together:
        together -= 1
    return together


def score_replaced(
    loss_fn: TextLoss,
    accept_fn: TextTest | None,
    table: TokenTable,
    rows: Row,
    valid: Bool[Array, "forms batch"],
    forward_rows: int,
) -> Float[Array, "forms batch"]:
    """Return losses of replaced forms of every row, -inf for those that are not valid, NaN, or not accepted."""
    loss = row_losses(loss_fn, table, rows, forward_rows)
    taken = valid & ~jnp.isnan(loss)
    if accept_fn is not None:
        taken &= row_losses(accept_fn, table, rows, forward_rows)
    return jnp.where(taken, loss, -jnp.inf)


class _State(NamedTuple):
    """The beam between rounds: M members of every row, best first."""

    rows: Row  # arrays [M, B, L]
    loss: jax.Array  # [M, B], -inf for a member that does not exist
    fresh: jax.Array  # bool[M, B], members whose replacements have not been tried
    choices: jax.Array  # i32[M, B, L]
    queries: jax.Array  # i32[B]
    trace: jax.Array  # [R + 1, B]
    round: jax.Array  # i32[]


class _Search(NamedTuple):
    """All that stays the same from round to round."""

    loss_fn: TextLoss
    accept_fn: TextTest | None
    table: jax.Array  # f32[V, W]
    candidates: Candidates
    features: Features
    settings: Substitution
    budget: jax.Array  # i32[B]


class _Proposals(NamedTuple):
    """Replacements with the best first-order gains: arrays [..., k], rows [..., k, L]."""

    gain: jax.Array
    slot: jax.Array
    choice: jax.Array
    rows: Row


def substitute(
    loss_fn: TextLoss,
    table: Given,
    tokens: Given,
    mask: Given,
    words: Given,
    candidates: Table | Candidates | Lexicon,
    settings: Substitution,
    accept_fn: TextTest | None = None,
) -> TextAttack:
    """Substitute whole words under the gradient's guidance (HotFlip, Ebrahimi et al. 2018, with true re-scoring).

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
    # Check the input, and see what each row may replace.
    table, tokens, mask, words = (jnp.asarray(x) for x in (table, tokens, mask, words))
    check_rows(table, tokens, mask, words)
    if isinstance(candidates, Lexicon):
        candidates = candidates.table
    if isinstance(candidates, Table):
        candidates = for_rows(candidates, tokens, words)
    check_vocabulary(table, candidates.table.pieces, "the tokens of the candidates")
    budgets = settings.budgets(tokens.shape[1])
    budget, rounds = jnp.asarray(budgets)[jnp.max(words, axis=1) + 1], int(budgets.max())
    features = candidate_features(table, candidates.table)
    search = _Search(loss_fn, accept_fn, table, candidates, features, settings, budget)

    def going(state: _State) -> Bool[Array, ""]:
        more = state.fresh & ((state.choices >= 0).sum(-1, dtype=jnp.int32) < budget[None, :])
        return (state.round < rounds) & jnp.any(more)

    # Start from a beam that holds the given rows alone, and go round by round.
    state = _first_state(search, Row(tokens, mask, words), rounds)
    if rounds:
        state = jax.lax.while_loop(going, lambda state: _round(search, state), state)
    best, choices = jax.tree.map(lambda x: x[0], (state.rows, state.choices))
    return attack_of(best, state.loss[0], state.trace, choices, state.queries)


def _first_state(search: _Search, rows: Row, rounds: int) -> _State:
    batch, length = rows.tokens.shape
    beam = search.settings.beam

    def clean() -> PerRow:
        return search.loss_fn(search.table[rows.tokens], rows.tokens, rows.mask)

    # Where a round is sure to follow, its gradient gives this loss, too.
    kind = jax.eval_shape(clean)
    follows = jnp.any(search.budget > 0)
    loss, trace = _known_loss(jax.lax.cond(follows, lambda: jnp.zeros(kind.shape, kind.dtype), clean), beam, rounds)
    return _State(
        rows=jax.tree.map(lambda x: jnp.broadcast_to(x[None], (beam,) + x.shape), rows),
        loss=loss,
        fresh=jnp.broadcast_to(_is_first(beam), (beam, batch)),
        choices=jnp.full((beam, batch, length), -1, jnp.int32),
        queries=jnp.zeros((batch,), jnp.int32),
        trace=trace,
        round=jnp.zeros((), jnp.int32),
    )


def _is_first(beam: int) -> Bool[Array, "members one"]:
    return jnp.arange(beam, dtype=jnp.int32)[:, None] == 0


def _known_loss(
    clean_loss: PerRow, beam: int, rounds: int
) -> tuple[Float[Array, "members batch"], Float[Array, "entries batch"]]:
    """Return losses and trace of a beam that holds the given rows alone."""
    loss = jnp.where(_is_first(beam), clean_loss[None, :], -jnp.inf)
    return loss, jnp.broadcast_to(clean_loss[None, :], (rounds + 1, *clean_loss.shape))


def _round(search: _Search, state: _State) -> _State:
    """Propose replacements for every member of the beam, score the best ones, and keep the best texts."""
    settings, rows, used = search.settings, state.rows, state.choices >= 0
    batch = used.shape[1]

    # 1. The best replacements to first order. The first gradient brings the loss of the given rows along; later losses
    # are of the pass that chose.
    found, value = _propose_by_gradient(search, rows, used)
    loss, trace = _known_loss(value[0], settings.beam, state.trace.shape[0] - 1)
    begun = state.round > 0
    state = state._replace(loss=jnp.where(begun, state.loss, loss), trace=jnp.where(begun, state.trace, trace))

    # 2. They are forms [M * k, B] of every row.
    expands = state.fresh & (used.sum(-1, dtype=jnp.int32) < search.budget[None, :])
    valid = (found.gain > -jnp.inf) & expands[..., None]
    members, _, width = valid.shape

    def forms(x: Shaped[Array, "members batch width ..."]) -> Shaped[Array, "forms batch ..."]:
        return jnp.moveaxis(x, 2, 1).reshape((members * width, batch) + x.shape[3:])

    replaced, valid, slot, choice = jax.tree.map(forms, (found.rows, valid, found.slot, found.choice))
    if settings.max_queries is not None:
        valid &= jnp.cumsum(valid, axis=0, dtype=jnp.int32) + state.queries[None, :] <= settings.max_queries

    # 3. Their true losses.
    loss = score_replaced(search.loss_fn, search.accept_fn, search.table, replaced, valid, settings.forward_rows)
    parent = jnp.repeat(jnp.arange(members, dtype=jnp.int32), width)
    here = jnp.arange(used.shape[2], dtype=jnp.int32)[None, None, :] == slot[..., None]
    chosen = jnp.where(here, choice[..., None], state.choices[parent])

    # 4. The best M of present and replaced texts together; ties: present texts first, then the better rank.
    present, new = (rows, state.choices, state.loss), (replaced, chosen, loss)
    pool_rows, pool_choices, pool_loss = jax.tree.map(lambda *both: jnp.concatenate(both, axis=0), present, new)
    if members > 1:
        pool_loss = jnp.where(_repeats(pool_rows.tokens, pool_loss), -jnp.inf, pool_loss)
    best_loss, best = (x.T for x in jax.lax.top_k(pool_loss.T, members))
    kept, choices = jax.tree.map(lambda x: jnp.take_along_axis(x, best[..., None], axis=0), (pool_rows, pool_choices))
    later = jnp.arange(state.trace.shape[0], dtype=jnp.int32)[:, None] > state.round
    return _State(
        rows=kept,
        loss=best_loss,
        fresh=(best >= members) & (-jnp.inf < best_loss),
        choices=choices,
        queries=state.queries + valid.sum(0, dtype=jnp.int32),
        trace=jnp.where(later, best_loss[:1], state.trace),
        round=state.round + 1,
    )


def _propose_by_gradient(
    search: _Search, rows: Row, used: Bool[Array, "members batch length"]
) -> tuple[_Proposals, Float[Array, "members batch"]]:
    """Return proposals for [M, B] rows and the losses of these, as many members at a time as `forward_rows` allows."""
    members, batch, length = used.shape

    def some(rows: Row, used: Bool[Array, "some batch length"]) -> tuple[_Proposals, Float[Array, "some batch"]]:
        def total(embeddings: Float[Array, "some batch length width"]) -> tuple[Float[Array, ""], Array]:
            loss = _each_member(search.loss_fn)(embeddings, rows.tokens, rows.mask)
            return jnp.sum(loss), loss

        gradient, value = jax.grad(total, has_aux=True)(search.table[rows.tokens])
        return _propose(search, rows, gradient, used), value

    together = _together(members, batch, search.settings.forward_rows)
    if together == members:
        return some(rows, used)
    grouped = jax.tree.map(lambda x: x.reshape((members // together, together) + x.shape[1:]), (rows, used))
    found = jax.lax.map(lambda given: some(*given), grouped)
    return jax.tree.map(lambda x: x.reshape((members,) + x.shape[2:]), found)


def _propose(
    search: _Search,
    rows: Row,
    gradient: Float[Array, "members batch length width"],
    used: Bool[Array, "members batch length"],
) -> _Proposals:
    """Return the proposals of [M, B] rows, as many at a time as `GAINS_AT_ONCE` allows."""
    (members, batch, length), candidates = used.shape, search.candidates
    repeated = jax.tree.map(
        lambda x: jnp.tile(x, (members,) + (1,) * (x.ndim - 1)), (candidates.present, candidates.open, candidates.lists)
    )
    flat = jax.tree.map(lambda x: x.reshape((members * batch,) + x.shape[2:]), (rows, gradient, used))
    # With lists, the embeddings of every slot's own candidates are gathered.
    columns = search.features.own.shape[0]
    if candidates.lists is not None:
        columns = candidates.lists.shape[2] * search.features.own.shape[1]
    together = max(1, GAINS_AT_ONCE // (length * columns))

    one = functools.partial(_propose_row, search)
    if members * batch <= together:
        found = jax.vmap(one)(*flat, *repeated)
    else:
        found = jax.lax.map(lambda given: one(*given), (*flat, *repeated), batch_size=together)
    return jax.tree.map(lambda x: x.reshape((members, batch) + x.shape[1:]), found)


def _propose_row(
    search: _Search,
    row: Row,
    gradient: Float[Array, "length width"],
    used: Bool[Array, "length"],
    present: Int[Array, "length"],
    open_: Bool[Array, "length"],
    lists: Int[Array, "length columns"] | None,
) -> _Proposals:
    """Return the `top_k` replacements of one row with the highest allowed gains."""
    entries, slots = search.candidates.table, find_slots(row.words)
    gains = word_gains(search.table, search.features, entries, row.tokens, gradient, slots, lists)
    entry = jnp.arange(entries.lengths.shape[0], dtype=jnp.int32)[None, :] if lists is None else lists
    allowed = may_replace(entries, row, entry, present[:, None], slots.length[:, None])
    allowed &= (open_ & ~used)[:, None]
    gains = jnp.where(allowed & ~jnp.isnan(gains), gains, -jnp.inf)
    if search.settings.moves != ("replace",):
        return _propose_moves(search, row, gradient, used, present, open_, entry, slots, gains)
    gains = gains.reshape(-1)
    best, where = jax.lax.top_k(gains, min(search.settings.top_k, gains.shape[0]))
    slot, column = where // allowed.shape[1], where % allowed.shape[1]
    choice = jnp.maximum(column if lists is None else lists[slot, column], 0)
    return _Proposals(best, slot, choice, put_words(entries, row, slot, slots, choice))


def _propose_moves(
    search: _Search,
    row: Row,
    gradient: Float[Array, "length width"],
    used: Bool[Array, "length"],
    present: Int[Array, "length"],
    open_: Bool[Array, "length"],
    entry: Int[Array, "rows columns"],
    slots: Slots,
    replacing: Float[Array, "length columns"],
) -> _Proposals:
    """Return the `top_k` moves of one row with the highest allowed gains, replacements among them if any."""
    entries, moves, settings = search.candidates.table, search.settings.moves, search.settings
    gains, choices = more_gains(search.table, entries, row, gradient, slots, entry, present, moves)
    gains = [allowed_slots(open_, used, gain) for gain in gains]
    if "replace" in moves:
        gains = [replacing, *gains]
        choices = [jnp.broadcast_to(jnp.maximum(entry, 0), replacing.shape), *choices]
    gain, choice = jnp.concatenate(gains, axis=1), jnp.concatenate(choices, axis=1)
    best, where = jax.lax.top_k(gain.reshape(-1), min(settings.top_k, gain.size))
    slot, column = where // gain.shape[1], where % gain.shape[1]
    chosen = choice[slot, column]
    return _Proposals(best, slot, chosen, put(entries, row, slot, slots, chosen))


def _each_member(fn: TextLoss) -> Callable[..., jax.Array]:
    """Map `fn` over a leading axis; one of length 1 is taken off instead, because it slows XLA's reductions
    on a CPU.
    """

    def run(*arrays: Array) -> Array:
        if arrays[0].shape[0] > 1:
            return jax.vmap(fn)(*arrays)
        return fn(*(x[0] for x in arrays))[None]

    return run


def _repeats(tokens: Int[Array, "pool batch length"], loss: Float[Array, "pool batch"]) -> Bool[Array, "pool batch"]:
    """Return which texts of a pool an earlier entry with a finite rank already holds."""
    number = tokens.shape[0]

    def one(index: Int[Array, ""]) -> Bool[Array, "batch"]:
        same = jnp.all(tokens == tokens[index][None], axis=-1)
        earlier = jnp.arange(number, dtype=jnp.int32) < index
        return jnp.any(same & earlier[:, None] & (loss > -jnp.inf), axis=0)

    entries = jnp.arange(number, dtype=jnp.int32)
    together = max(1, GAINS_AT_ONCE // tokens.size)
    return jax.vmap(one)(entries) if number <= together else jax.lax.map(one, entries, batch_size=together)
