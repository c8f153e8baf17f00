"""A causal text tower in two parts: a whole text once, and then texts that differ from it only after some position.

What a causal tower computes at a token depends on the tokens up to it alone. So a text with one word replaced shares
the keys and values of everything before that word, and only the rest, its tail, is computed again.

Tails differ in length. Everything but attention works on tokens one by one, so the tails of all texts are put one
after another into one stream, without padding between them; only attention sees them text by text. A stream is compiled
for several lengths, so its blocks are scanned, which takes a sixth of the code and, at so many tokens, no time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.models.layers import Block, take_position
from ranjax.models.towers.text_transformer import TextTransformer, pooling_positions

Cache = tuple[jax.Array, jax.Array]
"""Keys and values of all blocks, each [B, blocks, L, width]."""


def encode(
    tower: TextTransformer, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array
) -> tuple[jax.Array, Cache]:
    """What ``tower(tokens, mask, embeddings)`` gives, [B, width], and the keys and values it was made from."""
    length, dtype = tokens.shape[1], embeddings.dtype
    x = embeddings + tower.positions[...][:length].astype(dtype)[None]
    allowed = jnp.tril(jnp.ones((length, length), bool))[None, None] & mask[:, None, None, :]
    position = pooling_positions(tokens, mask, tower.eos_id, tower.pooling)
    cache = []
    for number, block in enumerate(_blocks(tower)):
        normed = block.norm1(x)
        keys_values = block.attention.keys_values(normed)
        cache.append(keys_values)
        if number == tower.blocks.depth - 1:
            x, normed = take_position(x, position), take_position(normed, position)
            allowed = take_position(allowed, position, axis=2)
        x = x + block.attention.mix(normed, *keys_values, allowed)
        x = x + block.mlp(block.norm2(x))
    keys, values = (jnp.stack(part, axis=1) for part in zip(*cache))
    return tower.norm_after(x[:, 0]), (keys, values)


def stacked(tower: TextTransformer) -> dict[str, Any]:
    """The parameters of all blocks but the last, one behind another along a new first axis, as `resume` scans them."""
    states = [nnx.to_pure_dict(nnx.state(block)) for block in _blocks(tower)[:-1]]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if states else {}


def resume(
    tower: TextTransformer,
    blocks: dict[str, Any],
    cache: Cache,
    rows: jax.Array,
    start: jax.Array,
    end: jax.Array,
    room: int,
    tokens: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """The pooled state [G, width of the tower] of texts that equal cached ones before `start`.

    Args:
      tower: the one that made the cache.
      blocks: its `stacked` parameters.
      cache: of `encode`.
      rows: i32[G], which text of the cache each one equals.
      start: i32[G], first position that may differ.
      end: i32[G], one past the last token to be computed; the pooled one is at `start` or after it, and before `end`.
      room: tokens that are computed in all, at least the sum of ``end - start``.
      tokens: i32[G, L]; mask: bool[G, L].
    """
    (batch, depth, length, width), dtype = cache[0].shape, cache[0].dtype
    cache = cache[0].swapaxes(0, 1), cache[1].swapaxes(0, 1)
    # The stream: of every place the text and the position there. Places beyond the last tail repeat some token.
    last = jnp.cumsum(end - start, dtype=jnp.int32)
    first = last - (end - start)
    place = jnp.arange(room, dtype=jnp.int32)
    text = jnp.minimum(jnp.searchsorted(last, place, side="right"), tokens.shape[0] - 1).astype(jnp.int32)
    at = jnp.clip(start[text] + place - first[text], 0, length - 1)
    # And of every position of every text the place; what stands before `start` or from `end` on has none.
    position = jnp.arange(length, dtype=jnp.int32)[None]
    places = jnp.clip(first[:, None] + position - start[:, None], 0, room - 1)
    held = jnp.where(position < start[:, None], rows[:, None] * length + position, batch * length + places)
    allowed = jnp.tril(jnp.ones((length, length), bool))[None, None] & mask[:, None, None, :]
    pooled = pooling_positions(tokens, mask, tower.eos_id, tower.pooling).astype(jnp.int32)

    x = tower.token_embedding[...][tokens[text, at]].astype(dtype) + tower.positions[...][at].astype(dtype)

    def offered(block: Block, normed: jax.Array, kept: Cache) -> tuple[jax.Array, jax.Array]:
        """Keys and values [G, L, width] of a block: those of the cache before `start`, own ones from there on."""
        keys, values = (
            jnp.concatenate([old.reshape(batch * length, width), new])[held]
            for old, new in zip(kept, block.attention.keys_values(normed))
        )
        return keys, values

    def finished(block: Block, x: jax.Array, mixed: jax.Array) -> jax.Array:
        x = x + block.attention.out(mixed)
        return x + block.mlp(block.norm2(x))

    def whole(x: jax.Array, given: tuple[dict[str, Any], Cache]) -> tuple[jax.Array, None]:
        block = nnx.merge(graph, given[0])
        normed = block.norm1(x)
        query = block.attention.query(normed)[places]
        mixed = block.attention.gather(query, *offered(block, normed, given[1]), allowed)
        return finished(block, x, mixed[text, at]), None

    last_block = _blocks(tower)[-1]
    graph = nnx.graphdef(last_block)
    if depth > 1:
        x, _ = jax.lax.scan(whole, x, (blocks, jax.tree.map(lambda kept: kept[:-1], cache)))
    normed, ends = last_block.norm1(x), jnp.clip(first + pooled - start, 0, room - 1)
    query = last_block.attention.query(normed[ends])[:, None]
    keys_values = offered(last_block, normed, (cache[0][-1], cache[1][-1]))
    mixed = last_block.attention.gather(query, *keys_values, take_position(allowed, pooled, axis=2))
    return tower.norm_after(finished(last_block, x[ends], mixed[:, 0]))


def _blocks(tower: TextTransformer) -> list[Block]:
    return [tower.blocks.layers[str(i)] for i in range(tower.blocks.depth)]
