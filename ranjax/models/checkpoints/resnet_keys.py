"""Keys of residual networks: torchvision's (and timm's), transformers' ResNetModel's, open_clip's ModifiedResNet's."""

from __future__ import annotations

from ranjax.models.checkpoints.naming import CONV, SAME, Keys, TreePath, parts
from ranjax.models.towers.tower_configs import ModifiedResNetConfig, ResNetConfig


def torchvision_keys(config: ResNetConfig) -> Keys:
    """Return the keys of torchvision's and timm's ResNets, without the classifier."""
    keys = _conv_norm(("stem",), "conv1", "bn1")
    for i, j, path in _blocks(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in range(_convolutions(config)):
            keys |= _conv_norm((*path, "convs", str(k)), f"{prefix}.conv{k + 1}", f"{prefix}.bn{k + 1}")
        if config.shortcuts(i, j):
            keys |= _conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    return keys


def resnet_model_keys(config: ResNetConfig) -> Keys:
    """Return the keys of transformers' ResNetModel."""
    keys = _pair(("stem",), "embedder.embedder")
    for i, j, path in _blocks(config.depths):
        prefix = f"encoder.stages.{i}.layers.{j}"
        for k in range(_convolutions(config)):
            keys |= _pair((*path, "convs", str(k)), f"{prefix}.layer.{k}")
        if config.shortcuts(i, j):
            keys |= _pair((*path, "shortcut"), f"{prefix}.shortcut")
    return keys


def modified_resnet_keys(config: ModifiedResNetConfig) -> Keys:
    """Return the keys of CLIP's ResNets as OpenAI and open_clip keep them, inside the tower."""
    keys: Keys = {}
    for k in range(3):
        keys |= _conv_norm(("stem", str(k)), f"conv{k + 1}", f"bn{k + 1}")
    for i, j, path in _blocks(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in (1, 2, 3):
            keys |= _conv_norm((*path, f"conv{k}"), f"{prefix}.conv{k}", f"{prefix}.bn{k}")
        if j == 0:
            keys |= _conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    keys[("pool", "positions")] = ("attnpool.positional_embedding", SAME)
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "c_proj"}
    return keys | parts(("pool", "attention"), "attnpool.", {}, names)


def _blocks(depths: tuple[int, ...]) -> list[tuple[int, int, TreePath]]:
    return [(i, j, ("stages", str(i), str(j))) for i, depth in enumerate(depths) for j in range(depth)]


def _convolutions(config: ResNetConfig) -> int:
    return 2 if config.block == "basic" else 3


def _pair(path: TreePath, key: str) -> Keys:
    return _conv_norm(path, f"{key}.convolution", f"{key}.normalization")


def _conv_norm(path: TreePath, convolution: str, norm: str) -> Keys:
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    keys: Keys = {(*path, "kernel"): (f"{convolution}.weight", CONV)}
    return keys | {(*path, "norm", ours): (f"{norm}.{theirs}", SAME) for ours, theirs in names.items()}
