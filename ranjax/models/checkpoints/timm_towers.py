"""The towers of timm, whose ResNets have torchvision's keys; read off a name and the shapes of the weights."""

from __future__ import annotations

import logging
import math
import re

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.config_keys import refuse_statistics, refuse_unknown
from ranjax.models.checkpoints.naming import (
    Arrangement,
    Content,
    Json,
    Keys,
    Names,
    Weights,
    blocks,
    conv_norm,
    named,
    stages,
)
from ranjax.models.checkpoints.transformers_towers import HALF, IMAGENET_MEAN, IMAGENET_STD
from ranjax.models.checkpoints.weight_files import WeightsError
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.tower_configs import ResNetConfig, ViTConfig

NAME, POOL, HEADS = "timm_model_name", "timm_pool", "image_heads"
"""Keys of a tower's part of a config: timm's name, its pooling, and heads where the name does not say them."""
# Heads of timm's vision transformers by the size in their name.
_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "so400m": 16, "giantopt": 16}
_SIGLIP_SIZES = {768: "base", 1024: "large", 1152: "so400m", 1536: "giantopt"}
# timm's SigLIP towers with the approximate GELU; all its others have the exact one.
_TANH = r"vit_(base_patch32_siglip_256|large_patch16_siglip_512|so400m_patch16_siglip_\d+|giantopt_patch16_siglip_\d+)"
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_RESNET_NAMES: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}
_BLOCKS = blocks(
    "blocks.{}.",
    {
        "norm1": "norm1.*",
        "attention/query|key|value": "attn.qkv.*",
        "attention/out": "attn.proj.*",
        "norm2": "norm2.*",
        "mlp/fc1": "mlp.fc1.*",
        "mlp/fc2": "mlp.fc2.*",
    },
)
_CLASS_NAMES: Names = {"class_embedding": ("cls_token", Arrangement("lead", (1, 1)))}
_PROBE_NAMES: Names = {
    "pool/probe": ("attn_pool.latent", Arrangement("lead", (1, 1))),
    "pool/attention/query": "attn_pool.q.*",
    "pool/attention/key|value": "attn_pool.kv.*",
    "pool/attention/out": "attn_pool.proj.*",
    "pool/norm": "attn_pool.norm.*",
    "pool/mlp/fc1": "attn_pool.mlp.fc1.*",
    "pool/mlp/fc2": "attn_pool.mlp.fc2.*",
}
# Of the classifier, of resizing, and of where weights come from.
_OF_CONFIG = "num_classes num_features label_names label_descriptions model_type"
_OF_PRETRAINED = (
    "tag custom_load fixed_input_size interpolation crop_pct crop_mode num_classes pool_size first_conv classifier "
    "test_input_size test_crop_pct min_input_size url file source hf_hub_id hf_hub_filename architecture state_dict "
    "label_names label_descriptions license notes origin_url paper_name paper_ids description"
)
KNOWN = (
    f"{', '.join(f'vit_{size}_patch*_*' for size in _HEADS)}, {', '.join(_RESNETS)}, "
    "or a vit_*_patch*_siglip_* of those sizes"
)
"""The names that are read here, in words."""


def base(name: str) -> str:
    """Return timm's name of an architecture without its hub and its weights' tag."""
    return name.split("/")[-1].split(".")[0]


def _match(content: Content) -> re.Match[str] | None:
    match = re.fullmatch(r"vit_([a-z0-9]+)_patch\d+_(siglip_)?\d+", base(str(content.get(NAME, ""))))
    return match if match and (content.get(HEADS) or match[1] in _HEADS) else None


def _read_vit(content: Content, weights: Weights) -> ViTConfig:
    match = _match(content)
    assert match is not None
    siglip = match[2] is not None
    need(weights, "patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
    # The positions decide the size, whatever the config says.
    grid = math.isqrt(weights["pos_embed"].shape[1] - (not siglip))
    return ViTConfig(
        image_size=grid * patch,
        patch_size=patch,
        channels=channels,
        width=width,
        layers=count(weights, r"blocks\.(\d+)\."),
        heads=content.get(HEADS) or _HEADS[match[1]],
        mlp_width=weights["blocks.0.mlp.fc1.weight"].shape[0],
        activation=_activation(content[NAME]),
        layer_norm_eps=1e-6,
        patch_bias=True,
        norm_before=False,
        pooling="probe" if siglip else "class",
        name=content[NAME],
    )


def _write_vit(config: ViTConfig) -> dict[str, object]:
    name, size = _vit_name(config), config.image_size
    if not base(name).endswith(f"_{size}"):
        logging.getLogger("ranjax").warning(
            "timm builds %s for the image size in its name, not for %d: in open_clip it must be given "
            "force_image_size=%d and the weights afterwards; ranjax reads the folder as it is",
            *(name, size, size),
        )
    return {NAME: name, POOL: "map" if config.pooling == "probe" else "token", HEADS: config.heads}


def _refuses_vit(config: ViTConfig) -> str:
    if not config.patch_bias or config.norm_before:
        return "timm's vision transformers have a bias of the patch embedding and no layer norm before the first block"
    name = _vit_name(config)
    if config.activation != _activation(name):
        return f"timm's {name} has another nonlinearity than {config.activation}"
    if config.layer_norm_eps != 1e-6:
        return f"timm's {name} adds 1e-6 in its layer norms, not {config.layer_norm_eps}"
    return ""


def _activation(name: str) -> str:
    """Return the nonlinearity of the vision transformer that timm builds by this name."""
    return "gelu_tanh" if re.fullmatch(_TANH, base(name)) else "gelu"


def _vit_name(config: ViTConfig) -> str:
    """Return what timm calls a vision transformer; by its shape where it came without a name."""
    if config.name:
        return config.name
    if config.pooling != "probe":
        return f"vit_base_patch{config.patch_size}_224"
    size = _SIGLIP_SIZES.get(config.width, "base")
    return f"vit_{size}_patch{config.patch_size}_siglip_{config.image_size}"


def _vit_keys(config: ViTConfig) -> Keys:
    """Return the keys of timm's VisionTransformer, with a class token or with SigLIP's pooling by attention."""
    patch = Arrangement("conv", (config.patch_size, config.patch_size, config.channels))
    names: Names = {
        "patch_embedding": ("patch_embed.proj.weight", patch),
        "patch_bias": "patch_embed.proj.bias",
        "positions": ("pos_embed", Arrangement("lead", (1,))),
        "norm_after": "norm.*",
        **_BLOCKS,
        **(_CLASS_NAMES if config.pooling == "class" else _PROBE_NAMES),
    }
    return named(names, config.layers)


def read_resnet(content: Content, weights: Weights) -> ResNetConfig:
    """Return the residual network of torchvision's (and timm's) keys; of `content`, image size and name are taken."""
    need(weights, "conv1.weight", "layer1.0.conv1.weight")
    block = "bottleneck" if "layer1.0.conv3.weight" in weights else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    stages = range(1, 1 + count(weights, r"layer(\d+)\.", first=1))
    need(weights, *(f"layer{i}.0.{last}.weight" for i in stages))
    return ResNetConfig(
        image_size=content.get("image_size", 224),
        channels=weights["conv1.weight"].shape[1],
        stem_width=weights["conv1.weight"].shape[0],
        widths=tuple(weights[f"layer{i}.0.{last}.weight"].shape[0] for i in stages),
        depths=tuple(count(weights, rf"layer{i}\.(\d+)\.") for i in stages),
        block=block,
        name=content.get(NAME, ""),
    )


def _resnet_keys(config: ResNetConfig) -> Keys:
    """Return the keys of torchvision's and timm's ResNets, without the classifier."""
    keys = conv_norm(("stem",), "conv1", "bn1")
    for i, j, path in stages(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in range(config.convolutions):
            keys |= conv_norm((*path, "convs", str(k)), f"{prefix}.conv{k + 1}", f"{prefix}.bn{k + 1}")
        if config.shortcuts(i, j):
            keys |= conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    return keys


def _write_resnet(config: ResNetConfig) -> dict[str, object]:
    return {NAME: config.name or _RESNET_NAMES.get(config.depths, "resnet50"), POOL: "avg"}


def read_own_config(content: Content, key: str = "config.json: ") -> Json:
    """Return timm's statistics of pixels, ``mean`` and ``std``, and ``input_size``, where its config.json says them.

    Raises:
      ConfigError: a key that is neither used nor known to change nothing, or a value that is not implemented.
    """
    cfg = content.get("pretrained_cfg") or {}
    if not isinstance(cfg, dict):
        raise ConfigError(f"{key}pretrained_cfg", cfg, "an object")
    refuse_unknown(content, ("architecture", "global_pool", "pretrained_cfg"), key, frozenset(_OF_CONFIG.split()))
    inner = f"{key}pretrained_cfg."
    refuse_unknown(cfg, ("mean", "std", "input_size"), inner, frozenset(_OF_PRETRAINED.split()))
    refuse_statistics(cfg, ("mean", "std"), inner)
    size = cfg.get("input_size")
    if size is not None and not (isinstance(size, list) and len(size) == 3 and all(type(n) is int for n in size)):
        raise ConfigError(f"{inner}input_size", size, "[channels, height, width]")
    return {name: cfg[name] for name in ("mean", "std", "input_size") if cfg.get(name)}


def refuse_pool(given: object, pool: object, key: str) -> None:
    """Raise ConfigError for another pooling than the tower's own, `pool`; "" and null leave it to timm's name."""
    if given not in ("", None, pool):
        raise ConfigError(key, given, f"'' or {pool!r}")


VIT = TowerFiles(
    library="timm",
    kind="vit",
    recognises=lambda content: _match(content) is not None,
    read=_read_vit,
    write=_write_vit,
    keys=_vit_keys,
    refuses=_refuses_vit,
    mean=HALF,
    std=HALF,
)
RESNET = TowerFiles(
    library="timm",
    kind="resnet",
    recognises=lambda content: base(str(content.get(NAME, ""))) in _RESNETS,
    read=read_resnet,
    write=_write_resnet,
    keys=_resnet_keys,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)


def count(weights: Weights, pattern: str, first: int = 0) -> int:
    """Return how many numbers, counted from `first`, stand where a pattern has its group."""
    found = {int(match[1]) for key in weights if (match := re.match(pattern, key))}
    return max(found, default=first - 1) + 1 - first


def need(weights: Weights, *keys: str) -> None:
    """Raise WeightsError where tensors are missing by which a tower is recognised."""
    missing = [key for key in keys if key not in weights]
    if missing:
        raise WeightsError("the file of a tower", missing, [], [])
