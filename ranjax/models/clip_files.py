"""Hugging Face CLIPModel folders: config.json and safetensors, in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ranjax.errors import ConfigError, DataError
from ranjax.models.config import CLIP_MEAN, CLIP_STD, DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, Params, split
from ranjax.models.naming import LINEAR, SAME, Layout, patch_arrangement, read_tree, write_tree
from ranjax.models.weight_files import read_config, read_weights, write_json, write_weights

PREPROCESSOR = "preprocessor_config.json"
# transformers' own defaults: a config.json may leave out whatever equals them.
_TEXT_DEFAULTS = {
    **{"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
    **{"vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    **{"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1},
}
_VISION_DEFAULTS = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
# With this id transformers pools at the largest id of a text instead (a rule for configs older than its fix).
_LEGACY_EOS = 2


def load_clip(
    folder: str | Path, strict: bool = True, dtype: str = "float32", **overrides: Any
) -> tuple[DualEncoderFunctions, Params, DualEncoderConfig]:
    """Reads a CLIPModel as `transformers` saves it.

    Args:
      folder: config.json, model.safetensors or its shards with their index, and preprocessor_config.json for the
        pixel mean and deviation (CLIP's own where that file is absent).
      strict: raise on missing and extra keys; else missing ones are initialised afresh, and both are logged.
      dtype: of the parameters; half precision on disk is widened.
      **overrides: fields of the config that say how to run, e.g. ``grey_to_rgb=True``, ``compute_dtype="bfloat16"``.

    Raises:
      DataError: files absent, damaged, pickled, or stand-ins (HTML page, LFS pointer).
      WeightsError: a DataError with the lists of missing, extra and mis-shaped keys.
      ConfigError: a config that this tower does not implement.
    """
    config = dataclasses.replace(config_from_transformers(read_config(folder), read_pixels(folder)), **overrides)

    def fresh() -> Params:
        return split(DualEncoder(config, nnx.Rngs(0)))[1]

    weights, template = read_weights(folder), jax.eval_shape(fresh)
    params = read_tree(weights, clip_layout(config), template, folder, None if strict else fresh, dtype=dtype)
    return DualEncoderFunctions(config), params, config


def save_clip(folder: str | Path, functions: DualEncoderFunctions, params: Params) -> None:
    """Writes a folder that `transformers.CLIPModel.from_pretrained` and `load_clip` read, at the parameters' precision.

    Raises:
      ConfigError: transformers pools by another rule than this config (see `config_to_transformers`).
    """
    config = functions.config
    content = config_to_transformers(config)
    content["dtype"] = str(params["log_scale"].dtype)
    write_weights(folder, write_tree(params, clip_layout(config)), content)
    write_json(Path(folder) / PREPROCESSOR, preprocessor(config))


def config_from_transformers(content: Mapping, pixels: Mapping | None = None) -> DualEncoderConfig:
    """The config of a CLIPModel's config.json. Raises ConfigError for what is not CLIP with two transformers."""
    if content.get("model_type") != "clip":
        raise ConfigError("config.json: model_type", content.get("model_type"), "'clip'")
    # Where *_config_dict is present, transformers lets it win.
    text = {**_TEXT_DEFAULTS, **(content.get("text_config") or {}), **(content.get("text_config_dict") or {})}
    vision = {**_VISION_DEFAULTS, **(content.get("vision_config") or {}), **(content.get("vision_config_dict") or {})}
    for key in ("hidden_act", "layer_norm_eps"):
        if text[key] != vision[key]:
            raise ConfigError(f"config.json: text_config.{key}", text[key], f"the vision tower's, {vision[key]!r}")
    return DualEncoderConfig(
        **vision_from_transformers(vision, pixels),
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


def vision_from_transformers(content: Mapping, pixels: Mapping | None = None) -> dict[str, Any]:
    """Fields of a `DualEncoderConfig` that say what CLIP's image tower is made of, from its vision_config."""
    vision, pixels = {**_VISION_DEFAULTS, **content}, pixels or {}
    if vision["hidden_act"] not in _ACTIVATIONS:
        raise ConfigError("config.json: hidden_act", vision["hidden_act"], f"one of {', '.join(_ACTIVATIONS)}")
    rgb = vision["num_channels"] == 3
    return {
        "image_size": vision["image_size"],
        "channels": vision["num_channels"],
        "patch_size": vision["patch_size"],
        "vision_width": vision["hidden_size"],
        "vision_layers": vision["num_hidden_layers"],
        "vision_heads": vision["num_attention_heads"],
        "vision_mlp_width": vision["intermediate_size"],
        "activation": _ACTIVATIONS[vision["hidden_act"]],
        "layer_norm_eps": vision["layer_norm_eps"],
        "pixel_mean": pixels.get("image_mean", CLIP_MEAN if rgb else None),
        "pixel_std": pixels.get("image_std", CLIP_STD if rgb else None),
    }


def config_to_transformers(config: DualEncoderConfig) -> dict:
    """The content of config.json.

    Raises:
      ConfigError: an EOS id and a pooling rule that transformers cannot express together: it pools at the largest id
        if and only if the EOS id is 2.
    """
    if (config.eos_id == _LEGACY_EOS) != (config.text_pooling == "highest_id"):
        raise ConfigError(
            "model.eos_id",
            config.eos_id,
            f"for export, any id but {_LEGACY_EOS} with text_pooling 'eos', and {_LEGACY_EOS} with 'highest_id', "
            "because transformers chooses the rule by that id",
        )
    common = _common(config)
    text = {
        "model_type": "clip_text_model",
        "hidden_size": config.text_width,
        "intermediate_size": config.text_mlp_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_length,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale_init,
        "text_config": text | common,
        "vision_config": vision_to_transformers(config),
    }


def vision_to_transformers(config: DualEncoderConfig) -> dict:
    """The vision_config of CLIP's image tower."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": config.vision_width,
        "intermediate_size": config.vision_mlp_width,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
    } | _common(config)


def _common(config: DualEncoderConfig) -> dict:
    activation = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}[config.activation]
    return {
        "hidden_act": activation,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
        "projection_dim": config.embed_dim,
    }


def clip_layout(config: DualEncoderConfig) -> Layout:
    """Every parameter's key in a CLIPModel file."""
    layout = shared_layout() | vision_layout(config)
    layout |= {
        ("text", "token_embedding"): ("text_model.embeddings.token_embedding.weight", SAME),
        ("text", "positions"): ("text_model.embeddings.position_embedding.weight", SAME),
        **_norm(("text", "norm_after"), "text_model.final_layer_norm"),
    }
    for i in range(config.text_layers):
        layout |= block_layout(("text", "blocks", "layers", str(i)), f"text_model.encoder.layers.{i}")
    return layout


def shared_layout() -> Layout:
    """Keys of what joins two towers: projections and logit scale."""
    return {
        ("log_scale",): ("logit_scale", SAME),
        ("visual_projection", "kernel"): ("visual_projection.weight", LINEAR),
        ("text_projection", "kernel"): ("text_projection.weight", LINEAR),
    }


def vision_layout(config: DualEncoderConfig) -> Layout:
    """Keys of CLIP's image tower."""
    arrangement = patch_arrangement(config.patch_size, config.channels)
    layout: Layout = {
        ("vision", "class_embedding"): ("vision_model.embeddings.class_embedding", SAME),
        ("vision", "patch_embedding"): ("vision_model.embeddings.patch_embedding.weight", arrangement),
        ("vision", "positions"): ("vision_model.embeddings.position_embedding.weight", SAME),
        # "pre_layrnorm" is how the name is spelt in every published checkpoint.
        **_norm(("vision", "norm_before"), "vision_model.pre_layrnorm"),
        **_norm(("vision", "norm_after"), "vision_model.post_layernorm"),
    }
    for i in range(config.vision_layers):
        layout |= block_layout(("vision", "blocks", "layers", str(i)), f"vision_model.encoder.layers.{i}")
    return layout


def block_layout(path: tuple[str, ...], prefix: str) -> Layout:
    """Keys of one pre-norm transformer block as CLIP and SigLIP name them."""
    layout = _norm((*path, "norm1"), f"{prefix}.layer_norm1") | _norm((*path, "norm2"), f"{prefix}.layer_norm2")
    for group, ours, theirs in (
        ("attention", "query", "self_attn.q_proj"),
        ("attention", "key", "self_attn.k_proj"),
        ("attention", "value", "self_attn.v_proj"),
        ("attention", "out", "self_attn.out_proj"),
        ("mlp", "fc1", "mlp.fc1"),
        ("mlp", "fc2", "mlp.fc2"),
    ):
        layout[(*path, group, ours, "kernel")] = (f"{prefix}.{theirs}.weight", LINEAR)
        layout[(*path, group, ours, "bias")] = (f"{prefix}.{theirs}.bias", SAME)
    return layout


def _norm(path: tuple[str, ...], key: str) -> Layout:
    return {(*path, "scale"): (f"{key}.weight", SAME), (*path, "bias"): (f"{key}.bias", SAME)}


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


def preprocessor(config: DualEncoderConfig) -> dict:
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
