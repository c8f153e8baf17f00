"""What an open_clip config leaves to names of other libraries, read off the shapes of the weights instead."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import bert_config_from_transformers
from ranjax.models.checkpoints.file_layout import Weights
from ranjax.models.checkpoints.weight_files import CONFIG, WeightsError
from ranjax.models.towers.bert import BertConfig
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.vision_transformer import ViTConfig

# Heads of timm's vision transformers by the size in their name.
_TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "so400m": 16, "giantopt": 16}
_SIGLIP_SIZES = {768: "base", 1024: "large", 1152: "so400m", 1536: "giantopt"}
# timm's SigLIP towers with the approximate GELU; all its others have the exact one.
_TANH = r"vit_(base_patch32_siglip_256|large_patch16_siglip_512|so400m_patch16_siglip_\d+|giantopt_patch16_siglip_\d+)"
_TIMM_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_BERT_HEAD_WIDTH = 64


def timm_tower(name: str, weights: Weights, image_size: int, heads: int | None) -> ViTConfig | ResNetConfig:
    """The image tower under ``visual.trunk`` that timm builds by this name.

    Args:
      name: e.g. "vit_base_patch16_224" or "resnet50".
      weights: of the whole file.
      image_size: that of the config; a transformer's positions overrule it.
      heads: where the name does not say them.

    Raises:
      ConfigError: a name whose architecture is not implemented.
      WeightsError: the tensors by which a tower is recognised are missing.
    """
    trunk = {key.removeprefix("visual.trunk."): value for key, value in weights.items()}
    base = name.split("/")[-1].split(".")[0]
    if base in _TIMM_RESNETS:
        return torchvision_resnet(trunk, image_size, name)
    match = re.fullmatch(r"vit_([a-z0-9]+)_patch\d+_(siglip_)?\d+", base)
    if match is None or (heads is None and match[1] not in _TIMM_HEADS):
        sizes = ", ".join(f"vit_{size}_patch*_*" for size in _TIMM_HEADS)
        allowed = f"{sizes}, {', '.join(_TIMM_RESNETS)}, or a vit_*_patch*_siglip_* of those sizes"
        raise ConfigError("open_clip_config.json: timm_model_name", name, allowed)
    siglip = match[2] is not None
    _need(trunk, "visual.trunk.", "patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    width, channels, patch, _ = trunk["patch_embed.proj.weight"].shape
    grid = math.isqrt(trunk["pos_embed"].shape[1] - (not siglip))
    return ViTConfig(
        image_size=grid * patch,
        patch_size=patch,
        channels=channels,
        width=width,
        layers=_count(trunk, r"blocks\.(\d+)\."),
        heads=heads or _TIMM_HEADS[match[1]],
        mlp_width=trunk["blocks.0.mlp.fc1.weight"].shape[0],
        activation=timm_activation(name),
        layer_norm_eps=1e-6,
        patch_bias=True,
        norm_before=False,
        pooling="probe" if siglip else "class",
        name=name,
    )


def timm_activation(name: str) -> str:
    """The nonlinearity of the vision transformer that timm builds by this name."""
    return "gelu_tanh" if re.fullmatch(_TANH, name.split("/")[-1].split(".")[0]) else "gelu"


def timm_siglip_name(width: int, patch_size: int, image_size: int) -> str:
    """What timm calls SigLIP's image tower of these shapes (of no published width: as a base tower)."""
    return f"vit_{_SIGLIP_SIZES.get(width, 'base')}_patch{patch_size}_siglip_{image_size}"


def torchvision_resnet(trunk: Weights, image_size: int, name: str = "", prefix: str = "visual.trunk.") -> ResNetConfig:
    """The residual network of torchvision's (and timm's) keys.

    Args:
      trunk: its tensors, keys inside the tower.
      image_size: in pixels.
      name: what timm calls it, if it does.
      prefix: of its keys in the file, for messages.
    """
    _need(trunk, prefix, "conv1.weight", "layer1.0.conv1.weight")
    block = "bottleneck" if "layer1.0.conv3.weight" in trunk else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    stages = range(1, 1 + _count(trunk, r"layer(\d+)\.", first=1))
    _need(trunk, prefix, *(f"layer{i}.0.{last}.weight" for i in stages))
    return ResNetConfig(
        image_size=image_size,
        channels=trunk["conv1.weight"].shape[1],
        stem_width=trunk["conv1.weight"].shape[0],
        widths=tuple(trunk[f"layer{i}.0.{last}.weight"].shape[0] for i in stages),
        depths=tuple(_count(trunk, rf"layer{i}\.(\d+)\.") for i in stages),
        block=block,
        name=name,
    )


def bert_of(folder: Path, weights: Weights, name: str, pooler: bool) -> BertConfig:
    """The BERT under ``text.transformer``: by the folder's config.json if that is a BERT's, else by shapes.

    Shapes tell all but the number of heads (here width / 64, as in every BERT, PubMedBERT, BioClinicalBERT published
    by that name) and constants that all of those share; what was inferred is logged.

    Raises:
      ConfigError: a config.json of a BERT that is not implemented.
      WeightsError: the tensors by which a BERT is recognised are missing.
    """
    content = _bert_content(folder)
    if content is not None:
        return bert_config_from_transformers(content, pooler=pooler)
    prefix = "text.transformer."
    inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    tables = {n: f"embeddings.{n}_embeddings.weight" for n in ("word", "position", "token_type")}
    _need(inner, prefix, *tables.values(), "encoder.layer.0.intermediate.dense.weight")
    vocab_size, width = inner[tables["word"]].shape
    heads = max(width // _BERT_HEAD_WIDTH, 1)
    logging.getLogger("ranjax").warning(
        "%s names its text tower %r and holds no config.json of it: taken as a BERT of width %d with %d heads",
        *(folder, name, width, heads),
    )
    return BertConfig(
        vocab_size=vocab_size,
        width=width,
        layers=_count(inner, r"encoder\.layer\.(\d+)\."),
        heads=heads,
        mlp_width=inner["encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_length=inner[tables["position"]].shape[0],
        types=inner[tables["token_type"]].shape[0],
        pooler=pooler,
    )


def _bert_content(folder: Path) -> Mapping[str, Any] | None:
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    return content if content.get("model_type") == "bert" else None


def _count(weights: Weights, pattern: str, first: int = 0) -> int:
    found = {int(match[1]) for key in weights if (match := re.match(pattern, key))}
    return max(found, default=first - 1) + 1 - first


def _need(weights: Weights, prefix: str, *keys: str) -> None:
    missing = [prefix + key for key in keys if key not in weights]
    if missing:
        raise WeightsError("the open_clip file", missing, [], [])
