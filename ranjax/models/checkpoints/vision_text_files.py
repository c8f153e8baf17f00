"""transformers' VisionTextDualEncoderModel: an image tower of CLIP or SigLIP, or a residual network, beside a BERT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ranjax.core.errors import ConfigError, nearest
from ranjax.models.checkpoints.bert_files import (
    bert_config_from_transformers,
    bert_config_to_transformers,
    bert_layout,
    today_s_keys,
)
from ranjax.models.checkpoints.clip_files import shared_keys
from ranjax.models.checkpoints.file_layout import FileLayout, Weights
from ranjax.models.checkpoints.naming import Layout, under
from ranjax.models.checkpoints.resnet_keys import resnet_model_keys
from ranjax.models.checkpoints.transformers_parts import (
    PREPROCESSOR,
    clip_vision,
    is_clip_vision,
    is_siglip_vision,
    preprocessor,
    read_pixels,
    resnet_vision,
    siglip_vision,
    vit_content,
    vit_keys,
)
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.clip_config import CLIP_MEAN, CLIP_STD
from ranjax.models.encoder_config import ImageTowerConfig, TowersConfig, towers
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig


class ImageTowerFiles(NamedTuple):
    """How transformers keeps one kind of image tower: from its config, keys inside the tower, pixel statistics."""

    read: Callable[[Mapping], ImageTowerConfig]
    keys: Callable[[Any], Layout]
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


_HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_TOWER_FILES = {
    "clip_vision_model": ImageTowerFiles(clip_vision, vit_keys),
    "siglip_vision_model": ImageTowerFiles(siglip_vision, vit_keys, _HALF, _HALF),
    "resnet": ImageTowerFiles(resnet_vision, resnet_model_keys, IMAGENET_MEAN, IMAGENET_STD),
}
"""By ``model_type`` of the tower's config."""
_ALIASES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


def image_tower_files(content: Mapping) -> ImageTowerFiles:
    """The files of an image tower with that config. Raises ConfigError for a kind that is not implemented."""
    kind = content.get("model_type")
    kind = _ALIASES.get(str(kind), kind)
    if kind not in IMAGE_TOWER_FILES:
        allowed = f"one of {', '.join(IMAGE_TOWER_FILES)}"
        raise ConfigError("config.json: vision_config.model_type", kind, allowed, nearest(str(kind), IMAGE_TOWER_FILES))
    return IMAGE_TOWER_FILES[kind]


def pixel_statistics(files: ImageTowerFiles, image: ImageTowerConfig, pixels: Mapping) -> dict[str, Any]:
    """pixel_mean and pixel_std: the image processor's, or the tower's own where that file is absent."""
    rgb = image.channels == 3
    return {
        "pixel_mean": pixels.get("image_mean", files.mean if rgb else None),
        "pixel_std": pixels.get("image_std", files.std if rgb else None),
    }


def _read_config(content: Mapping, folder: Path, weights: Weights) -> TowersConfig:
    vision = content.get("vision_config") or {}
    files = image_tower_files(vision)
    image = files.read(vision)
    return TowersConfig(
        image=image,
        text=BertTextConfig(bert=bert_config_from_transformers(content.get("text_config") or {}, pooler=True)),
        embed_dim=content.get("projection_dim", 512),
        logit_scale_init=content.get("logit_scale_init_value", 2.6592),
        layout="vision-text-dual-encoder",
        **pixel_statistics(files, image, read_pixels(folder)),
    )


def _keys(config: TowersConfig) -> Layout:
    text = bert_layout(config.text.bert)
    image = IMAGE_TOWER_FILES[_kind(config)].keys(config.image)
    return shared_keys() | under(image, ("vision",), "vision_model.") | under(text, ("text",), "text_model.")


def _kind(config: TowersConfig) -> str:
    if isinstance(config.image, ResNetConfig):
        return "resnet"
    return "siglip_vision_model" if is_siglip_vision(config.image) else "clip_vision_model"


def _refuses(config: Any) -> str | None:
    parts = towers(config)
    if not isinstance(parts.text, BertTextConfig) or parts.text.pooling != "pooler":
        return "VisionTextDualEncoder takes a BERT with pooling 'pooler' here and knows no other pooling"
    if not is_clip_vision(parts.image) and not is_siglip_vision(parts.image):
        return "VisionTextDualEncoder cannot run this image tower"
    if {parts.image_projection, parts.text_projection} != {Projection()} or not parts.scale_limited:
        return "VisionTextDualEncoder has linear projections without bias and a limited logit scale only"
    return "VisionTextDualEncoder has no bias of the logits" if parts.logit_bias_init is not None else None


def _write_config(config: TowersConfig, dtype: str) -> dict[str, dict]:
    content = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale_init,
        "vision_config": vit_content(config.image),
        "text_config": bert_config_to_transformers(config.text.bert),
        "dtype": dtype,
    }
    return {CONFIG: content, PREPROCESSOR: preprocessor(config)}


def _tidy(weights: Weights) -> Weights:
    """Older files nest the image tower once more."""
    return today_s_keys(
        {key.replace("vision_model.vision_model.", "vision_model.", 1): w for key, w in weights.items()}
    )


VISION_TEXT = FileLayout(
    name="vision-text-dual-encoder",
    recognises=lambda content: content.get("model_type") == "vision-text-dual-encoder",
    read_config=_read_config,
    keys=_keys,
    refuses=_refuses,
    write_config=_write_config,
    tidy=_tidy,
)
