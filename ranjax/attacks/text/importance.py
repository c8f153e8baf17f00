"""Substitution in the order of importance, with candidates of a masked language model (BERT-Attack, Li et al. 2020).

Every word's importance is the rise of the loss when it is hidden. Words are then visited once, the most important
first; at each, all its candidates are scored by a forward pass and the best is taken if it raises the loss, until the
budget is spent. No gradient is needed, so the loss may be a black box.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ranjax.attacks.input_checks import check_rows, is_traced
from ranjax.attacks.text.candidates import Candidates, may_replace, put_words
from ranjax.attacks.text.substitution import (
    Given,
    Substitution,
    TextAttack,
    TextLoss,
    TextTest,
    attack_of,
    row_losses,
    score_replaced,
)
from ranjax.attacks.text.words import MaskRows, PerRow, Row, TokenRows, find_slots, replace_word
from ranjax.core.errors import ConfigError

HIDE = ("unk", "delete")


def importance(
    loss_fn: TextLoss,
    table: Float[Array | np.ndarray, "vocabulary width"],
    tokens: TokenRows,
    mask: MaskRows,
    words: TokenRows,
    open_: MaskRows,
    *,
    hide_id: int,
    pad_id: int | Int[Array, ""],
    hide: str = "unk",
    forward_rows: int = 256,
) -> tuple[Float[Array, "batch length"], PerRow]:
    """Return the rise of the loss when a word is hidden, -inf in slots that are not open; and the clean loss.

    Args:
      loss_fn, table, tokens, mask, words: as of `text.substitute`.
      open_: slots to be judged.
      hide_id: token that stands for a hidden word ([UNK] or [MASK]), of any number of pieces.
      pad_id: the padding token.
      hide: "unk", or "delete": the word is removed and the rest moves up.
      forward_rows: most rows of one forward pass.

    Raises:
      ConfigError: unknown `hide`, or a `hide_id` without a row in the table.
    """
    if hide not in HIDE:
        raise ConfigError("hide", hide, f"one of {HIDE}")
    if not is_traced(hide_id) and not 0 <= hide_id < table.shape[0]:
        expected = f"a token, 0 to {table.shape[0] - 1}, which the token table has a row for"
        raise ConfigError("hide_id", hide_id, expected)
    pieces, count = jnp.full((1,), hide_id, jnp.int32), jnp.int32(hide == "unk")

    def hidden(slot: Int[Array, ""], row: Row) -> Row:
        slots = find_slots(row.words)
        new = replace_word(row, slot, slots, pieces, count, jnp.asarray(pad_id, jnp.int32))
        # An empty slot has nothing to hide; its row must not grow.
        return jax.tree.map(lambda a, b: jnp.where(slots.length[slot] > 0, a, b), new, row)

    table, rows = jnp.asarray(table), Row(tokens, mask, words)
    each = jax.vmap(jax.vmap(hidden, in_axes=(None, 0)), in_axes=(0, None))
    clean = loss_fn(table[tokens], tokens, mask)
    slots = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    rise = row_losses(loss_fn, table, each(slots, rows), forward_rows).T - clean[:, None]
    return jnp.where(open_ & ~jnp.isnan(rise), rise, -jnp.inf), clean


class _State(NamedTuple):
    rows: Row  # arrays [B, L]
    loss: jax.Array  # [B]
    choices: jax.Array  # i32[B, L]
    queries: jax.Array  # i32[B]
    trace: jax.Array  # [L + 1, B]
    visited: jax.Array  # i32[], words visited so far


def ranked(
    loss_fn: TextLoss,
    table: Given,
    tokens: Given,
    mask: Given,
    words: Given,
    candidates: Candidates,
    settings: Substitution,
    *,
    hide_id: int,
    hide: str = "unk",
    accept_fn: TextTest | None = None,
) -> TextAttack:
    """Substitute whole words in the order of their importance (BERT-Attack, Li et al. 2020, arXiv 2004.09984).

    Ties in importance go to the smaller slot, in loss to the earlier candidate; a candidate is taken only if its loss
    is strictly above the present one. Differs from public code that reads a masked LM's lists one position early: here
    slots are words, so specials cannot shift them.

    Args:
      loss_fn, table, tokens, mask, words: as of `text.substitute`; no gradient is taken.
      candidates: with lists per slot, see `candidates.for_rows` and `candidate_sources.masked_lm_lists`.
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
    (batch, length), entries, lists = tokens.shape, candidates.table, candidates.lists
    number = jnp.arange(batch, dtype=jnp.int32)

    # Judge the open words, as many as the queries allow, and order them by their importance.
    budget = jnp.asarray(settings.budgets(length))[jnp.max(words, axis=1) + 1]
    limit = jnp.iinfo(jnp.int32).max if settings.max_queries is None else settings.max_queries
    open_ = candidates.open & (budget > 0)[:, None]
    judged = open_ & (jnp.cumsum(open_, axis=1, dtype=jnp.int32) <= limit)
    given = (table, tokens, mask, words, judged)
    rise, clean = importance(
        loss_fn, *given, hide_id=hide_id, pad_id=entries.pad_id, hide=hide, forward_rows=settings.forward_rows
    )
    order = jnp.argsort(-rise, axis=1, stable=True).astype(jnp.int32)

    def unspent(state: _State) -> Bool[Array, "batch"]:
        return (state.choices >= 0).sum(1, dtype=jnp.int32) < budget

    def replace(row: Row, slot: Array, choice: Int[Array, "columns"], present: Array) -> tuple[Row, Array]:
        """Return one row with each candidate in the slot, [columns, L], and whether it may be there."""
        slots = find_slots(row.words)
        forms = put_words(entries, row, jnp.broadcast_to(slot, choice.shape), slots, jnp.maximum(choice, 0))
        return forms, may_replace(entries, row, choice, present[None], slots.length[slot][None])

    def visit(state: _State) -> _State:
        # All candidates of each row's next word, as forms [K, B] of every row.
        slot = order[:, state.visited]
        choice = lists[number, slot]
        forms, allowed = jax.vmap(replace)(state.rows, slot, choice, candidates.present[number, slot])
        forms = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), forms)
        going = (rise[number, slot] > -jnp.inf) & unspent(state)
        allowed = (allowed & going[:, None]).T
        allowed &= jnp.cumsum(allowed, axis=0, dtype=jnp.int32) + state.queries[None, :] <= limit
        # The best of them is taken if it raises the loss.
        loss = score_replaced(loss_fn, accept_fn, table, forms, allowed, settings.forward_rows)
        best = jnp.argmax(loss, axis=0)
        top = loss[best, number]
        taken = top > state.loss
        rows = jax.tree.map(lambda new, old: jnp.where(taken[:, None], new[best, number], old), forms, state.rows)
        here = (jnp.arange(length, dtype=jnp.int32)[None, :] == slot[:, None]) & taken[:, None]
        loss = jnp.where(taken, top, state.loss)
        later = jnp.arange(length + 1, dtype=jnp.int32)[:, None] > state.visited
        return _State(
            rows=rows,
            loss=loss,
            choices=jnp.where(here, choice[number, best][:, None], state.choices),
            queries=state.queries + allowed.sum(0, dtype=jnp.int32),
            trace=jnp.where(later, loss[None, :], state.trace),
            visited=state.visited + 1,
        )

    def going(state: _State) -> Bool[Array, ""]:
        next_rise = rise[number, order[:, jnp.minimum(state.visited, length - 1)]]
        return (state.visited < length) & jnp.any((next_rise > -jnp.inf) & unspent(state))

    state = _State(
        rows=Row(tokens, mask, words),
        loss=clean,
        choices=jnp.full((batch, length), -1, jnp.int32),
        queries=judged.sum(1, dtype=jnp.int32),
        trace=jnp.broadcast_to(clean[None, :], (length + 1, batch)),
        visited=jnp.zeros((), jnp.int32),
    )
    state = jax.lax.while_loop(going, visit, state)
    return attack_of(state.rows, state.loss, state.trace, state.choices, state.queries)
