"""transformers' SiglipModel: config.json and keys, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.file_layout import FileLayout, Weights
from ranjax.models.checkpoints.naming import Layout, lead_arrangement, linear, under
from ranjax.models.checkpoints.transformers_parts import (
    PREPROCESSOR,
    activation_from,
    is_siglip_vision,
    preprocessor,
    read_pixels,
    siglip_vision,
    text_content,
    text_keys,
    vit_content,
    vit_keys,
)
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.encoder_config import TowersConfig
from ranjax.models.padding import padding_id
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.text_transformer import TextTransformerConfig

_TEXT_DEFAULTS = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"vocab_size": 32000, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    **{"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1},
}
_MEAN = _STD = (0.5, 0.5, 0.5)
# ln 10 and -10: where the paper starts (section 3.2), for encoders that are initialised here.
_SCALE, _BIAS = 2.3026, -10.0


def _read_config(content: Mapping, folder: Path, weights: Weights) -> TowersConfig:
    text = _TEXT_DEFAULTS | dict(content.get("text_config") or {})
    image = siglip_vision(content.get("vision_config") or {})
    projected = text.get("projection_size") or text["hidden_size"]
    if projected != image.width:
        raise ConfigError(
            "config.json: text_config.projection_size", projected, f"{image.width}, the image tower's width"
        )
    pixels = read_pixels(folder)
    rgb = image.channels == 3
    return TowersConfig(
        image=image,
        text=TextTransformerConfig(
            vocab_size=text["vocab_size"],
            max_length=text["max_position_embeddings"],
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            mlp_width=text["intermediate_size"],
            activation=activation_from(text),
            layer_norm_eps=text["layer_norm_eps"],
            causal=False,
            pooling="last",
            eos_id=text["eos_token_id"],
            bos_id=text["bos_token_id"],
            pad_id=padding_id(folder, text["pad_token_id"], text["vocab_size"]),
        ),
        embed_dim=image.width,
        image_projection=Projection(kind="none"),
        text_projection=Projection(bias=True),
        logit_scale_init=_SCALE,
        scale_limited=False,
        logit_bias_init=_BIAS,
        pixel_mean=pixels.get("image_mean", _MEAN if rgb else None),
        pixel_std=pixels.get("image_std", _STD if rgb else None),
        layout="siglip",
    )


def _keys(config: TowersConfig) -> Layout:
    return {
        ("free_log_scale",): ("logit_scale", lead_arrangement(1)),
        ("bias",): ("logit_bias", lead_arrangement(1)),
        **under(vit_keys(config.image), ("vision",), "vision_model."),
        **under(text_keys(config.text), ("text",), "text_model."),
        **linear(("text_projection",), "text_model.head"),
    }


def _refuses(config: Any) -> str | None:
    if not isinstance(config, TowersConfig) or not is_siglip_vision(config.image):
        return "SiglipModel has SigLIP's image tower only"
    text = config.text
    if not isinstance(text, TextTransformerConfig) or text.pooling != "last" or text.causal:
        return "SiglipModel has SigLIP's text tower only"
    if config.image_projection.kind != "none" or config.text_projection != Projection(bias=True):
        return "SiglipModel projects texts by a linear map with bias, and images not at all"
    if config.scale_limited or config.logit_bias_init is None:
        return "SiglipModel has a free logit scale and a bias of the logits"
    return None


def _write_config(config: TowersConfig, dtype: str) -> dict[str, dict]:
    content = {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": text_content(config.text, "siglip_text_model") | {"projection_size": config.embed_dim},
        "vision_config": vit_content(config.image),
        "dtype": dtype,
    }
    return {CONFIG: content, PREPROCESSOR: preprocessor(config)}


SIGLIP = FileLayout(
    name="siglip",
    recognises=lambda content: content.get("model_type") == "siglip",
    read_config=_read_config,
    keys=_keys,
    refuses=_refuses,
    write_config=_write_config,
)
