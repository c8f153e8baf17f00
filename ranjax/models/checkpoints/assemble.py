"""A dual encoder of an image tower and a BERT that were published apart, joined by fresh projections.

As LiT (Zhai et al. 2022) and VisionTextDualEncoder do it: CLIP's or SigLIP's image tower, a ResNet of transformers,
timm or torchvision, a vision transformer of timm; beside PubMedBERT, BioClinicalBERT, MiniLM or any other BERT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import load_bert
from ranjax.models.checkpoints.file_layout import Weights
from ranjax.models.checkpoints.layouts import writable_layout
from ranjax.models.checkpoints.naming import Layout, read_tree
from ranjax.models.checkpoints.open_clip_keys import timm_vit_keys
from ranjax.models.checkpoints.open_clip_shapes import timm_tower
from ranjax.models.checkpoints.resnet_keys import torchvision_keys
from ranjax.models.checkpoints.transformers_parts import is_clip_vision, read_pixels
from ranjax.models.checkpoints.vision_text_files import IMAGENET_MEAN, IMAGENET_STD, image_tower_files, pixel_statistics
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS, read_config, read_weights
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, Params, split
from ranjax.models.encoder_config import IMAGE_TOWERS, ImageTowerConfig, TowersConfig
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.vision_transformer import ViTConfig

# Classifiers that published image towers carry: there is no use for them here.
_CLASSIFIERS = ("fc.", "head.", "classifier.")


class ImageTower(NamedTuple):
    """An image tower by itself: its config, its parameters, and pixel_mean and pixel_std."""

    config: ImageTowerConfig
    params: Params
    pixels: dict[str, Any]


def load_image_tower(source: str | Path, dtype: str = "float32") -> ImageTower:
    """Reads an image tower.

    Args:
      source: a folder or .safetensors file of transformers (CLIPModel, CLIPVisionModel, SiglipModel, SiglipVisionModel,
        ResNetModel, with or without a classifier), of timm (its config.json names the architecture), or of torchvision
        (a file without a config.json, whose ResNet is recognised by its keys).
      dtype: "float32" or "float64".

    Raises:
      DataError, WeightsError, ConfigError: as `load`.
    """
    source = Path(source)
    folder = source.parent if source.is_file() else source
    content = read_config(folder) if (folder / CONFIG).is_file() else {}
    weights = read_weights(source, (WEIGHTS,))
    if "model_type" in content:
        config, keys, weights, pixels = _of_transformers(content, folder, weights)
    else:
        config, keys, weights, pixels = _of_timm(content, weights)
    template = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(IMAGE_TOWERS[type(config)](config, nnx.Rngs(0)))))
    weights = dict(weights)
    return ImageTower(config, read_tree(weights, keys, template, source, dtype=dtype), pixels)


def beside_bert(
    text: str | Path,
    *,
    image: str | Path | ViTConfig,
    embed_dim: int,
    rngs: nnx.Rngs,
    pooling: str = "pooler",
    projection: str = "linear",
    **overrides: Any,
) -> tuple[DualEncoderFunctions, Params, TowersConfig]:
    """A dual encoder of a published BERT and an image tower, published or new; projections and logit scale are fresh.

    Args:
      text: a folder or file that `load_bert` reads.
      image: see `load_image_tower`; or the config of a tower to be initialised.
      embed_dim: D, width of the shared space.
      rngs: for what is fresh.
      pooling: "cls", "mean" or "pooler" (the latter where the files hold BERT's pooler).
      projection: "linear" or "mlp" behind the text tower, and behind the image tower unless it is CLIP's.
      **overrides: as for `load`.

    Raises:
      DataError, WeightsError, ConfigError: as `load`; also for a pair that no layout of files can hold.
    """
    tower = ImageTower(image, {}, {}) if isinstance(image, ViTConfig) else load_image_tower(image)
    _, text_params, bert = load_bert(text)
    if pooling == "pooler" and not bert.pooler:
        raise ConfigError("model.text_pooling", pooling, f"cls or mean: {text} holds no pooler")
    if pooling != "pooler":
        bert = dataclasses.replace(bert, pooler=False)
        text_params = {name: part for name, part in text_params.items() if name != "pooler"}
    if tower.config.channels != 3:
        overrides.pop("grey_to_rgb", None)
    config = TowersConfig(
        image=tower.config,
        text=BertTextConfig(bert=bert, pooling=pooling),
        embed_dim=embed_dim,
        image_projection=_image_projection(projection, embed_dim, tower.config),
        text_projection=_text_projection(projection, bert.width, embed_dim),
        layout="vision-text-dual-encoder",
        **tower.pixels,
        **overrides,
    )
    config = dataclasses.replace(config, layout=writable_layout(config).name)
    fresh = split(DualEncoder(config, rngs))[1]
    kept = {"text": text_params} | ({"vision": tower.params} if tower.params else {})
    return DualEncoderFunctions(config), fresh | kept, config


def _image_projection(kind: str, embed_dim: int, tower: ImageTowerConfig) -> Projection:
    # The shapes of open_clip's MLPs, so that its files can hold them: behind towers of timm only.
    plain = kind == "linear" or is_clip_vision(tower)
    return Projection() if plain else Projection(kind=kind, hidden=2 * embed_dim, hidden_bias=True)


def _text_projection(kind: str, width: int, embed_dim: int) -> Projection:
    return Projection() if kind == "linear" else Projection(kind=kind, hidden=(width + embed_dim) // 2)


def _of_transformers(
    content: Mapping, folder: Path, weights: Weights
) -> tuple[ImageTowerConfig, Layout, Weights, dict[str, Any]]:
    vision = content.get("vision_config") or content
    if "vision_config" in content:
        vision = {"model_type": content["model_type"], **vision}
    files = image_tower_files(vision)
    config = files.read(vision)
    held = {}
    for key, value in weights.items():
        inner = key.removeprefix("resnet.").removeprefix("vision_model.")
        # A whole CLIP holds another tower, whose keys start otherwise.
        if "vision_config" not in content or key.startswith("vision_model."):
            held[inner] = value
    keys = files.keys(config)
    return config, keys, _without_classifier(held, keys), pixel_statistics(files, config, read_pixels(folder))


def _of_timm(content: Mapping, weights: Weights) -> tuple[ImageTowerConfig, Layout, Weights, dict[str, Any]]:
    name = content.get("architecture") or ("resnet50" if "layer1.0.conv1.weight" in weights else "without a name")
    trunk = {f"visual.trunk.{key}": value for key, value in weights.items()}
    statistics = content.get("pretrained_cfg") or {}
    size = (statistics.get("input_size") or (3, 224, 224))[-1]
    config = timm_tower(name, trunk, size, None)
    resnet = isinstance(config, ResNetConfig)
    keys = torchvision_keys(config) if isinstance(config, ResNetConfig) else timm_vit_keys(config)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if resnet else ((0.5,) * 3, (0.5,) * 3)
    rgb = config.channels == 3
    pixels = {
        "pixel_mean": tuple(statistics.get("mean", mean)) if rgb else None,
        "pixel_std": tuple(statistics.get("std", std)) if rgb else None,
    }
    return config, keys, _without_classifier(weights, keys), pixels


def _without_classifier(weights: Weights, keys: Layout) -> Weights:
    known = {key for key, _ in keys.values()}
    return {key: value for key, value in weights.items() if key in known or not key.startswith(_CLASSIFIERS)}
