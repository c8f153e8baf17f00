"""A dual encoder of an image tower and a BERT that were published apart, joined by fresh projections.

As LiT (Zhai et al. 2022) and VisionTextDualEncoder do it: CLIP's or SigLIP's image tower, a ResNet of transformers,
timm or torchvision, a vision transformer of timm; beside PubMedBERT, BioClinicalBERT, MiniLM or any other BERT.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.checkpoints import efficientnet_files, timm_towers
from ranjax.models.checkpoints.bert_files import load_bert
from ranjax.models.checkpoints.config_keys import object_of
from ranjax.models.checkpoints.layouts import writable_layout
from ranjax.models.checkpoints.naming import Content, Json, Weights, read_tree
from ranjax.models.checkpoints.own_layout import OWN_LAYOUT
from ranjax.models.checkpoints.sentence_pooling import stated_pooling
from ranjax.models.checkpoints.transformers_layouts import vision_files
from ranjax.models.checkpoints.transformers_towers import CLIP_VISION, read_pixels
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS, folder_of, read_config, read_weights
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.contract import ImageTowerConfig, TextTowerConfig, TowerFiles
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import ViTConfig
from ranjax.models.towers.tower_table import files_reading, tower_of

# Classifiers that published image towers carry: there is no use for them here.
_CLASSIFIERS = ("fc.", "head.", "classifier.")


class ImageTower(NamedTuple):
    """An image tower by itself: its config, its parameters, and pixel_mean and pixel_std."""

    config: ImageTowerConfig
    params: Params
    pixels: Json


def load_image_tower(source: str | Path, dtype: str = "float32") -> ImageTower:
    """Read an image tower.

    Args:
      source: a folder or file of transformers (CLIPModel, CLIPVisionModel, SiglipModel, SiglipVisionModel,
        ResNetModel, with or without a classifier), of timm (its config.json names the architecture), or of torchvision
        or EfficientNet-PyTorch (a file without a config.json, recognised by its keys). A file may be torch's own.
      dtype: "float32" or "float64".

    Raises:
      DataError, WeightsError, ConfigError: as `load`.
    """
    source = Path(source)
    folder = source.parent if source.is_file() else source
    content = read_config(folder) if (folder / CONFIG).is_file() else {}
    weights: Weights = read_weights(source, (WEIGHTS,))
    if "model_type" in content:
        files, part, weights = _of_transformers(content, weights)
        config = files.read(part, {})
        pixels: Json = read_pixels(folder, files, config.channels)
    else:
        weights, name = efficientnet_files.as_timm(weights)
        files, part = _of_timm({"architecture": name} | content if name else content, weights)
        config = files.read(part, weights)
        pool = files.write(config)[timm_towers.POOL]
        timm_towers.refuse_pool(content.get("global_pool"), pool, "config.json: global_pool")
        statistics = {"mean": files.mean, "std": files.std} | timm_towers.read_own_config(content)
        pixels = {f"pixel_{name}": tuple(statistics[name]) for name in ("mean", "std") if config.channels == 3}
    keys = files.keys(config)
    template = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(tower_of(config).build(config, nnx.Rngs(0)))))
    known = {key for key, _ in keys.values()}
    kept = {key: value for key, value in weights.items() if key in known or not key.startswith(_CLASSIFIERS)}
    return ImageTower(config, read_tree(kept, keys, template, source, dtype=dtype), pixels)


def beside_bert(
    text: str | Path,
    *,
    image: str | Path | ImageTowerConfig,
    embed_dim: int,
    rngs: nnx.Rngs,
    pooling: str = "pooler",
    projection: str = "linear",
    **overrides: Any,
) -> tuple[DualEncoderFunctions, Params, DualEncoderConfig]:
    """Join a published BERT and an image tower, published or new, by fresh projections and a fresh logit scale.

    Args:
      text: a folder or file that `load_bert` reads.
      image: see `load_image_tower`; or the config of a tower to be initialised.
      embed_dim: D, width of the shared space.
      rngs: for what is fresh.
      pooling: as in `BertConfig`; "pooler" where the files hold BERT's pooler. What a folder of sentence-transformers
        states must be that.
      projection: "linear" or "mlp" behind the text tower, and behind the image tower unless it is CLIP's.
      **overrides: as for `load`.

    Raises:
      DataError, WeightsError, ConfigError: as `load`.
    """
    tower = ImageTower(image, {}, {}) if isinstance(image, ImageTowerConfig) else load_image_tower(image)
    _, text_params, bert = load_bert(text)
    stated = stated_pooling(folder_of(text), bert.width)
    if stated and pooling != stated:
        raise ConfigError("model.bert.pooling", pooling, f"{stated}, which the checkpoint's own pooling states")
    if pooling == "pooler" and bert.pooling != "pooler":
        raise ConfigError("model.bert.pooling", pooling, f"cls or mean: {text} holds no pooler")
    if pooling != "pooler":
        bert = dataclasses.replace(bert, pooling=pooling)
        text_params = {name: part for name, part in text_params.items() if name != "pooler"}
    if tower.config.channels != 3:
        overrides.pop("grey_to_rgb", None)
    written = Projection(kind=projection, hidden=(bert.width + embed_dim) // 2 if projection == "mlp" else 0)
    config = DualEncoderConfig(
        image=tower.config,
        text=bert,
        embed_dim=embed_dim,
        image_projection=_image_projection(projection, embed_dim, tower.config),
        text_projection=written,
        layout="vision-text-dual-encoder",
        **tower.pixels,
        **overrides,
    )
    config = dataclasses.replace(config, layout=writable_layout(config).name)
    fresh = split(DualEncoder(config, rngs))[1]
    loaded = {"text": text_params} | ({"vision": tower.params} if tower.params else {})
    return DualEncoderFunctions(config), fresh | loaded, config


def image_alone(
    image: str | Path, *, text: TextTowerConfig, rngs: nnx.Rngs, **overrides: Any
) -> tuple[DualEncoderFunctions, Params, DualEncoderConfig]:
    """Stand an image tower in a dual encoder whose image embedding is the tower's own output.

    Its text tower is new and means nothing: it is there for the form alone.

    Args:
      image: see `load_image_tower`.
      text: config of the text tower.
      rngs: for its weights.
      **overrides: as for `load`.

    Raises:
      DataError, WeightsError, ConfigError: as `load`.
    """
    tower = load_image_tower(image)
    if tower.config.channels != 3:
        overrides.pop("grey_to_rgb", None)
    config = DualEncoderConfig(
        image=tower.config,
        text=text,
        embed_dim=tower.config.outputs,
        image_projection=Projection(kind="none"),
        layout=OWN_LAYOUT.name,
        **tower.pixels,
        **overrides,
    )
    return DualEncoderFunctions(config), split(DualEncoder(config, rngs))[1] | {"vision": tower.params}, config


def _image_projection(kind: str, embed_dim: int, tower: ImageTowerConfig) -> Projection:
    # The shapes of open_clip's MLPs, so that its files can hold them: behind towers of timm only.
    plain = kind == "linear" or (isinstance(tower, ViTConfig) and not CLIP_VISION.refuses(tower))
    return LINEAR if plain else Projection(kind=kind, hidden=2 * embed_dim, hidden_bias=True)


def _of_transformers(content: Content, weights: Weights) -> tuple[TowerFiles, Content, Weights]:
    """Return how transformers keeps a folder's image tower, its part of config.json, and its tensors."""
    whole = "vision_config" in content
    part = (
        {"model_type": content["model_type"], **object_of(content, "vision_config", "config.json: ")}
        if whole
        else content
    )
    found = {}
    for key, value in weights.items():
        # A whole CLIP holds another tower, whose keys start otherwise.
        if not whole or key.startswith("vision_model."):
            found[key.removeprefix("resnet.").removeprefix("vision_model.")] = value
    return vision_files(part), part, found


def _of_timm(content: Content, weights: Weights) -> tuple[TowerFiles, Content]:
    """Return how timm keeps a folder's image tower, and its part of a config."""
    name = content.get("architecture") or ("resnet50" if "layer1.0.conv1.weight" in weights else "without a name")
    if not isinstance(name, str):
        raise ConfigError("config.json: architecture", name, "a name")
    size = timm_towers.read_own_config(content).get("input_size", (3, 224, 224))[-1]
    part = {timm_towers.NAME: name, "image_size": size}
    files = files_reading(part, "timm", "image")
    if files is None:
        raise ConfigError("config.json: architecture", name, f"{efficientnet_files.KNOWN}, {timm_towers.KNOWN}")
    return files, part
