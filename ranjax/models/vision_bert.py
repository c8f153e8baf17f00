"""CLIP's image tower beside a BERT as text tower: Hugging Face's VisionTextDualEncoder of those two kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.errors import ConfigError
from ranjax.models.bert import POOLINGS, Bert, BertConfig, Params
from ranjax.models.bert_files import bert_config_from_transformers, bert_config_to_transformers, bert_layout
from ranjax.models.clip_files import (
    PREPROCESSOR,
    preprocessor,
    read_pixels,
    shared_layout,
    vision_from_transformers,
    vision_layout,
    vision_to_transformers,
)
from ranjax.models.config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, check_tokens, compute_dtype, split
from ranjax.models.layers import Linear
from ranjax.models.naming import Layout, read_tree, write_tree
from ranjax.models.vision_transformer import VisionTransformer
from ranjax.models.weight_files import read_config, read_weights, write_json, write_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionBertConfig(DualEncoderConfig):
    """`DualEncoderConfig` whose text fields come from a `BertConfig`.

    Attributes:
      bert: the text tower; `vocab_size`, `max_length` and the `text_*` fields follow it, whatever they were given as.
      pooling: "pooler" (what VisionTextDualEncoder does), "cls" or "mean".
      eos_id: carried for tokenizers; a BERT does not pool by it.
    """

    bert: BertConfig
    pooling: str = "pooler"
    vocab_size: int = 1
    eos_id: int = 0

    def __post_init__(self) -> None:
        bert = self.bert
        for name, value in (
            *(("vocab_size", bert.vocab_size), ("max_length", bert.max_length), ("text_width", bert.width)),
            *(("text_layers", bert.layers), ("text_heads", bert.heads), ("text_mlp_width", bert.mlp_width)),
        ):
            object.__setattr__(self, name, value)
        super().__post_init__()
        if self.pooling not in POOLINGS or (self.pooling == "pooler") != bert.pooler:
            held = "has" if bert.pooler else "has no"
            raise ConfigError("model.pooling", self.pooling, f"one of {', '.join(POOLINGS)}; this BERT {held} pooler")


class VisionBert(DualEncoder):
    """Two towers, two projections without bias, one logit scale."""

    def __init__(self, config: VisionBertConfig, rngs: nnx.Rngs):
        self.config = config
        self.vision = VisionTransformer(config, rngs)
        self.text = Bert(config.bert, rngs)
        for name, width in (("visual_projection", config.vision_width), ("text_projection", config.text_width)):
            setattr(self, name, Linear(width, config.embed_dim, width**-0.5, rngs, use_bias=False))
        self.log_scale = nnx.Param(jnp.asarray(config.logit_scale_init, jnp.float32))

    @staticmethod
    def functions_type() -> type[DualEncoderFunctions]:
        """What `split` makes of this module."""
        return VisionBertFunctions

    def text_features(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None) -> jax.Array:
        """See `DualEncoderFunctions.text_features`."""
        check_tokens(tokens, mask, embeddings, self.config)
        stored = self.log_scale[...].dtype
        if embeddings is None:
            embeddings = self.token_table()[tokens]
        hidden = self.text.hidden(tokens, mask, embeddings.astype(compute_dtype(self.config, stored)))
        return self.text_projection(self.text.features(hidden, mask, self.config.pooling)).astype(stored)


@dataclasses.dataclass(frozen=True)
class VisionBertFunctions(DualEncoderFunctions):
    """`DualEncoderFunctions` of a `VisionBert`."""

    config: VisionBertConfig

    @staticmethod
    def _module() -> type[DualEncoder]:
        return VisionBert


def load_vision_bert(
    folder: str | Path, dtype: str = "float32", **overrides: Any
) -> tuple[DualEncoderFunctions, Params, VisionBertConfig]:
    """Reads a VisionTextDualEncoderModel with CLIP's image tower and a BERT; arguments and errors as `load_clip`."""
    config = _from_transformers(read_config(folder), read_pixels(folder))
    config = dataclasses.replace(config, **overrides)
    template = jax.eval_shape(lambda: split(VisionBert(config, nnx.Rngs(0)))[1])
    params = read_tree(read_weights(folder), vision_bert_layout(config), template, folder, dtype=dtype)
    return VisionBertFunctions(config), params, config


def save_vision_bert(folder: str | Path, functions: DualEncoderFunctions, params: Params) -> None:
    """Writes a folder that `transformers.VisionTextDualEncoderModel` reads.

    Raises:
      ConfigError: a pooling other than BERT's pooler, which that class cannot express.
    """
    config = functions.config
    if not isinstance(config, VisionBertConfig) or config.pooling != "pooler":
        pooling = getattr(config, "pooling", None)
        raise ConfigError("model.pooling", pooling, "'pooler' for export: VisionTextDualEncoder knows no other")
    content = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale_init,
        "vision_config": vision_to_transformers(config),
        "text_config": bert_config_to_transformers(config.bert),
        "dtype": str(params["log_scale"].dtype),
    }
    write_weights(folder, write_tree(params, vision_bert_layout(config)), content)
    write_json(Path(folder) / PREPROCESSOR, preprocessor(config))


def vision_bert_layout(config: VisionBertConfig) -> Layout:
    """Every parameter's key in a VisionTextDualEncoderModel file."""
    text = {
        ("text", *path): (f"text_model.{key}", arrangement)
        for path, (key, arrangement) in bert_layout(config.bert).items()
    }
    return shared_layout() | vision_layout(config) | text


def _from_transformers(content: Mapping, pixels: Mapping) -> VisionBertConfig:
    if content.get("model_type") != "vision-text-dual-encoder":
        raise ConfigError("config.json: model_type", content.get("model_type"), "'vision-text-dual-encoder'")
    vision = content["vision_config"]
    if vision.get("model_type") not in ("clip_vision_model", "clip"):
        raise ConfigError("config.json: vision_config.model_type", vision.get("model_type"), "'clip_vision_model'")
    return VisionBertConfig(
        **vision_from_transformers(vision, pixels),
        bert=bert_config_from_transformers(content["text_config"], pooler=True),
        embed_dim=content.get("projection_dim", 512),
        logit_scale_init=content.get("logit_scale_init_value", 2.6592),
    )
