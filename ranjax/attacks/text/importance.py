"""Substitution in the order of importance, with candidates of a masked language model (BERT-Attack, Li et al. 2020).

Every word's importance is the rise of the loss when it is hidden. Words are then visited once, the most important
first; at each, all its candidates are scored by a forward pass and the best is taken if it raises the loss, until the
budget is spent. No gradient is needed, so the loss may be a black box.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ranjax.attacks.input_checks import check_rows, is_traced
from ranjax.attacks.text import words as words_lib
from ranjax.attacks.text.candidates import Candidates
from ranjax.attacks.text.substitution import Substitution, TextAttack, TextLoss, TextTest, row_losses
from ranjax.core.errors import ConfigError

HIDE = ("unk", "delete")


def importance(
    loss_fn: TextLoss,
    table: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    words: jax.Array,
    open_: jax.Array,
    *,
    hide_id: int,
    pad_id: int | jax.Array,
    hide: str = "unk",
    forward_rows: int = 256,
) -> tuple[jax.Array, jax.Array]:
    """Rise of the loss when a word is hidden, f32[B, L], -inf in slots that are not open; and the clean loss f32[B].

    Args:
      loss_fn, table, tokens, mask, words: as of `text.substitute`.
      open_: bool[B, L], slots to be judged.
      hide_id: token that stands for a hidden word ([UNK] or [MASK]), whatever its number of pieces.
      pad_id: the padding token.
      hide: "unk", or "delete": the word is removed and the rest moves up.
      forward_rows: most rows of one forward pass.

    Raises:
      ConfigError: unknown `hide`, or a `hide_id` without a row in the table.
    """
    if hide not in HIDE:
        raise ConfigError("hide", hide, f"one of {HIDE}")
    if not is_traced(hide_id) and not 0 <= hide_id < table.shape[0]:
        raise ConfigError(
            "hide_id", hide_id, f"a token, 0 to {table.shape[0] - 1}, which the token table has a row for"
        )
    length = tokens.shape[1]
    pieces, count = jnp.full((1,), hide_id, jnp.int32), jnp.int32(hide == "unk")

    def hidden(slot: jax.Array, row: words_lib.Row) -> words_lib.Row:
        slots = words_lib.find_slots(row.words)
        new = words_lib.replace_word(row, slot, slots, pieces, count, jnp.asarray(pad_id, jnp.int32))
        # An empty slot has nothing to hide; its row must not grow.
        return jax.tree.map(lambda a, b: jnp.where(slots.length[slot] > 0, a, b), new, row)

    rows = words_lib.Row(tokens, mask, words)
    each = jax.vmap(jax.vmap(hidden, in_axes=(None, 0)), in_axes=(0, None))
    clean = loss_fn(table[tokens], tokens, mask)
    losses = row_losses(loss_fn, table, each(jnp.arange(length, dtype=jnp.int32), rows), forward_rows).T
    rise = losses - clean[:, None]
    return jnp.where(open_ & ~jnp.isnan(rise), rise, -jnp.inf), clean


class _State(NamedTuple):
    rows: words_lib.Row
    loss: jax.Array
    choices: jax.Array
    queries: jax.Array
    trace: jax.Array
    visited: jax.Array


def ranked(
    loss_fn: TextLoss,
    table: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    words: jax.Array,
    candidates: Candidates,
    settings: Substitution,
    *,
    hide_id: int,
    hide: str = "unk",
    accept_fn: TextTest | None = None,
) -> TextAttack:
    """Importance-ranked substitution of whole words (BERT-Attack, Li et al. 2020, arXiv 2004.09984).

    Ties in importance go to the smaller slot, in loss to the earlier candidate; a candidate is taken only if its loss
    is strictly above the present one. Differs from public code that reads a masked LM's lists one position early: here
    slots are words, so specials cannot shift them.

    Args:
      loss_fn, table, tokens, mask, words: as of `text.substitute`; no gradient is taken.
      candidates: with lists per slot, see `candidates.for_rows` and `sources.masked_lm_lists`.
      settings: budget of words, queries and rows per pass; `top_k` and `beam` do not apply.
      hide_id, hide: see `importance`.
      accept_fn: as of `text.substitute`.

    Returns:
      A `TextAttack`; trace f32[L + 1, B] over visited words; queries count the passes for importance, too.

    Raises:
      ConfigError: unknown `hide`, or a `hide_id` without a row in the table.
      ValueError: shapes do not fit, or candidates without lists.
    """
    table, tokens, mask, words = (jnp.asarray(x) for x in (table, tokens, mask, words))
    check_rows(table, tokens, mask, words)
    if candidates.lists is None:
        raise ValueError("candidates need lists per slot here: candidates.for_rows(table, tokens, words, lists)")
    batch, length = tokens.shape
    entries, lists = candidates.table, candidates.lists
    budget = jnp.asarray(settings.budgets(length))[jnp.max(words, axis=1) + 1]
    limit = jnp.iinfo(jnp.int32).max if settings.max_queries is None else settings.max_queries
    open_ = candidates.open & (budget > 0)[:, None]
    judged = open_ & (jnp.cumsum(open_, axis=1, dtype=jnp.int32) <= limit)
    rise, clean = importance(
        loss_fn,
        table,
        tokens,
        mask,
        words,
        judged,
        hide_id=hide_id,
        pad_id=entries.pad_id,
        hide=hide,
        forward_rows=settings.forward_rows,
    )
    order = jnp.argsort(-rise, axis=1, stable=True).astype(jnp.int32)
    batch_rows = jnp.arange(batch, dtype=jnp.int32)

    def replace(row: words_lib.Row, slot: jax.Array, choice: jax.Array, present: jax.Array):
        """Rows [K, L] with each candidate in the slot, and whether it may be there."""
        slots = words_lib.find_slots(row.words)
        known = jnp.maximum(choice, 0)
        room = length - words_lib.real_length(row.mask)
        allowed = (choice >= 0) & entries.offered[known] & (choice != present)
        allowed &= entries.lengths[known] - slots.length[slot] <= room
        change = jax.vmap(words_lib.replace_word, in_axes=(None, None, None, 0, 0, None))
        return change(row, slot, slots, entries.pieces[known], entries.lengths[known], entries.pad_id), allowed

    def spent(state: _State) -> jax.Array:
        return (state.choices >= 0).sum(1, dtype=jnp.int32) >= budget

    def visit(state: _State) -> _State:
        slot = order[:, state.visited]
        choice = lists[batch_rows, slot]
        rows, allowed = jax.vmap(replace)(state.rows, slot, choice, candidates.present[batch_rows, slot])
        going = (rise[batch_rows, slot] > -jnp.inf) & ~spent(state)
        allowed = (allowed & going[:, None]).T
        allowed &= jnp.cumsum(allowed, axis=0, dtype=jnp.int32) + state.queries[None, :] <= limit
        rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), rows)
        loss = row_losses(loss_fn, table, rows, settings.forward_rows)
        fair = allowed & ~jnp.isnan(loss)
        if accept_fn is not None:
            fair &= row_losses(accept_fn, table, rows, settings.forward_rows)
        loss = jnp.where(fair, loss, -jnp.inf)
        best = jnp.argmax(loss, axis=0)
        top = loss[best, batch_rows]
        taken = top > state.loss
        keep = lambda new, old: jnp.where(taken[:, None], new[best, batch_rows], old)  # noqa: E731
        here = (jnp.arange(length, dtype=jnp.int32)[None, :] == slot[:, None]) & taken[:, None]
        loss = jnp.where(taken, top, state.loss)
        later = jnp.arange(length + 1, dtype=jnp.int32)[:, None] > state.visited
        return _State(
            rows=jax.tree.map(keep, rows, state.rows),
            loss=loss,
            choices=jnp.where(here, choice[batch_rows, best][:, None], state.choices),
            queries=state.queries + allowed.sum(0, dtype=jnp.int32),
            trace=jnp.where(later, loss[None, :], state.trace),
            visited=state.visited + 1,
        )

    def going(state: _State) -> jax.Array:
        next_rise = rise[batch_rows, order[:, jnp.minimum(state.visited, length - 1)]]
        return (state.visited < length) & jnp.any((next_rise > -jnp.inf) & ~spent(state))

    state = _State(
        rows=words_lib.Row(tokens, mask, words),
        loss=clean,
        choices=jnp.full((batch, length), -1, jnp.int32),
        queries=judged.sum(1, dtype=jnp.int32),
        trace=jnp.broadcast_to(clean[None, :], (length + 1, batch)),
        visited=jnp.zeros((), jnp.int32),
    )
    state = jax.lax.while_loop(going, visit, state)
    changed = state.choices >= 0
    edits = changed.sum(1, dtype=jnp.int32)
    return TextAttack(
        state.rows.tokens,
        state.rows.mask,
        state.rows.words,
        state.loss,
        clean,
        state.trace,
        changed,
        state.choices,
        edits,
        state.queries,
    )
