"""BERT (Devlin et al. 2019) as a text encoder and as a masked language model."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.clip_config import ACTIVATIONS
from ranjax.models.layers import MLP, Attention, LayerNorm, Linear, Stack, activation_function, normal, take_position

Params = dict[str, Any]
POOLINGS = ("cls", "mean", "pooler")
LAYERS_MEAN = "mean_of_1_2_last"
"""MedCLIP's pooling of a dual encoder's texts: the mean over the mask of the states after blocks 1, 2 and the last."""
_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """What a BERT is made of; hashable.

    Attributes:
      vocab_size, max_length, types: rows of the token, position and segment tables.
      width, layers, heads, mlp_width: the transformer.
      activation: "gelu" (exact, erf), "gelu_tanh" or "quick_gelu".
      layer_norm_eps: added to the variance in every layer norm.
      pad_id: padding token, carried for exported configs.
      pooler: the encoder has BERT's pooler (linear map and tanh on the first token).
      masked_lm: the encoder has a masked-LM head, its output matrix tied to the token table.
      remat, scan: as in `DualEncoderConfig`.
    """

    vocab_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    max_length: int = 512
    types: int = 2
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    pad_id: int = 0
    pooler: bool = False
    masked_lm: bool = False
    remat: bool = False
    scan: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError("bert.heads", self.heads, f"a divisor of bert.width = {self.width}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError("bert.activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")


class PostNormBlock(nnx.Module):
    """Attention, add, norm; MLP, add, norm."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.attention = Attention(config.width, config.heads, _STD, _STD, rngs)
        self.norm1 = LayerNorm(config.width, config.layer_norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation, _STD, _STD, rngs)
        self.norm2 = LayerNorm(config.width, config.layer_norm_eps)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None, at: int | jax.Array | None = None) -> jax.Array:
        """x [B, T, width] -> the same; with `at` as `layers.Block`, for which `allowed` is the same for all queries."""
        if at is None:
            x = self.norm1(x + self.attention(x, allowed))
        else:
            queries = take_position(x, at)
            x = self.norm1(queries + self.attention(x, allowed, queries))
        return self.norm2(x + self.mlp(x))


class Bert(nnx.Module):
    """Embeddings, post-norm blocks and, by config, the pooler and the masked-LM head."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.config = config
        self.token_embedding = normal(rngs, (config.vocab_size, config.width), _STD)
        self.positions = normal(rngs, (config.max_length, config.width), _STD)
        self.types = normal(rngs, (config.types, config.width), _STD)
        self.norm = LayerNorm(config.width, config.layer_norm_eps)
        self.blocks = Stack(lambda: PostNormBlock(config, rngs), config.layers, config.remat, config.scan)
        self.pooler = Linear(config.width, config.width, _STD, rngs) if config.pooler else None
        self.head = _MaskedLMHead(config, rngs) if config.masked_lm else None

    def hidden(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None) -> jax.Array:
        """See `BertFunctions.hidden`."""
        return self.blocks(self._embedded(tokens, mask, embeddings), mask[:, None, None, :])

    def mean_of_layers(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None) -> jax.Array:
        """The mean of the states after blocks 1, 2 and the last, [B, L, W] (MedCLIP)."""
        x, allowed = self._embedded(tokens, mask, embeddings), mask[:, None, None, :]
        first = self.blocks(x, allowed, stop=1)
        second = self.blocks(first, allowed, start=1, stop=2)
        return (first + second + self.blocks(second, allowed, start=2)) / 3

    def pooled(
        self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None, pooling: str = "cls"
    ) -> jax.Array:
        """See `BertFunctions.features`; where the first token is pooled, the last block is computed for it alone."""
        if pooling == "mean":
            return self.features(self.hidden(tokens, mask, embeddings), mask, pooling)
        if pooling == LAYERS_MEAN:
            return self.features(self.mean_of_layers(tokens, mask, embeddings), mask, "mean")
        first = self.blocks(self._embedded(tokens, mask, embeddings), mask[:, None, None, :], at=0)
        return self.features(first, mask, pooling)

    def _embedded(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None) -> jax.Array:
        length = tokens.shape[1]
        if tokens.ndim != 2 or length > self.config.max_length:
            limit = f"[B, L] with L at most bert.max_length = {self.config.max_length}"
            raise ConfigError("tokens.shape", tokens.shape, limit)
        if mask.shape != tokens.shape or mask.dtype != jnp.bool_:
            raise ConfigError("mask", f"{mask.dtype}{list(mask.shape)}", f"bool{list(tokens.shape)}, as the tokens")
        x = self.token_embedding[...][tokens] if embeddings is None else embeddings
        # One segment only: every token is of type 0.
        places = self.positions[...][:length] + self.types[...][0][None]
        return self.norm(x + places.astype(x.dtype)[None])

    def features(self, hidden: jax.Array, mask: jax.Array, pooling: str) -> jax.Array:
        """See `BertFunctions.features`."""
        if pooling == "mean":
            weights = mask.astype(hidden.dtype)[:, :, None]
            return jnp.sum(hidden * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)
        if pooling == "pooler" and self.pooler is not None:
            return jnp.tanh(self.pooler(hidden[:, 0]))
        if pooling != "cls":
            held = "" if self.pooler is not None else ", and this encoder has no pooler"
            raise ConfigError("pooling", pooling, f"one of {', '.join(POOLINGS)}{held}")
        return hidden[:, 0]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """See `BertFunctions.logits`."""
        if self.head is None:
            raise ConfigError("bert.masked_lm", False, "True for logits over the vocabulary")
        return self.head(hidden, self.token_embedding[...])


class _MaskedLMHead(nnx.Module):
    """Linear, activation, layer norm, then the token table transposed, plus a bias per token."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.activation = config.activation
        self.transform = Linear(config.width, config.width, _STD, rngs)
        self.norm = LayerNorm(config.width, config.layer_norm_eps)
        self.bias = nnx.Param(jnp.zeros((config.vocab_size,), jnp.float32))

    def __call__(self, hidden: jax.Array, table: jax.Array) -> jax.Array:
        x = self.norm(activation_function(self.activation)(self.transform(hidden)))
        logits = jnp.einsum("blw,vw->blv", x, table.astype(x.dtype))
        return logits + self.bias[...].astype(x.dtype)[None, None]


@dataclasses.dataclass(frozen=True)
class BertFunctions:
    """Pure functions of a BERT's parameters; hashable."""

    config: BertConfig

    def hidden(
        self, params: Params, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> jax.Array:
        """Last hidden states [B, L, W] of tokens i32[B, L] under mask bool[B, L].

        `embeddings` [B, L, W], where given, stands in for ``token_table[tokens]``.

        Raises:
          ConfigError: texts longer than max_length, or a mask that does not fit the tokens.
        """
        return self._bind(params).hidden(tokens, mask, embeddings)

    def features(
        self,
        params: Params,
        tokens: jax.Array,
        mask: jax.Array,
        embeddings: jax.Array | None = None,
        pooling: str = "cls",
    ) -> jax.Array:
        """One vector per text, [B, W].

        `pooling`: the first token's state ("cls"), the "mean" over the mask, the "pooler"'s, or `LAYERS_MEAN`.
        """
        return self._bind(params).pooled(tokens, mask, embeddings, pooling)

    def logits(
        self, params: Params, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> jax.Array:
        """Masked-LM logits [B, L, V]; row l belongs to token l, special tokens included."""
        model = self._bind(params)
        return model.logits(model.hidden(tokens, mask, embeddings))

    def token_table(self, params: Params) -> jax.Array:
        """The token embeddings, [V, W]."""
        return params["token_embedding"]

    def _bind(self, params: Params) -> Bert:
        return nnx.merge(_graph(self.config), params)


def split_bert(model: Bert) -> tuple[BertFunctions, Params]:
    """Takes a BERT apart into pure functions and a plain nested dict of arrays."""
    return BertFunctions(model.config), nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.lru_cache(maxsize=64)
def _graph(config: BertConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Bert(config, nnx.Rngs(0))))
