"""open_clip: open_clip_config.json and its keys, in and out.

CLIP's own towers (vision transformer, ResNet, causal text), timm's vision transformers and ResNets, BERTs of
transformers: so also BiomedCLIP, and ResNet-50 beside BioClinicalBERT.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import bert_config_to_transformers
from ranjax.models.checkpoints.file_layout import FileLayout, Weights
from ranjax.models.checkpoints.open_clip_keys import is_timm_vit, open_clip_keys
from ranjax.models.checkpoints.open_clip_shapes import timm_activation, timm_siglip_name, timm_tower
from ranjax.models.checkpoints.open_clip_text import (
    activation_of,
    only_neutral,
    ratio,
    read_text,
    text_cfg,
    text_refusal,
    tidy,
)
from ranjax.models.checkpoints.transformers_parts import is_clip_vision
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.clip_config import CLIP_MEAN, CLIP_STD
from ranjax.models.encoder_config import ImageTowerConfig, TowersConfig, towers
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.modified_resnet import ModifiedResNetConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.text_transformer import TextTransformerConfig
from ranjax.models.towers.vision_transformer import ViTConfig

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
# What open_clip's configs do not say and timm's or transformers' names stand for; open_clip ignores this key.
OWN = "ranjax"
# Towers whose nonlinearity is in their own name or config, whatever open_clip's says.
_OF_OTHERS = (BertTextConfig, ResNetConfig, ModifiedResNetConfig)


def _read_config(content: Mapping, folder: Path, weights: Weights) -> TowersConfig:
    model = content.get("model_cfg", content)
    pixels, own = content.get("preprocess_cfg") or {}, content.get(OWN) or {}
    for key in ("vision_cfg", "text_cfg", "embed_dim"):
        if key not in model:
            raise ConfigError(f"open_clip_config.json: {key}", None, "present")
    if "multimodal_cfg" in model:
        raise ConfigError("open_clip_config.json: multimodal_cfg", "CoCa", "absent: two towers without a decoder")
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    image, image_projection = _read_image(model, activation, weights, own)
    text, text_projection = read_text(model, activation, weights, folder)
    rgb = image.channels == 3
    bias = "logit_bias" in weights or model.get("init_logit_bias") is not None
    return TowersConfig(
        image=image,
        text=text,
        embed_dim=model["embed_dim"],
        image_projection=image_projection,
        text_projection=text_projection,
        scale_limited=not bias,
        logit_bias_init=model.get("init_logit_bias", -10.0) if bias else None,
        pixel_mean=pixels.get("mean", CLIP_MEAN if rgb else None),
        pixel_std=pixels.get("std", CLIP_STD if rgb else None),
        layout="open_clip",
    )


def _read_image(model: Mapping, activation: str, weights: Weights, own: Mapping) -> tuple[ImageTowerConfig, Projection]:
    vision, size = model["vision_cfg"], model["embed_dim"]
    image_size = vision.get("image_size", 224)
    if vision.get("timm_model_name"):
        image = timm_tower(vision["timm_model_name"], weights, image_size, own.get("image_heads"))
        pool = _pool(image)
        if vision.get("timm_pool", "avg") not in ("", pool):
            raise ConfigError("open_clip_config.json: timm_pool", vision.get("timm_pool", "avg"), f"'' or {pool!r}")
        kind, bias = vision.get("timm_proj", "linear"), vision.get("timm_proj_bias", False)
        if kind not in ("linear", "mlp", "none"):
            raise ConfigError("open_clip_config.json: timm_proj", kind, "'linear', 'mlp' or 'none'")
        if kind == "none":
            return image, Projection(kind="none")
        if kind == "linear":
            return image, Projection(bias=bias)
        return image, Projection(kind="mlp", hidden=2 * size, hidden_bias=True, bias=bias)
    only_neutral(vision, "vision_cfg")
    width = vision.get("width", 768)
    head_width = vision.get("head_width", 64)
    channels = weights["visual.conv1.weight"].shape[1] if "visual.conv1.weight" in weights else 3
    if isinstance(vision.get("layers", 12), list | tuple):
        depths = tuple(vision["layers"])
        image = ModifiedResNetConfig(
            image_size=image_size,
            channels=channels,
            width=width,
            depths=depths,
            heads=width * 32 // head_width,
            outputs=size,
        )
        return image, Projection(kind="none")
    if vision.get("pool_type", "tok") != "tok":
        raise ConfigError("open_clip_config.json: vision_cfg.pool_type", vision["pool_type"], "'tok'")
    image = ViTConfig(
        image_size=image_size,
        patch_size=vision.get("patch_size", 16),
        channels=channels,
        width=width,
        layers=vision.get("layers", 12),
        heads=width // head_width,
        mlp_width=int(width * vision.get("mlp_ratio", 4.0)),
        activation=activation_of(vision, activation),
        layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
    )
    return image, Projection()


def _refuses(config: Any) -> str | None:
    parts = towers(config)
    image, text = parts.image, parts.text
    own_image = is_clip_vision(image) or isinstance(image, ModifiedResNetConfig)
    if not (own_image or is_timm_vit(image) or isinstance(image, ResNetConfig)):
        return "open_clip's layout is not written for this image tower here"
    if isinstance(image, ViTConfig) and not own_image:
        name = _timm_name(image)
        if image.activation != timm_activation(name):
            return f"timm's {name} has another nonlinearity than {image.activation}"
        if image.layer_norm_eps != 1e-6:
            return f"timm's {name} adds 1e-6 in its layer norms, not {image.layer_norm_eps}"
        if image.pooling == "probe" and parts.image_projection.kind != "none":
            return "open_clip's SigLIP projects images not at all"
    if (reason := text_refusal(parts)) is not None:
        return reason
    quick = {tower.activation == "quick_gelu" for tower in (image, text) if not isinstance(tower, _OF_OTHERS)}
    if own_image and len(quick) > 1:
        return "open_clip has QuickGELU in both towers or in none"
    return None


def _write_config(config: Any, dtype: str) -> dict[str, dict]:
    parts = towers(config)
    own: dict[str, Any] = {}
    model: dict[str, Any] = {"embed_dim": parts.embed_dim, "vision_cfg": _image_cfg(parts, own)}
    files = {}
    model["text_cfg"] = text_cfg(parts)
    if isinstance(parts.text, TextTransformerConfig):
        model["quick_gelu"] = parts.text.activation == "quick_gelu"
        if parts.text_projection.bias:
            model["custom_text"] = True
    else:
        files[CONFIG] = bert_config_to_transformers(parts.text.bert)
        model["quick_gelu"] = isinstance(parts.image, ViTConfig) and parts.image.activation == "quick_gelu"
    if parts.logit_bias_init is not None:
        model["init_logit_bias"] = parts.logit_bias_init
    content: dict[str, Any] = {"model_cfg": model}
    content["preprocess_cfg"] = {"mean": list(parts.pixel_mean or ()), "std": list(parts.pixel_std or ())}
    if own:
        content[OWN] = own
    return files | {OPEN_CLIP_CONFIG: content}


def _image_cfg(parts: TowersConfig, own: dict[str, Any]) -> dict[str, Any]:
    image = parts.image
    content: dict[str, Any] = {"image_size": image.image_size}
    if isinstance(image, ModifiedResNetConfig):
        content |= {"layers": list(image.depths), "width": image.width, "patch_size": None}
        return content | {"head_width": image.width * 32 // image.heads}
    if isinstance(image, ViTConfig) and is_clip_vision(image):
        content |= {"layers": image.layers, "width": image.width, "patch_size": image.patch_size}
        content |= {"head_width": image.width // image.heads, "mlp_ratio": ratio(image.mlp_width, image.width)}
        if image.activation == "gelu_tanh":
            content["act_kwargs"] = {"approximate": "tanh"}
        return content | {"norm_kwargs": {"eps": image.layer_norm_eps}}
    if isinstance(image, ViTConfig):
        own["image_heads"] = image.heads
        name = _timm_name(image)
        _say_size(name, image.image_size)
    else:
        name = image.name or {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}.get(image.depths, "resnet50")
    kind, pool = parts.image_projection.kind, _pool(image)
    content |= {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": kind}
    return content | {"timm_proj_bias": parts.image_projection.bias}


def _pool(image: ImageTowerConfig) -> str:
    """timm's name of an image tower's pooling."""
    if isinstance(image, ResNetConfig):
        return "avg"
    return "map" if isinstance(image, ViTConfig) and image.pooling == "probe" else "token"


def _timm_name(image: ViTConfig) -> str:
    """What timm calls a vision transformer; by its shape where it came without a name."""
    if image.name:
        return image.name
    if image.pooling != "probe":
        return f"vit_base_patch{image.patch_size}_224"
    return timm_siglip_name(image.width, image.patch_size, image.image_size)


def _say_size(name: str, image_size: int) -> None:
    if not name.split(".")[0].endswith(f"_{image_size}"):
        logging.getLogger("ranjax").warning(
            "open_clip builds %s for the image size in its name, not for %d: it must be given force_image_size=%d "
            "and the weights afterwards; ranjax reads the folder as it is",
            *(name, image_size, image_size),
        )


OPEN_CLIP = FileLayout(
    name="open_clip",
    recognises=lambda content: "vision_cfg" in content.get("model_cfg", content),
    read_config=_read_config,
    keys=open_clip_keys,
    refuses=_refuses,
    write_config=_write_config,
    config_file=OPEN_CLIP_CONFIG,
    weights_file=OPEN_CLIP_WEIGHTS,
    tidy=tidy,
)
