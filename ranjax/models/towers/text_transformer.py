"""Pre-norm text transformers: CLIP's, causal and pooled at the end token, and SigLIP's, pooled at the last place."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.clip_config import ACTIVATIONS
from ranjax.models.config_checks import divides, one_of, whole_positive
from ranjax.models.layers import Block, LayerNorm, Stack, normal

POOLINGS = ("eos", "highest_id", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTransformerConfig:
    """What a text transformer is made of; hashable.

    Attributes:
      vocab_size, max_length: rows of the token table and of the positions.
      width, layers, heads, mlp_width: the transformer.
      activation, layer_norm_eps: as in `DualEncoderConfig`.
      causal: a token sees those before it (CLIP); else all of them (SigLIP).
      pooling: "eos" and "highest_id" as in `DualEncoderConfig`; or "last", the last of `max_length` places, for which
        every text is filled up with `pad_id` and padding is seen like any token, as SigLIP was trained.
      eos_id, bos_id, pad_id: special tokens; None where a tokenizer has none.
    """

    vocab_size: int
    max_length: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    causal: bool = True
    pooling: str = "eos"
    eos_id: int | None = None
    bos_id: int | None = None
    pad_id: int | None = None

    def __post_init__(self) -> None:
        whole_positive(self, "model.text", "vocab_size", "max_length", "width", "layers", "heads", "mlp_width")
        divides("model.text_heads", self.heads, f"model.text_width = {self.width}", self.width)
        one_of("model.activation", self.activation, ACTIVATIONS)
        one_of("model.text_pooling", self.pooling, POOLINGS)
        needed = "pad_id" if self.pooling == "last" else "eos_id"
        value = getattr(self, needed)
        if value is None or not 0 <= value < self.vocab_size:
            raise ConfigError(f"model.{needed}", value, f"an id below model.vocab_size = {self.vocab_size}")

    @property
    def pools_at_eos(self) -> bool:
        """Whether a text's features depend on where its end token is."""
        return self.pooling != "last"

    def resized(self, max_length: int) -> TextTransformerConfig:
        """The same tower for texts of another length."""
        return dataclasses.replace(self, max_length=max_length)


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

    def __init__(
        self,
        config: TextTransformerConfig,
        rngs: nnx.Rngs,
        remat: bool = False,
        scan: bool = False,
    ) -> None:
        width, eps = config.width, config.layer_norm_eps
        self.config, self.eos_id, self.pooling = config, config.eos_id, config.pooling
        self.token_embedding = normal(rngs, (config.vocab_size, width), 0.02)
        self.positions = normal(rngs, (config.max_length, width), 0.01)
        self.blocks = Stack(
            lambda: Block(width, config.heads, config.mlp_width, config.layers, config.activation, eps, rngs),
            config.layers,
            remat,
            scan,
        )
        self.norm_after = LayerNorm(width, eps)

    def __call__(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array) -> jax.Array:
        """`embeddings` [B, L, width] are the rows of the token table, before positions are added."""
        config = self.config
        if config.pooling == "last":
            return self._filled_up(mask, embeddings)
        length = tokens.shape[1]
        x = embeddings + self._places(length, embeddings.dtype)
        allowed = mask[:, None, None, :]
        if config.causal:
            allowed = jnp.tril(jnp.ones((length, length), bool))[None, None] & allowed
        position = pooling_positions(tokens, mask, config.eos_id, config.pooling)
        return self.norm_after(self.blocks(x, allowed, at=position)[:, 0])

    def _filled_up(self, mask: jax.Array, embeddings: jax.Array) -> jax.Array:
        batch, length, width = embeddings.shape
        total, dtype = self.config.max_length, embeddings.dtype
        pad = self.token_embedding[...][self.config.pad_id].astype(dtype)[None, None]
        x = jnp.where(mask[:, :, None], embeddings, jnp.broadcast_to(pad, embeddings.shape))
        x = jnp.concatenate([x, jnp.broadcast_to(pad, (batch, total - length, width))], axis=1)
        allowed = jnp.tril(jnp.ones((total, total), bool))[None, None] if self.config.causal else None
        return self.norm_after(self.blocks(x + self._places(total, dtype), allowed, at=total - 1)[:, 0])

    def _places(self, length: int, dtype: jnp.dtype) -> jax.Array:
        return self.positions[...][:length].astype(dtype)[None]
