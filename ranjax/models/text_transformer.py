"""CLIP's causal text transformer (Radford et al. 2021), pooled at the end-of-text token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.models.config import DualEncoderConfig
from ranjax.models.layers import Block, LayerNorm, Stack, normal


def pooling_positions(tokens: jax.Array, mask: jax.Array, eos_id: int, rule: str) -> jax.Array:
    """Position that stands for a text, i32[B].

    "eos": the first `eos_id`, also where padding has the same id; where a row has none, its last real token.
    "highest_id": the first occurrence of the largest id (what transformers does when ``eos_token_id == 2``).
    """
    if rule == "highest_id":
        return jnp.argmax(tokens, axis=-1)
    is_eos = tokens == eos_id
    last_real = tokens.shape[-1] - 1 - jnp.argmax(mask[:, ::-1], axis=-1)
    return jnp.where(jnp.any(is_eos, axis=-1), jnp.argmax(is_eos, axis=-1), last_real)


class TextTransformer(nnx.Module):
    """Tokens i32[B, L] -> [B, width], the layer-normed state at the pooled token."""

    def __init__(self, config: DualEncoderConfig, rngs: nnx.Rngs):
        width, eps = config.text_width, config.layer_norm_eps
        self.eos_id, self.pooling = config.eos_id, config.text_pooling
        self.token_embedding = normal(rngs, (config.vocab_size, width), 0.02)
        self.positions = normal(rngs, (config.max_length, width), 0.01)
        self.blocks = Stack(
            lambda: Block(
                width, config.text_heads, config.text_mlp_width, config.text_layers, config.activation, eps, rngs
            ),
            config.text_layers,
            config.remat,
            config.scan,
        )
        self.norm_after = LayerNorm(width, eps)

    def __call__(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array) -> jax.Array:
        """`embeddings` [B, L, width] are the rows of the token table, before positions are added."""
        length, dtype = tokens.shape[1], embeddings.dtype
        x = embeddings + self.positions[...][:length].astype(dtype)[None]
        causal = jnp.tril(jnp.ones((length, length), bool))
        position = pooling_positions(tokens, mask, self.eos_id, self.pooling)
        x = self.blocks(x, causal[None, None] & mask[:, None, None, :], at=position)
        return self.norm_after(x[:, 0])
