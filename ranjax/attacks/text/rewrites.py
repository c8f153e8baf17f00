"""Choice among rewritten captions: whole texts made on the host, of which a true forward pass takes the worst.

Where `substitution` searches word by word, here every row brings a bounded number of finished texts, e.g. those of a
medical grammar (`ranjax.data.captions`). All of them are scored, and the one that raises the loss most is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ranjax.attacks.input_checks import check_rows, check_vocabulary
from ranjax.attacks.text.substitution import Given, TextAttack, TextLoss, TextTest, attack_of, score_replaced
from ranjax.attacks.text.words import Row

FORWARD_ROWS = 256
"""Most rows of one forward pass, which bounds the memory."""


class Rewrites(NamedTuple):
    """Texts that may stand in for each of R rows, K a row; a pytree of arrays.

    Attributes:
      tokens: i32[R, K, L]; mask: bool[R, K, L]: the texts in the tokens of the attacked rows.
      valid: bool[R, K], False where a row has fewer than K.
    """

    tokens: jax.Array
    mask: jax.Array
    valid: jax.Array


def choose(
    loss_fn: TextLoss,
    table: Given,
    tokens: Given,
    mask: Given,
    words: Given,
    rewrites: Rewrites,
    accept_fn: TextTest | None = None,
) -> TextAttack:
    """Take of each row's texts the one of the highest loss, whether or not that is above the row's own.

    A row without a text stays as it is: that a caption becomes false does not depend on the surrogate's view of it.
    Ties go to the earlier text. A text whose loss is NaN is not taken.

    Args:
      loss_fn, table, tokens, mask, words: as of `substitution.substitute`; no gradient is taken.
      rewrites: what may stand in for the rows.
      accept_fn: as of `substitution.substitute`; a text for which it is False is not taken.

    Returns:
      A `TextAttack` of trace f32[2, B]. `choices` holds in slot 0 the number of the text taken, -1 for none; `words` is
      -1 on a row that was rewritten, whose words have no counterpart in the original; `edits` counts texts.

    Raises:
      ValueError: shapes or dtypes do not fit.
    """
    table, tokens, mask, words = (jnp.asarray(x) for x in (table, tokens, mask, words))
    check_rows(table, tokens, mask, words)
    check_vocabulary(table, rewrites.tokens, "the tokens of the rewritten captions")
    count = rewrites.tokens.shape[1]
    if rewrites.tokens.shape != (tokens.shape[0], count, tokens.shape[1]):
        raise ValueError(f"rewrites of shape {rewrites.tokens.shape} for rows of shape {tokens.shape}")
    new, new_mask = (jnp.moveaxis(x, 1, 0) for x in (rewrites.tokens, rewrites.mask))
    forms = Row(new, new_mask, jnp.full_like(new, -1))
    clean = loss_fn(table[tokens], tokens, mask)
    loss = score_replaced(loss_fn, accept_fn, table, forms, rewrites.valid.T, FORWARD_ROWS)
    best = jnp.argmax(loss, axis=0).astype(jnp.int32)
    number = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    taken = loss[best, number] > -jnp.inf
    given = Row(tokens, mask, words)
    rows = jax.tree.map(lambda new, old: jnp.where(taken[:, None], new[best, number], old), forms, given)
    raised = jnp.where(taken, loss[best, number], clean)
    first = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] == 0
    choices = jnp.where(first & taken[:, None], best[:, None], -1)
    queries = rewrites.valid.sum(1, dtype=jnp.int32)
    return attack_of(rows, raised, jnp.stack([clean, raised]), choices, queries)
