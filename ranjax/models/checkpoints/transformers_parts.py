"""The parts that transformers' dual encoders share: config.json's words, keys of towers, the image processor's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.naming import (
    SAME,
    Layout,
    fused_attention,
    lead_arrangement,
    linear,
    norm,
    patch_arrangement,
)
from ranjax.models.clip_config import CLIP_MEAN
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.text_transformer import TextTransformerConfig
from ranjax.models.towers.vision_transformer import ViTConfig

PREPROCESSOR = "preprocessor_config.json"
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
# transformers' own defaults: a config.json may leave out whatever equals them.
_CLIP_VISION_DEFAULTS = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
_SIGLIP_VISION_DEFAULTS = {
    **_CLIP_VISION_DEFAULTS,
    **{"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True},
}
_RESNET_DEFAULTS = {
    **{"num_channels": 3, "embedding_size": 64, "hidden_sizes": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3)},
    **{"layer_type": "bottleneck", "hidden_act": "relu", "downsample_in_first_stage": False, "image_size": 224},
    **{"downsample_in_bottleneck": False},
}


def activation_from(content: Mapping) -> str:
    """This package's name of ``hidden_act``. Raises ConfigError for one that is not implemented."""
    given = content["hidden_act"]
    if given not in _ACTIVATIONS:
        raise ConfigError("config.json: hidden_act", given, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[given]


def activation_to(name: str) -> str:
    """Inverse of `activation_from`."""
    return {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}[name]


def clip_vision(content: Mapping) -> ViTConfig:
    """CLIP's image tower from its vision_config."""
    return _vit(_CLIP_VISION_DEFAULTS | dict(content), norm_before=True)


def siglip_vision(content: Mapping) -> ViTConfig:
    """SigLIP's image tower from its vision_config."""
    content = _SIGLIP_VISION_DEFAULTS | dict(content)
    if not content["vision_use_head"]:
        raise ConfigError("config.json: vision_config.vision_use_head", False, "True: the tower's pooling is that head")
    return _vit(content, norm_before=False, patch_bias=True, pooling="probe")


def _vit(content: Mapping, **how: Any) -> ViTConfig:
    return ViTConfig(
        image_size=content["image_size"],
        patch_size=content["patch_size"],
        channels=content["num_channels"],
        width=content["hidden_size"],
        layers=content["num_hidden_layers"],
        heads=content["num_attention_heads"],
        mlp_width=content["intermediate_size"],
        activation=activation_from(content),
        layer_norm_eps=content["layer_norm_eps"],
        **how,
    )


def resnet_vision(content: Mapping) -> ResNetConfig:
    """A ResNetModel from its config; ``image_size``, which transformers does not name, is 224 where absent."""
    content = _RESNET_DEFAULTS | dict(content)
    for key, wanted in (
        ("hidden_act", "relu"),
        ("downsample_in_first_stage", False),
        ("downsample_in_bottleneck", False),
    ):
        if content[key] != wanted:
            raise ConfigError(f"config.json: {key}", content[key], repr(wanted))
    return ResNetConfig(
        image_size=content["image_size"],
        channels=content["num_channels"],
        stem_width=content["embedding_size"],
        widths=tuple(content["hidden_sizes"]),
        depths=tuple(content["depths"]),
        block=content["layer_type"],
    )


def vit_content(config: ViTConfig) -> dict:
    """The vision_config of CLIP's or SigLIP's image tower."""
    siglip = config.pooling == "probe"
    return {
        "model_type": "siglip_vision_model" if siglip else "clip_vision_model",
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        "hidden_act": activation_to(config.activation),
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
    }


def text_content(config: TextTransformerConfig, kind: str) -> dict:
    """The text_config of CLIP's ("clip_text_model") or SigLIP's ("siglip_text_model") text tower."""
    return {
        "model_type": kind,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_length,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "hidden_act": activation_to(config.activation),
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
    }


def is_clip_vision(config: object) -> bool:
    """Whether CLIP's key layout can hold an image tower."""
    return isinstance(config, ViTConfig) and config.pooling == "class" and config.norm_before and not config.patch_bias


def is_siglip_vision(config: object) -> bool:
    """Whether SigLIP's key layout can hold an image tower."""
    return isinstance(config, ViTConfig) and config.pooling == "probe" and config.patch_bias and not config.norm_before


def vit_keys(config: ViTConfig) -> Layout:
    """Keys of CLIP's or SigLIP's image tower, inside the tower."""
    patch = patch_arrangement(config.patch_size, config.channels)
    layout: Layout = {
        ("patch_embedding",): ("embeddings.patch_embedding.weight", patch),
        ("positions",): ("embeddings.position_embedding.weight", SAME),
        **norm(("norm_after",), "post_layernorm"),
    }
    for i in range(config.layers):
        layout |= block_keys(("blocks", "layers", str(i)), f"encoder.layers.{i}")
    if config.pooling == "class":
        layout[("class_embedding",)] = ("embeddings.class_embedding", SAME)
        # "pre_layrnorm" is how the name is spelt in every published checkpoint.
        return layout | norm(("norm_before",), "pre_layrnorm")
    layout |= {
        ("patch_bias",): ("embeddings.patch_embedding.bias", SAME),
        ("pool", "probe"): ("head.probe", lead_arrangement(2)),
        **norm(("pool", "norm"), "head.layernorm"),
        **linear(("pool", "mlp", "fc1"), "head.mlp.fc1"),
        **linear(("pool", "mlp", "fc2"), "head.mlp.fc2"),
    }
    names = ("head.attention.in_proj_weight", "head.attention.in_proj_bias", "head.attention.out_proj")
    return layout | fused_attention(("pool", "attention"), *names)


def block_keys(path: tuple[str, ...], prefix: str) -> Layout:
    """Keys of one pre-norm transformer block as CLIP and SigLIP name them."""
    layout = norm((*path, "norm1"), f"{prefix}.layer_norm1") | norm((*path, "norm2"), f"{prefix}.layer_norm2")
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        layout |= linear((*path, "attention", ours), f"{prefix}.self_attn.{theirs}")
    for part in ("fc1", "fc2"):
        layout |= linear((*path, "mlp", part), f"{prefix}.mlp.{part}")
    return layout


def text_keys(config: TextTransformerConfig) -> Layout:
    """Keys of CLIP's or SigLIP's text tower, inside the tower."""
    layout: Layout = {
        ("token_embedding",): ("embeddings.token_embedding.weight", SAME),
        ("positions",): ("embeddings.position_embedding.weight", SAME),
        **norm(("norm_after",), "final_layer_norm"),
    }
    for i in range(config.layers):
        layout |= block_keys(("blocks", "layers", str(i)), f"encoder.layers.{i}")
    return layout


def read_pixels(folder: str | Path) -> Mapping:
    """Pixel mean and deviation of preprocessor_config.json; empty where that file is absent."""
    path = Path(folder) / PREPROCESSOR
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if content.get("do_normalize", True) is False:
        channels = len(content.get("image_mean") or CLIP_MEAN)
        return {"image_mean": (0.0,) * channels, "image_std": (1.0,) * channels}
    return {key: tuple(content[key]) for key in ("image_mean", "image_std") if key in content}


def preprocessor(config: Any) -> dict:
    """The content of preprocessor_config.json."""
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(np.asarray(config.pixel_mean, float)),
        "image_std": list(np.asarray(config.pixel_std, float)),
        "do_convert_rgb": config.channels == 3,
    }
