"""Scoring replaced words by a causal encoder without computing again what stands before them.

A causal encoder's state at a token depends on the tokens up to it. A text with one word replaced therefore shares all
that was computed before that word with the text it comes from, and needs only the tail from there to its end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ranjax.attacks.text import words as words_lib

ROOMS = (0.25, 0.375, 0.5, 0.57, 0.66, 0.76, 0.87, 1.0)
"""Sizes of a pass over tails, as shares of the longest tails possible: of these the least that holds them is taken.

Each one is compiled. The tails of many texts are a half to two thirds of that together, so the steps are fine there.
"""


class TextResume(NamedTuple):
    """Features of a text encoder in two parts.

    Attributes:
      encode: ``(embeddings, tokens, mask) -> (features f32[B, D], cache)``; the cache is a pytree of arrays with the
        batch first.
      again: ``(cache, rows i32[G], start i32[G], end i32[G], room, tokens i32[G, L], mask bool[G, L])
        -> features f32[G, D]``: of texts that equal row `rows` of the cache before `start` and have no real token
        from `end` on; `room` (a plain number) is the sum of ``end - start`` or more.
    """

    encode: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
    again: Callable[[Any, jax.Array, jax.Array, jax.Array, int, jax.Array, jax.Array], jax.Array]


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
        functools.partial(functions.text_features_resumed, params, functions.text_blocks(params)),
    )


def losses(resume: Resume, cache: Any, rows: words_lib.Row, replaced: words_lib.Row, most: int) -> jax.Array:
    """Losses [n, B] of n replaced forms of every row, n / M of each of M members.

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
    end = jax.vmap(words_lib.real_length)(replaced.mask.reshape(-1, length))
    own = jnp.tile(jnp.arange(batch, dtype=jnp.int32), number)
    texts = _Texts(
        jnp.repeat(parent, batch) * batch + own,
        jnp.minimum(start, end),
        end,
        replaced.tokens.reshape(-1, length),
        replaced.mask.reshape(-1, length),
    )
    cache = jax.tree.map(lambda x: x.reshape((members * batch,) + x.shape[2:]), cache)

    groups = -(-number * batch // most)
    group = -(-number * batch // groups)
    rooms = sorted({math.ceil(share * group * length) for share in ROOMS})

    def one(texts: _Texts) -> jax.Array:
        least = jnp.searchsorted(jnp.asarray(rooms, jnp.int32), jnp.sum(texts.end - texts.start, dtype=jnp.int32))
        ways = [functools.partial(_again, resume.text, room) for room in rooms]
        return jax.lax.switch(least, ways, cache, texts)

    if groups == 1:
        features = one(texts)
    else:
        features = jax.lax.map(one, jax.tree.map(lambda x: _grouped(x, groups, group), texts))
        features = features.reshape((groups * group,) + features.shape[2:])[: number * batch]
    return resume.loss(features, own).reshape(number, batch)


class _Texts(NamedTuple):
    """Texts to be taken up: arguments of `TextResume.again`, each with the texts first."""

    rows: jax.Array
    start: jax.Array
    end: jax.Array
    tokens: jax.Array
    mask: jax.Array


def _grouped(x: jax.Array, groups: int, group: int) -> jax.Array:
    """x [n, ...] as [groups, group, ...], filled up by its last entry."""
    index = jnp.minimum(jnp.arange(groups * group, dtype=jnp.int32), x.shape[0] - 1)
    return x[index].reshape((groups, group) + x.shape[1:])


def _again(text: TextResume, room: int, cache: Any, texts: _Texts) -> jax.Array:
    return text.again(cache, texts.rows, texts.start, texts.end, room, texts.tokens, texts.mask)
