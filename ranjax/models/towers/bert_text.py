"""A BERT as the text tower of a dual encoder: PubMedBERT, BioClinicalBERT, MiniLM and their like."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.towers.bert import LAYERS_MEAN, POOLINGS, Bert, BertConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertTextConfig:
    """A BERT and how a text's one vector comes from its tokens'; hashable.

    Attributes:
      bert: the encoder.
      pooling: "pooler" (BERT's own, on the first token), "cls" (the first token's state), "mean" (over the mask) or
        "mean_of_1_2_last" (`bert.LAYERS_MEAN`, MedCLIP's).
      name: what the encoder's publisher calls it, carried for files that refer to it by name.
    """

    bert: BertConfig
    pooling: str = "pooler"
    name: str = ""

    def __post_init__(self) -> None:
        known = (*POOLINGS, LAYERS_MEAN)
        if self.pooling not in known or (self.pooling == "pooler") != self.bert.pooler:
            held = "has" if self.bert.pooler else "has no"
            raise ConfigError("model.pooling", self.pooling, f"one of {', '.join(known)}; this BERT {held} pooler")
        if self.pooling == LAYERS_MEAN and self.bert.layers < 2:
            raise ConfigError("model.pooling", self.pooling, "another for a BERT of one layer")

    @property
    def vocab_size(self) -> int:
        return self.bert.vocab_size

    @property
    def max_length(self) -> int:
        return self.bert.max_length

    @property
    def width(self) -> int:
        return self.bert.width

    @property
    def eos_id(self) -> None:
        """A BERT does not pool by an end token."""
        return None

    @property
    def pools_at_eos(self) -> bool:
        return False

    def resized(self, max_length: int) -> BertTextConfig:
        """The same tower for texts of another length."""
        return dataclasses.replace(self, bert=dataclasses.replace(self.bert, max_length=max_length))


class BertText(Bert):
    """Tokens i32[B, L] -> [B, width], pooled."""

    def __init__(self, config: BertTextConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False) -> None:
        super().__init__(dataclasses.replace(config.bert, remat=remat, scan=scan), rngs)
        self.pooling = config.pooling

    def __call__(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array) -> jax.Array:
        """`embeddings` [B, L, width] are the rows of the token table, before positions are added."""
        return self.pooled(tokens, mask, embeddings, self.pooling)
