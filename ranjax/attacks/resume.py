"""Scoring replaced words by a causal encoder without computing again what stands before them.

A causal encoder's state at a token depends on the tokens up to it. A text with one word replaced therefore shares all
that was computed before that word with the text it comes from, and needs only the window from there to its end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ranjax.attacks import words as words_lib

GROUP = 16
"""Texts that are computed together, in a window as long as the longest of them needs."""


class TextResume(NamedTuple):
    """Features of a text encoder in two parts.

    Attributes:
      encode: ``(embeddings, tokens, mask) -> (features f32[B, D], cache)``; the cache is a pytree of arrays with the
        batch first.
      again: ``(cache, start i32[G], width, tokens i32[G, L], mask bool[G, L]) -> features f32[G, D]``: of texts that
        equal those of the cache before `start`, computed over `width` (a plain number) positions from there.
    """

    encode: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
    again: Callable[[Any, jax.Array, int, jax.Array, jax.Array], jax.Array]


class Resume(NamedTuple):
    """A loss in two parts, from features in two parts.

    Attributes:
      text: the features.
      loss: ``(features f32[N, D], rows i32[N]) -> f32[N]``; `rows` says which row of the batch each one comes from.
    """

    text: TextResume
    loss: Callable[[jax.Array, jax.Array], jax.Array]

    def encode(self, embeddings: jax.Array, tokens: jax.Array, mask: jax.Array) -> tuple[jax.Array, Any]:
        """The loss f32[B] of whole texts, and their cache."""
        features, cache = self.text.encode(embeddings, tokens, mask)
        return self.loss(features, jnp.arange(tokens.shape[0], dtype=jnp.int32)), cache


def of_encoder(functions: Any, params: Any) -> TextResume | None:
    """The text side of `ranjax.models.DualEncoderFunctions` in two parts; None where it is not causal (BERT)."""
    if not functions.is_causal:
        return None
    return TextResume(
        lambda embeddings, tokens, mask: functions.text_features_cached(params, tokens, mask, embeddings),
        functools.partial(functions.text_features_resumed, params),
    )


def losses(resume: Resume, cache: Any, rows: words_lib.Row, replaced: words_lib.Row, most: int) -> jax.Array:
    """Losses [n, B] of n replaced forms of every row, n / M of each of M members.

    Texts are put in the order of what they need, and every group of them takes the narrowest of four windows.

    Args:
      resume: the loss.
      cache: of `Resume.encode`, with leading axes [M, B].
      rows: arrays [M, B, L], what the cache is of. replaced: arrays [n, B, L].
      most: texts of one forward pass at most.
    """
    members, batch, length = rows.tokens.shape
    number = replaced.tokens.shape[0]
    parent = jnp.repeat(jnp.arange(members, dtype=jnp.int32), number // members)
    differs = (replaced.tokens != rows.tokens[parent]) | (replaced.mask != rows.mask[parent])
    start = jnp.argmax(differs, axis=-1).astype(jnp.int32).reshape(-1)
    need = jnp.clip(jnp.sum(replaced.mask, axis=-1, dtype=jnp.int32).reshape(-1) - start, 1, length)
    tokens, mask = replaced.tokens.reshape(-1, length), replaced.mask.reshape(-1, length)
    own = jnp.tile(jnp.arange(batch, dtype=jnp.int32), number)
    place = jnp.repeat(parent, batch) * batch + own
    cache = jax.tree.map(lambda x: x.reshape((members * batch,) + x.shape[2:]), cache)

    widths = sorted({-(-length * quarter // 4) for quarter in (1, 2, 3, 4)})
    group = max(1, min(GROUP, most, number * batch))
    order = jnp.argsort(need)
    groups = -(-number * batch // group)
    filled = order[jnp.minimum(jnp.arange(groups * group, dtype=jnp.int32), number * batch - 1)]

    def one(index: jax.Array) -> jax.Array:
        narrowest = jnp.searchsorted(jnp.asarray(widths, jnp.int32), jnp.max(need[index]))
        held = jax.tree.map(lambda x: x[place[index]], cache)
        windows = [functools.partial(_again, resume.text, width) for width in widths]
        return jax.lax.switch(narrowest, windows, held, start[index], tokens[index], mask[index])

    features = jax.lax.map(one, filled.reshape(groups, group))
    features = features.reshape((groups * group,) + features.shape[2:])[: number * batch]
    found = resume.loss(features, own[order])
    return jnp.zeros(number * batch, found.dtype).at[order].set(found).reshape(number, batch)


def _again(text: TextResume, width: int, cache: Any, start: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    return text.again(cache, start, width, tokens, mask)
