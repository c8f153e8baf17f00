"""A causal text tower in two parts: a whole text once, and then texts that differ from it only after some position.

What a causal tower computes at a token depends on the tokens up to it alone. So a text with one word replaced shares
the keys and values of everything before that word, and only the rest, a window, is computed again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ranjax.models.layers import Block, take_position
from ranjax.models.text_transformer import TextTransformer, pooling_positions

Cache = tuple[tuple[jax.Array, jax.Array], ...]
"""Keys and values of every block, each [B, L, width]."""


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
    return tower.norm_after(x[:, 0]), tuple(cache)


def resume(
    tower: TextTransformer, cache: Cache, start: jax.Array, width: int, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
    """The pooled state [G, width of the tower] of texts that equal cached ones before `start`.

    Args:
      tower: the one that made the cache.
      cache: keys and values of the earlier text of every row, [G, L, width] a block.
      start: i32[G], first position that may differ; the pooled token is at or after it.
      width: positions from `start` on that are computed; must reach the pooled token.
      tokens: i32[G, L]; mask: bool[G, L].
    """
    length, dtype = tokens.shape[1], cache[0][0].dtype
    places = start[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    inside = jnp.minimum(places, length - 1)
    real = jnp.take_along_axis(mask, inside, axis=1) & (places < length)
    window = jnp.take_along_axis(tokens, inside, axis=1)
    x = tower.token_embedding[...][window].astype(dtype) + tower.positions[...][inside].astype(dtype)
    earlier = jnp.arange(length, dtype=jnp.int32)[None] < start[:, None]
    earlier = jnp.broadcast_to(earlier[:, None, None, :], (x.shape[0], 1, width, length))
    later = jnp.tril(jnp.ones((width, width), bool))[None, None] & real[:, None, None, :]
    allowed = jnp.concatenate([earlier, later], axis=3)
    position = pooling_positions(tokens, mask, tower.eos_id, tower.pooling).astype(jnp.int32) - start
    position = jnp.clip(position, 0, width - 1)
    for number, (block, (keys, values)) in enumerate(zip(_blocks(tower), cache)):
        normed = block.norm1(x)
        own_keys, own_values = block.attention.keys_values(normed)
        keys, values = jnp.concatenate([keys, own_keys], axis=1), jnp.concatenate([values, own_values], axis=1)
        if number == tower.blocks.depth - 1:
            x, normed = take_position(x, position), take_position(normed, position)
            allowed = take_position(allowed, position, axis=2)
        x = x + block.attention.mix(normed, keys, values, allowed)
        x = x + block.mlp(block.norm2(x))
    return tower.norm_after(x[:, 0])


def _blocks(tower: TextTransformer) -> list[Block]:
    return [tower.blocks.layers[str(i)] for i in range(tower.blocks.depth)]
