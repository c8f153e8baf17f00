"""transformers' CLIPModel: config.json and keys, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.file_layout import FileLayout, Weights
from ranjax.models.checkpoints.naming import SAME, Layout, linear, under
from ranjax.models.checkpoints.transformers_parts import (
    PREPROCESSOR,
    activation_from,
    clip_vision,
    is_clip_vision,
    preprocessor,
    read_pixels,
    text_content,
    text_keys,
    vit_content,
    vit_keys,
)
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.clip_config import CLIP_MEAN, CLIP_STD, DualEncoderConfig
from ranjax.models.encoder_config import TowersConfig, towers
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.text_transformer import TextTransformerConfig

# transformers' own defaults: a config.json may leave out whatever equals them.
_TEXT_DEFAULTS = {
    **{"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
    **{"vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    **{"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1},
}
# With this id transformers pools at the largest id of a text instead (a rule for configs older than its fix).
_LEGACY_EOS = 2


def config_from_transformers(content: Mapping, pixels: Mapping | None = None) -> DualEncoderConfig:
    """The config of a CLIPModel's config.json. Raises ConfigError for what is not CLIP with two transformers."""
    if content.get("model_type") != "clip":
        raise ConfigError("config.json: model_type", content.get("model_type"), "'clip'")
    # Where *_config_dict is present, transformers lets it win.
    text = {**_TEXT_DEFAULTS, **(content.get("text_config") or {}), **(content.get("text_config_dict") or {})}
    vision = {**(content.get("vision_config") or {}), **(content.get("vision_config_dict") or {})}
    image = clip_vision(vision)
    if activation_from(text) != image.activation:
        raise ConfigError("config.json: text_config.hidden_act", text["hidden_act"], "the vision tower's activation")
    if text["layer_norm_eps"] != image.layer_norm_eps:
        allowed = f"the vision tower's, {image.layer_norm_eps!r}"
        raise ConfigError("config.json: text_config.layer_norm_eps", text["layer_norm_eps"], allowed)
    pixels, rgb = pixels or {}, image.channels == 3
    return DualEncoderConfig(
        image_size=image.image_size,
        channels=image.channels,
        patch_size=image.patch_size,
        vision_width=image.width,
        vision_layers=image.layers,
        vision_heads=image.heads,
        vision_mlp_width=image.mlp_width,
        activation=image.activation,
        layer_norm_eps=image.layer_norm_eps,
        pixel_mean=pixels.get("image_mean", CLIP_MEAN if rgb else None),
        pixel_std=pixels.get("image_std", CLIP_STD if rgb else None),
        text_width=text["hidden_size"],
        text_layers=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        text_mlp_width=text["intermediate_size"],
        vocab_size=text["vocab_size"],
        max_length=text["max_position_embeddings"],
        embed_dim=content.get("projection_dim", 512),
        eos_id=text["eos_token_id"],
        bos_id=text["bos_token_id"],
        pad_id=text["pad_token_id"],
        text_pooling="highest_id" if text["eos_token_id"] == _LEGACY_EOS else "eos",
        logit_scale_init=content.get("logit_scale_init_value", 2.6592),
    )


def clip_layout(config: DualEncoderConfig | TowersConfig) -> Layout:
    """Every parameter's key in a CLIPModel file."""
    parts = towers(config)
    image, text = vit_keys(parts.image), text_keys(parts.text)
    return shared_keys() | under(image, ("vision",), "vision_model.") | under(text, ("text",), "text_model.")


def shared_keys() -> Layout:
    """Keys of what joins two towers: projections and logit scale."""
    return {
        ("log_scale",): ("logit_scale", SAME),
        **linear(("visual_projection",), "visual_projection", bias=False),
        **linear(("text_projection",), "text_projection", bias=False),
    }


def _refuses(config: DualEncoderConfig | TowersConfig) -> str | None:
    parts = towers(config)
    text = parts.text
    if not is_clip_vision(parts.image) or not isinstance(text, TextTransformerConfig) or not text.causal:
        return "CLIPModel has CLIP's two transformers only"
    if {parts.image_projection, parts.text_projection} != {Projection()} or not parts.scale_limited:
        return "CLIPModel has linear projections without bias and a limited logit scale only"
    if parts.logit_bias_init is not None:
        return "CLIPModel has no bias of the logits"
    largest = text.pooling == "highest_id" and text.eos_id == text.vocab_size - 1
    if text.pooling == "last" or ((text.eos_id == _LEGACY_EOS) != (text.pooling == "highest_id") and not largest):
        return (
            f"model.eos_id = {text.eos_id!r} with pooling {text.pooling!r}: transformers pools at the largest id if "
            f"and only if the end token's id is {_LEGACY_EOS}"
        )
    return None


def _write_config(config: DualEncoderConfig | TowersConfig, dtype: str) -> dict[str, dict]:
    parts = towers(config)
    projected = {"projection_dim": parts.embed_dim}
    content = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": parts.logit_scale_init,
        "text_config": text_content(parts.text, "clip_text_model") | projected,
        "vision_config": vit_content(parts.image) | projected,
        "dtype": dtype,
    }
    return {CONFIG: content | projected, PREPROCESSOR: preprocessor(parts)}


def _read_config(content: Mapping, folder: Path, weights: Weights) -> DualEncoderConfig:
    return config_from_transformers(content, read_pixels(folder))


CLIP = FileLayout(
    name="clip",
    recognises=lambda content: content.get("model_type") == "clip",
    read_config=_read_config,
    keys=clip_layout,
    refuses=_refuses,
    write_config=_write_config,
)
