"""Residual networks as torchvision's (He et al. 2016; stride in the 3 x 3 convolution): ResNet-18, 34, 50, 101, 152."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.config_checks import one_of, whole_positive
from ranjax.models.layers import at_least_float32
from ranjax.models.towers.convolution import ConvNorm, max_pool
from ranjax.models.towers.modified_resnet import run_block

BLOCKS = ("basic", "bottleneck")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """What a residual network is made of; hashable.

    Attributes:
      image_size: in pixels; the tower itself takes any, and has no positions to resize.
      channels: 1 (grey) or 3.
      stem_width: channels after the 7 x 7 convolution.
      widths: channels after each stage.
      depths: blocks of each stage; (3, 4, 6, 3) of "bottleneck" is ResNet-50.
      block: "bottleneck" (1 x 1, 3 x 3, 1 x 1, the inner two a fourth as wide) or "basic" (3 x 3, 3 x 3).
      name: what timm calls it, carried for files that refer to it by name.
    """

    image_size: int
    channels: int = 3
    stem_width: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: str = "bottleneck"
    name: str = ""

    def __post_init__(self) -> None:
        whole_positive(self, "model.vision", "image_size", "channels", "stem_width")
        one_of("model.vision.block", self.block, BLOCKS)
        if not self.depths or len(self.depths) != len(self.widths) or min(self.depths) < 1:
            raise ConfigError("model.vision.depths", self.depths, f"{len(self.widths)} whole numbers of at least 1")
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ConfigError("model.vision.widths", self.widths, "multiples of 4 for bottlenecks")

    @property
    def outputs(self) -> int:
        """Width of what the tower returns."""
        return self.widths[-1]

    @property
    def position_table(self) -> None:
        """There are no position embeddings."""
        return None

    def resized(self, image_size: int) -> ResNetConfig:
        """The same tower for images of another size."""
        return dataclasses.replace(self, image_size=image_size)

    def strided(self, stage: int, block: int) -> bool:
        """Whether a block halves height and width."""
        return stage > 0 and block == 0

    def shortcuts(self, stage: int, block: int) -> bool:
        """Whether a block has a convolution on its way around."""
        before = self.stem_width if stage == 0 else self.widths[stage - 1]
        return block == 0 and (stage > 0 or before != self.widths[stage])


class ResNet(nnx.Module):
    """Normalised images [B, H, W, C] -> [B, widths[-1]], the mean over all places."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False) -> None:
        if scan:
            raise ConfigError("model.scan", True, "false for a residual network, whose blocks differ in shape")
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

    def __call__(self, images: jax.Array) -> jax.Array:
        x = max_pool(jax.nn.relu(self.stem(images)))
        for i in range(len(self.stages)):
            for j in range(len(self.stages[str(i)])):
                x = run_block(self.stages[str(i)][str(j)], x, self.remat)
        return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype)).astype(x.dtype)


class _Block(nnx.Module):
    """Two or three convolutions and a way around them."""

    def __init__(self, config: ResNetConfig, stage: int, block: int, inputs: int, outputs: int, rngs: nnx.Rngs):
        stride = 2 if config.strided(stage, block) else 1
        if config.block == "basic":
            sizes = ((inputs, outputs, 3, stride), (outputs, outputs, 3, 1))
        else:
            inner = outputs // 4
            sizes = ((inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1))
        self.convs = nnx.Dict({str(k): ConvNorm(a, b, size, rngs, step) for k, (a, b, size, step) in enumerate(sizes)})
        self.shortcut = ConvNorm(inputs, outputs, 1, rngs, stride=stride) if config.shortcuts(stage, block) else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for k in range(len(self.convs)):
            y = self.convs[str(k)](y if k == 0 else jax.nn.relu(y))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
