"""Pre-norm text transformers: CLIP's, causal and pooled at the end token, and SigLIP's, pooled at the last place."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ranjax.models.attention import Visible, visible
from ranjax.models.layers import Block, LayerNorm, Mask, Position, Stack, States, Tokens, normal
from ranjax.models.towers.tower_configs import TextTransformerConfig


def pooling_positions(tokens: Tokens, mask: Mask, eos_id: int | None, rule: str) -> Int[Array, " batch"]:
    """Return the position that stands for a text.

    "eos": the first `eos_id`, also where padding has the same id; where a row has none, its last real token.
    "highest_id": the first occurrence of the largest id (what transformers does when ``eos_token_id == 2``).
    """
    if rule == "highest_id":
        return jnp.argmax(tokens, axis=-1)
    is_eos = tokens == eos_id
    last_real = tokens.shape[-1] - 1 - jnp.argmax(mask[:, ::-1], axis=-1)
    return jnp.where(jnp.any(is_eos, axis=-1), jnp.argmax(is_eos, axis=-1), last_real)


class TextTransformer(nnx.Module):
    """Tokens to one vector a text, the layer-normed state at the pooled token."""

    def __init__(self, config: TextTransformerConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False) -> None:
        width, eps = config.width, config.layer_norm_eps
        self.config = config
        self.token_embedding = normal(rngs, (config.vocab_size, width), 0.02)
        self.positions = normal(rngs, (config.max_length, width), 0.01)
        self.blocks = Stack(
            lambda: Block(width, config.heads, config.mlp_width, config.layers, config.activation, eps, rngs),
            config.layers,
            remat,
            scan,
        )
        self.norm_after = LayerNorm(width, eps)

    def __call__(self, tokens: Tokens, mask: Mask, embeddings: States) -> Float[Array, "batch width"]:
        """Return one vector a text; `embeddings` are rows of the token table, before positions are added."""
        config = self.config
        x, allowed = self._inputs(mask, embeddings)
        position: Position = self.config.max_length - 1
        if config.pooling != "last":
            position = pooling_positions(tokens, mask, config.eos_id, config.pooling)
        return self.norm_after(self.blocks(x, allowed, at=position)[:, 0])

    def states(self, mask: Mask, embeddings: States) -> States:
        """Return the layer-normed state of every token; those of padding mean nothing."""
        return self.norm_after(self.blocks(*self._inputs(mask, embeddings)))[:, : mask.shape[1]]

    def _inputs(self, mask: Mask, embeddings: States) -> tuple[Float[Array, "batch places width"], Visible | None]:
        """Return the states before the first block, and where a token may look."""
        if self.config.pooling == "last":
            return self._filled_up(mask, embeddings)
        length = mask.shape[1]
        return embeddings + self._places(length, embeddings.dtype), visible(mask, self.config.causal, length)

    def _filled_up(self, mask: Mask, embeddings: States) -> tuple[Float[Array, "batch places width"], Visible | None]:
        """As `_inputs`: padding is a token like others, and every text as long as the longest."""
        batch, length, width = embeddings.shape
        total, dtype = self.config.max_length, embeddings.dtype
        pad = self.token_embedding[...][self.config.pad_id].astype(dtype)[None, None]
        x = jnp.where(mask[:, :, None], embeddings, jnp.broadcast_to(pad, embeddings.shape))
        x = jnp.concatenate([x, jnp.broadcast_to(pad, (batch, total - length, width))], axis=1)
        return x + self._places(total, dtype), visible(None, self.config.causal, total)

    def _places(self, length: int, dtype: jnp.dtype) -> Float[Array, "1 length width"]:
        return self.positions[...][:length].astype(dtype)[None]


def states(tower: TextTransformer, tokens: Tokens, mask: Mask, embeddings: States) -> States:
    """See `TextTransformer.states`."""
    return tower.states(mask, embeddings)
