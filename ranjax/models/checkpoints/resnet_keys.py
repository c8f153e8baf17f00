"""Keys of residual networks: torchvision's (and timm's), transformers' ResNetModel's, open_clip's ModifiedResNet's."""

from __future__ import annotations

from ranjax.models.checkpoints.naming import CONV, SAME, Layout, linear
from ranjax.models.towers.modified_resnet import ModifiedResNetConfig
from ranjax.models.towers.resnet import ResNetConfig


def torchvision_keys(config: ResNetConfig) -> Layout:
    """Keys of torchvision's and timm's ResNets, without the classifier."""
    layout = _conv_norm(("stem",), "conv1", "bn1")
    for i, j, path in _blocks(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in range(_convolutions(config)):
            layout |= _conv_norm((*path, "convs", str(k)), f"{prefix}.conv{k + 1}", f"{prefix}.bn{k + 1}")
        if config.shortcuts(i, j):
            layout |= _conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    return layout


def resnet_model_keys(config: ResNetConfig) -> Layout:
    """Keys of transformers' ResNetModel."""
    layout = _pair(("stem",), "embedder.embedder")
    for i, j, path in _blocks(config.depths):
        prefix = f"encoder.stages.{i}.layers.{j}"
        for k in range(_convolutions(config)):
            layout |= _pair((*path, "convs", str(k)), f"{prefix}.layer.{k}")
        if config.shortcuts(i, j):
            layout |= _pair((*path, "shortcut"), f"{prefix}.shortcut")
    return layout


def modified_resnet_keys(config: ModifiedResNetConfig) -> Layout:
    """Keys of CLIP's ResNets as OpenAI and open_clip keep them, inside the tower."""
    layout: Layout = {}
    for k in range(3):
        layout |= _conv_norm(("stem", str(k)), f"conv{k + 1}", f"bn{k + 1}")
    for i, j, path in _blocks(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in (1, 2, 3):
            layout |= _conv_norm((*path, f"conv{k}"), f"{prefix}.conv{k}", f"{prefix}.bn{k}")
        if j == 0:
            layout |= _conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    layout[("pool", "positions")] = ("attnpool.positional_embedding", SAME)
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "c_proj")):
        layout |= linear(("pool", "attention", ours), f"attnpool.{theirs}")
    return layout


def _blocks(depths: tuple[int, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(i, j, ("stages", str(i), str(j))) for i, depth in enumerate(depths) for j in range(depth)]


def _convolutions(config: ResNetConfig) -> int:
    return 2 if config.block == "basic" else 3


def _pair(path: tuple[str, ...], key: str) -> Layout:
    return _conv_norm(path, f"{key}.convolution", f"{key}.normalization")


def _conv_norm(path: tuple[str, ...], convolution: str, norm: str) -> Layout:
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    layout: Layout = {(*path, "kernel"): (f"{convolution}.weight", CONV)}
    return layout | {(*path, "norm", ours): (f"{norm}.{theirs}", SAME) for ours, theirs in names.items()}
