"""Residual networks as torchvision's (He et al. 2016; stride in the 3 x 3 convolution): ResNet-18, 34, 50, 101, 152."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.models.layers import at_least_float32
from ranjax.models.towers.convolution import ConvNorm, max_pool
from ranjax.models.towers.modified_resnet import run_block
from ranjax.models.towers.tower_configs import ResNetConfig


class ResNet(nnx.Module):
    """Normalised images to the mean over all places."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs, remat: bool = False) -> None:
        self.remat = remat
        self.stem = ConvNorm(config.channels, config.stem_width, 7, rngs, stride=2)
        stages, inputs = {}, config.stem_width
        for i, (outputs, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            stage = {}
            for j in range(depth):
                stage[str(j)] = _Block(config, i, j, inputs, outputs, rngs)
                inputs = outputs
            stages[str(i)] = nnx.Dict(stage)
        self.stages = nnx.Dict(stages)

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
        x = max_pool(jax.nn.relu(self.stem(images)))
        for i in range(len(self.stages)):
            for j in range(len(self.stages[str(i)])):
                x = run_block(self.stages[str(i)][str(j)], x, self.remat)
        return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype)).astype(x.dtype)


class _Block(nnx.Module):
    """Two or three convolutions and a way around them."""

    def __init__(self, config: ResNetConfig, stage: int, block: int, inputs: int, outputs: int, rngs: nnx.Rngs):
        stride = 2 if stage > 0 and block == 0 else 1
        if config.block == "basic":
            sizes = ((inputs, outputs, 3, stride), (outputs, outputs, 3, 1))
        else:
            inner = outputs // 4
            sizes = ((inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1))
        self.convs = nnx.Dict({str(k): ConvNorm(a, b, size, rngs, step) for k, (a, b, size, step) in enumerate(sizes)})
        self.shortcut = ConvNorm(inputs, outputs, 1, rngs, stride=stride) if config.shortcuts(stage, block) else None

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        y = x
        for k in range(len(self.convs)):
            y = self.convs[str(k)](y if k == 0 else jax.nn.relu(y))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
