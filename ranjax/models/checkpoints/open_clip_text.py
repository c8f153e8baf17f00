"""The text towers of open_clip's configs: its own transformer, CLIP's and SigLIP's, and BERTs of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import today_s_keys
from ranjax.models.checkpoints.file_layout import Weights
from ranjax.models.checkpoints.open_clip_shapes import bert_of
from ranjax.models.encoder_config import TextTowerConfig, TowersConfig
from ranjax.models.padding import padding_id
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.text_transformer import TextTransformerConfig

_POOLERS = {"cls_pooler": "pooler", "mean_pooler": "mean", "cls_last_hidden_state_pooler": "cls"}
# Switches of open_clip's own towers at which they are what is implemented here.
_NEUTRAL = {
    **{"ls_init_value": None, "attentional_pool": False, "no_ln_pre": False, "pos_embed_type": "learnable"},
    **{"final_ln_after_pool": False, "qk_norm": False, "scaled_cosine_attn": False},
    **{"scale_heads": False, "scale_attn_inner": False, "scale_attn": False, "scale_fc": False, "embed_cls": False},
    **{"proj_type": "linear", "block_type": None},
}


def activation_of(content: Mapping, activation: str) -> str:
    """This package's name of a tower's nonlinearity: `activation`, or as ``act_kwargs`` change it."""
    given = content.get("act_kwargs")
    if not given:
        return activation
    if activation == "gelu" and given in ({"approximate": "tanh"}, {"approximate": "none"}):
        return "gelu_tanh" if given["approximate"] == "tanh" else "gelu"
    raise ConfigError("open_clip_config.json: act_kwargs", given, "{'approximate': 'tanh'} of a GELU, or absent")


def read_text(model: Mapping, activation: str, weights: Weights, folder: Path) -> tuple[TextTowerConfig, Projection]:
    """The text tower and its projection from a ``model_cfg``; raises ConfigError for what is not implemented."""
    text, size = model["text_cfg"], model["embed_dim"]
    if text.get("hf_model_name"):
        return _read_bert(text, size, weights, folder)
    only_neutral(text, "text_cfg")
    pooling = {"argmax": "highest_id", "eos": "eos", "last": "last"}.get(text.get("pool_type", "argmax"))
    if pooling is None:
        raise ConfigError("open_clip_config.json: text_cfg.pool_type", text["pool_type"], "'argmax', 'eos' or 'last'")
    causal = not text.get("no_causal_mask", False)
    if not causal and pooling != "last":
        raise ConfigError(
            "open_clip_config.json: text_cfg.no_causal_mask", True, "false unless pool_type is 'last' (SigLIP's towers)"
        )
    vocab_size, width = text.get("vocab_size", 49408), text.get("width", 512)
    tower = TextTransformerConfig(
        vocab_size=vocab_size,
        max_length=text.get("context_length", 77),
        width=width,
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_width=int(width * text.get("mlp_ratio", 4.0)),
        activation=activation_of(text, activation),
        layer_norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        causal=causal,
        pooling=pooling,
        # The largest id is pooled, and that is the end token's in every vocabulary made for it.
        eos_id=vocab_size - 1 if pooling == "highest_id" else text.get("eos_id", 1 if pooling == "last" else 2),
        pad_id=padding_id(folder, text.get("pad_id"), vocab_size) if pooling == "last" else text.get("pad_id", 0),
    )
    return tower, Projection(bias=text.get("proj_bias", False))


def _read_bert(text: Mapping, size: int, weights: Weights, folder: Path) -> tuple[TextTowerConfig, Projection]:
    given = text.get("hf_pooler_type", "mean_pooler")
    if given not in _POOLERS:
        raise ConfigError("open_clip_config.json: hf_pooler_type", given, f"one of {', '.join(_POOLERS)}")
    pooling, name = _POOLERS[given], text["hf_model_name"]
    bert = bert_of(folder, weights, name, pooler=pooling == "pooler")
    kind = text.get("hf_proj_type", "mlp")
    if kind not in ("linear", "mlp", None):
        raise ConfigError("open_clip_config.json: hf_proj_type", kind, "'linear', 'mlp' or null")
    hidden = (bert.width + size) // 2 if kind == "mlp" else 0
    return BertTextConfig(bert=bert, pooling=pooling, name=name), Projection(kind=kind or "none", hidden=hidden)


def only_neutral(content: Mapping, group: str) -> None:
    """Raises ConfigError where a switch of open_clip asks for what is not implemented."""
    for key, wanted in _NEUTRAL.items():
        if content.get(key, wanted) not in (wanted, "default" if key == "block_type" else wanted):
            raise ConfigError(f"open_clip_config.json: {group}.{key}", content[key], repr(wanted))


def text_refusal(parts: TowersConfig) -> str | None:
    """Why open_clip's configs cannot say a text tower and its projection; None where they can."""
    text, projection = parts.text, parts.text_projection
    if isinstance(text, BertTextConfig):
        if text.pooling not in _POOLERS.values():
            return f"open_clip knows no pooling {text.pooling}"
        if projection.kind == "mlp" and projection.hidden != (text.width + parts.embed_dim) // 2:
            return "open_clip's MLP behind a text tower is half as wide as both ends together"
        return None
    if projection.kind != "linear":
        return "open_clip has a linear map behind its own text tower"
    return None if text.causal or text.pooling == "last" else "open_clip's text towers that are not causal see padding"


def text_cfg(parts: TowersConfig) -> dict[str, Any]:
    """The ``text_cfg`` of an encoder that `text_refusal` does not refuse."""
    if isinstance(parts.text, TextTransformerConfig):
        return _own_cfg(parts.text, parts.text_projection)
    return _bert_cfg(parts)


def _own_cfg(text: TextTransformerConfig, projection: Projection) -> dict[str, Any]:
    content = {
        "context_length": text.max_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": ratio(text.mlp_width, text.width),
        "norm_kwargs": {"eps": text.layer_norm_eps},
        "pad_id": text.pad_id or 0,
    }
    if text.activation == "gelu_tanh":
        content["act_kwargs"] = {"approximate": "tanh"}
    if projection.bias:
        content["proj_bias"] = True
    if not text.causal:
        content["no_causal_mask"] = True
    if text.pooling == "last":
        # SigLIP's: the tokenizer of the folder, after lower-casing and without punctuation.
        own = {"hf_tokenizer_name": ".", "tokenizer_kwargs": {"clean": "canonicalize"}}
        return content | own | {"pool_type": "last"} | ({} if text.eos_id is None else {"eos_id": text.eos_id})
    if text.pooling == "highest_id" or text.eos_id == text.vocab_size - 1:
        return content | {"pool_type": "argmax"}
    return content | {"pool_type": "eos", "eos_id": text.eos_id}


def _bert_cfg(parts: TowersConfig) -> dict[str, Any]:
    poolers = {ours: theirs for theirs, ours in _POOLERS.items()}
    text = parts.text
    kind = parts.text_projection.kind
    return {
        # The encoder's config.json lies in the folder too; without a public name that folder is its name.
        "hf_model_name": text.name or ".",
        "hf_model_pretrained": False,
        "hf_proj_type": None if kind == "none" else kind,
        "hf_pooler_type": poolers[text.pooling],
        "context_length": text.max_length,
        "vocab_size": text.vocab_size,
    }


def ratio(hidden: int, width: int) -> float:
    """The ratio that gives `hidden` again where it is multiplied and cut off, as open_clip and ranjax's reading do."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def tidy(weights: Weights) -> Weights:
    """BERTs under today's names; native text towers with "text." in front where the projection is a linear module.

    open_clip has two classes for the same towers, with and without that prefix. SigLIP's are published with it, CLIP's
    without.
    """
    weights = today_s_keys(weights)
    prefixed = "text.token_embedding.weight" in weights
    module = any(key.endswith("text_projection.weight") for key in weights)
    if prefixed and not module:
        return {key.removeprefix("text."): value for key, value in weights.items()}
    if module and not prefixed:
        outside = ("visual.", "logit_")
        return {key if key.startswith(outside) else f"text.{key}": value for key, value in weights.items()}
    return weights
