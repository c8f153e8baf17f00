"""open_clip: open_clip_config.json and its keys, in and out.

CLIP's own towers (vision transformer, ResNet, causal text), timm's vision transformers and ResNets, BERTs of
transformers: so also BiomedCLIP, and ResNet-50 beside BioClinicalBERT.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.errors import ConfigError
from ranjax.models.bert_files import bert_config_to_transformers, today_s_keys
from ranjax.models.bert_text import BertTextConfig
from ranjax.models.config import CLIP_MEAN, CLIP_STD
from ranjax.models.file_layout import FileLayout, Weights
from ranjax.models.modified_resnet import ModifiedResNetConfig
from ranjax.models.open_clip_keys import is_timm_vit, open_clip_keys
from ranjax.models.open_clip_shapes import bert_of, timm_tower
from ranjax.models.projections import Projection
from ranjax.models.resnet import ResNetConfig
from ranjax.models.text_transformer import TextTransformerConfig
from ranjax.models.towers import ImageTowerConfig, TextTowerConfig, TowersConfig, towers
from ranjax.models.transformers_parts import is_clip_vision
from ranjax.models.vision_transformer import ViTConfig
from ranjax.models.weight_files import CONFIG

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
# What open_clip's configs do not say and timm's or transformers' names stand for; open_clip ignores this key.
OWN = "ranjax"
_POOLERS = {"cls_pooler": "pooler", "mean_pooler": "mean", "cls_last_hidden_state_pooler": "cls"}
# Switches of open_clip's own towers at which they are what is implemented here.
_NEUTRAL = {
    **{"ls_init_value": None, "attentional_pool": False, "no_ln_pre": False, "pos_embed_type": "learnable"},
    **{"final_ln_after_pool": False, "act_kwargs": None, "qk_norm": False, "scaled_cosine_attn": False},
    **{"scale_heads": False, "scale_attn_inner": False, "scale_attn": False, "scale_fc": False, "embed_cls": False},
    **{"no_causal_mask": False, "proj_bias": False, "proj_type": "linear", "block_type": None},
}


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
    text, text_projection = _read_text(model, activation, weights, folder)
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
        pool = "avg" if isinstance(image, ResNetConfig) else "token"
        if vision.get("timm_pool", "avg") not in ("", pool):
            raise ConfigError("open_clip_config.json: timm_pool", vision.get("timm_pool", "avg"), f"'' or {pool!r}")
        kind, bias = vision.get("timm_proj", "linear"), vision.get("timm_proj_bias", False)
        if kind not in ("linear", "mlp"):
            raise ConfigError("open_clip_config.json: timm_proj", kind, "'linear' or 'mlp'")
        if kind == "linear":
            return image, Projection(bias=bias)
        return image, Projection(kind="mlp", hidden=2 * size, hidden_bias=True, bias=bias)
    _only_neutral(vision, "vision_cfg")
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
        activation=activation,
        layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
    )
    return image, Projection()


def _read_text(model: Mapping, activation: str, weights: Weights, folder: Path) -> tuple[TextTowerConfig, Projection]:
    text, size = model["text_cfg"], model["embed_dim"]
    if text.get("hf_model_name"):
        return _read_bert(text, size, weights, folder)
    _only_neutral(text, "text_cfg")
    pooling = {"argmax": "highest_id", "eos": "eos"}.get(text.get("pool_type", "argmax"))
    if pooling is None:
        raise ConfigError("open_clip_config.json: text_cfg.pool_type", text["pool_type"], "'argmax' or 'eos'")
    vocab_size, width = text.get("vocab_size", 49408), text.get("width", 512)
    tower = TextTransformerConfig(
        vocab_size=vocab_size,
        max_length=text.get("context_length", 77),
        width=width,
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_width=int(width * text.get("mlp_ratio", 4.0)),
        activation=activation,
        layer_norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        pooling=pooling,
        # The largest id is pooled, and that is the end token's in every vocabulary made for it.
        eos_id=vocab_size - 1 if pooling == "highest_id" else text.get("eos_id", 2),
        pad_id=text.get("pad_id", 0),
    )
    return tower, Projection()


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


def _only_neutral(content: Mapping, group: str) -> None:
    for key, wanted in _NEUTRAL.items():
        if content.get(key, wanted) not in (wanted, "default" if key == "block_type" else wanted):
            raise ConfigError(f"open_clip_config.json: {group}.{key}", content[key], repr(wanted))


def _refuses(config: Any) -> str | None:
    parts = towers(config)
    image, text = parts.image, parts.text
    own_image = is_clip_vision(image) or isinstance(image, ModifiedResNetConfig)
    if not (own_image or is_timm_vit(image) or isinstance(image, ResNetConfig)):
        return "open_clip's layout is not written for this image tower here"
    if isinstance(text, TextTransformerConfig):
        if text.pooling == "last" or not text.causal or parts.text_projection != Projection():
            return "open_clip's layout is not written for this text tower here"
        if isinstance(image, ViTConfig) and is_clip_vision(image) and image.activation != text.activation:
            return "open_clip has one activation for both towers"
        if text.activation == "gelu_tanh":
            return "open_clip's towers have the exact GELU or QuickGELU"
    elif parts.text_projection.kind == "mlp" and parts.text_projection.hidden != (text.width + parts.embed_dim) // 2:
        return "open_clip's MLP behind a text tower is half as wide as both ends together"
    return None


def _write_config(config: Any, dtype: str) -> dict[str, dict]:
    parts = towers(config)
    own: dict[str, Any] = {}
    model: dict[str, Any] = {"embed_dim": parts.embed_dim, "vision_cfg": _image_cfg(parts, own)}
    files = {}
    if isinstance(parts.text, TextTransformerConfig):
        model["text_cfg"] = _text_cfg(parts.text)
        model["quick_gelu"] = parts.text.activation == "quick_gelu"
    else:
        model["text_cfg"] = _bert_cfg(parts)
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
        content |= {"head_width": image.width // image.heads, "mlp_ratio": _ratio(image.mlp_width, image.width)}
        return content | {"norm_kwargs": {"eps": image.layer_norm_eps}}
    if isinstance(image, ViTConfig):
        own["image_heads"] = image.heads
        name = image.name or f"vit_base_patch{image.patch_size}_224"
        _say_size(name, image.image_size)
    else:
        name = image.name or {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}.get(image.depths, "resnet50")
    kind, pool = parts.image_projection.kind, "avg" if isinstance(image, ResNetConfig) else "token"
    content |= {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": kind}
    return content | {"timm_proj_bias": parts.image_projection.bias}


def _ratio(hidden: int, width: int) -> float:
    """The ratio that gives `hidden` again where it is multiplied and cut off, as open_clip and `_read_config` do."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _say_size(name: str, image_size: int) -> None:
    if not name.split(".")[0].endswith(f"_{image_size}"):
        logging.getLogger("ranjax").warning(
            "open_clip builds %s for the image size in its name, not for %d: it must be given force_image_size=%d "
            "and the weights afterwards; ranjax reads the folder as it is",
            *(name, image_size, image_size),
        )


def _text_cfg(text: TextTransformerConfig) -> dict[str, Any]:
    content = {
        "context_length": text.max_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": _ratio(text.mlp_width, text.width),
        "norm_kwargs": {"eps": text.layer_norm_eps},
        "pad_id": text.pad_id or 0,
    }
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


def _tidy(weights: Weights) -> Weights:
    """Native text towers without the "text." in front, BERTs with today's names and without an unused pooler."""
    weights = today_s_keys(weights)
    if "text.token_embedding.weight" in weights:
        weights = {key.removeprefix("text."): value for key, value in weights.items()}
    return weights


OPEN_CLIP = FileLayout(
    name="open_clip",
    recognises=lambda content: "vision_cfg" in content.get("model_cfg", content),
    read_config=_read_config,
    keys=open_clip_keys,
    refuses=_refuses,
    write_config=_write_config,
    config_file=OPEN_CLIP_CONFIG,
    weights_file=OPEN_CLIP_WEIGHTS,
    tidy=_tidy,
)
