"""BERT (Devlin et al. 2019): a text tower (PubMedBERT, BioClinicalBERT, MiniLM and their like), and a masked language
model."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.attention import Allowed, visible
from ranjax.models.layers import (
    ACTIVATION_FUNCTIONS,
    MLP,
    Attention,
    LayerNorm,
    Linear,
    Mask,
    Position,
    Stack,
    States,
    Tokens,
    constant,
    normal,
    take_position,
)
from ranjax.models.towers.contract import check_tokens
from ranjax.models.towers.tower_configs import BERT_POOLINGS, LAYERS_MEAN, BertConfig

_STD = 0.02


class PostNormBlock(nnx.Module):
    """Attention, add, norm; MLP, add, norm."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.attention = Attention(config.width, config.heads, _STD, _STD, rngs)
        self.norm1 = LayerNorm(config.width, config.layer_norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation, _STD, _STD, rngs)
        self.norm2 = LayerNorm(config.width, config.layer_norm_eps)

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        allowed: Allowed = None,
        at: Position | None = None,
    ) -> Float[Array, "batch outputs width"]:
        """Return [B, T, width]; with `at` only that position, as `layers.Block`."""
        if at is None:
            x = self.norm1(x + self.attention(x, allowed))
        else:
            queries = take_position(x, at)
            x = self.norm1(queries + self.attention(x, allowed, queries))
        return self.norm2(x + self.mlp(x))


class Bert(nnx.Module):
    """Embeddings, post-norm blocks and, by config, the pooler and the masked-LM head; called as a text tower."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False):
        self.config = config
        self.token_embedding = normal(rngs, (config.vocab_size, config.width), _STD)
        self.positions = normal(rngs, (config.max_length, config.width), _STD)
        self.types = normal(rngs, (config.types, config.width), _STD)
        self.norm = LayerNorm(config.width, config.layer_norm_eps)
        self.blocks = Stack(lambda: PostNormBlock(config, rngs), config.layers, remat, scan)
        self.pooler = Linear(config.width, config.width, _STD, rngs) if config.pooling == "pooler" else None
        self.head = _MaskedLMHead(config, rngs) if config.masked_lm else None

    def __call__(
        self, tokens: Tokens, mask: Mask, embeddings: States | None = None, pooling: str | None = None
    ) -> Float[Array, "batch width"]:
        """Return one vector a text, pooled as the config says, or by another `pooling`; see `BertFunctions.hidden`."""
        pooling = self.config.pooling if pooling is None else pooling
        x, allowed = self._embedded(tokens, mask, embeddings), visible(mask, False, mask.shape[1])
        if pooling in ("cls", "pooler"):
            # The last block is computed for the first token alone.
            first = self.blocks(x, allowed, at=0)[:, 0]
            if pooling == "cls":
                return first
            if self.pooler is not None:
                return jnp.tanh(self.pooler(first))
        if pooling == "mean":
            return _mean(self.blocks(x, allowed), mask)
        if pooling == LAYERS_MEAN:
            states = self.blocks(x, allowed, stop=1)
            second = self.blocks(states, allowed, start=1, stop=2)
            return _mean((states + second + self.blocks(second, allowed, start=2)) / 3, mask)
        held = "" if self.pooler is not None else ", and this encoder has no pooler"
        raise ConfigError("pooling", pooling, f"one of {', '.join(BERT_POOLINGS)}{held}")

    def hidden(self, tokens: Tokens, mask: Mask, embeddings: States | None = None) -> States:
        """See `BertFunctions.hidden`."""
        return self.blocks(self._embedded(tokens, mask, embeddings), visible(mask, False, mask.shape[1]))

    def _embedded(self, tokens: Tokens, mask: Mask, embeddings: States | None) -> States:
        check_tokens(tokens, mask, embeddings, self.config)
        length = tokens.shape[1]
        x = self.token_embedding[...][tokens] if embeddings is None else embeddings
        # One segment only: every token is of type 0.
        places = self.positions[...][:length] + self.types[...][0][None]
        return self.norm(x + places.astype(x.dtype)[None])

    def logits(self, hidden: States) -> Float[Array, "batch length vocabulary"]:
        """See `BertFunctions.logits`."""
        if self.head is None:
            raise ConfigError("bert.masked_lm", False, "True for logits over the vocabulary")
        return self.head(hidden, self.token_embedding[...])


def states(tower: Bert, tokens: Tokens, mask: Mask, embeddings: States) -> States:
    """Return the last hidden state of every token; those of padding mean nothing."""
    return tower.hidden(tokens, mask, embeddings)


def _mean(hidden: States, mask: Mask) -> Float[Array, "batch width"]:
    weights = mask.astype(hidden.dtype)[:, :, None]
    return jnp.sum(hidden * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


class _MaskedLMHead(nnx.Module):
    """Linear, activation, layer norm, then the token table transposed, plus a bias per token."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.activation = config.activation
        self.transform = Linear(config.width, config.width, _STD, rngs)
        self.norm = LayerNorm(config.width, config.layer_norm_eps)
        self.bias = constant(0.0, (config.vocab_size,))

    def __call__(
        self, hidden: States, table: Float[Array, "vocabulary width"]
    ) -> Float[Array, "batch length vocabulary"]:
        x = self.norm(ACTIVATION_FUNCTIONS[self.activation](self.transform(hidden)))
        logits = jnp.einsum("blw,vw->blv", x, table.astype(x.dtype))
        return logits + self.bias[...].astype(x.dtype)[None, None]


@dataclasses.dataclass(frozen=True)
class BertFunctions:
    """Pure functions of a BERT's parameters; hashable. `remat` and `scan` as in `DualEncoderConfig`."""

    config: BertConfig
    remat: bool = False
    scan: bool = False

    def hidden(self, params: Params, tokens: Tokens, mask: Mask, embeddings: States | None = None) -> States:
        """Return the last hidden states; `embeddings`, where given, stand in for ``token_table[tokens]``.

        Raises:
          ConfigError: texts longer than max_length, or a mask that does not fit the tokens.
        """
        return self._bind(params).hidden(tokens, mask, embeddings)

    def features(
        self, params: Params, tokens: Tokens, mask: Mask, embeddings: States | None = None, pooling: str = "cls"
    ) -> Float[Array, "batch width"]:
        """Return one vector a text, by a `pooling` of `BERT_POOLINGS`; raises as `hidden`."""
        return self._bind(params)(tokens, mask, embeddings, pooling)

    def logits(
        self, params: Params, tokens: Tokens, mask: Mask, embeddings: States | None = None
    ) -> Float[Array, "batch length vocabulary"]:
        """Return masked-LM logits; row l belongs to token l, special tokens included."""
        model = self._bind(params)
        return model.logits(model.hidden(tokens, mask, embeddings))

    def token_table(self, params: Params) -> Float[Array, "vocabulary width"]:
        """Return the token embeddings."""
        return params["token_embedding"]

    def _bind(self, params: Params) -> Bert:
        return nnx.merge(_graph(self.config, self.remat, self.scan), params)


def split_bert(model: Bert) -> tuple[BertFunctions, Params]:
    """Take a BERT apart into pure functions and a plain nested dict of arrays."""
    return BertFunctions(model.config), nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.lru_cache(maxsize=64)
def _graph(config: BertConfig, remat: bool, scan: bool) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Bert(config, nnx.Rngs(0), remat, scan)))
