"""CLIP's residual networks (Radford et al. 2021, section 2.4): RN50, RN101.

ResNet-D's three-layer stem (He et al. 2019), average pooling before every strided step (Zhang 2019), attention pooling
in the place of the mean.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.config_checks import divides, whole_positive
from ranjax.models.towers.attention_pooling import MeanQueryPooling
from ranjax.models.towers.convolution import ConvNorm, average_pool

_STRIDE = 32
_EXPANSION = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModifiedResNetConfig:
    """What a CLIP ResNet is made of; hashable.

    Attributes:
      image_size: in pixels, a multiple of 32.
      channels: 1 (grey) or 3.
      width: channels after the stem; stages are 4, 8, 16 and 32 times as wide.
      depths: blocks of the four stages; (3, 4, 6, 3) is RN50, (3, 4, 23, 3) is RN101.
      heads: of the attention pooling; divides 32 * width.
      outputs: width of what the pooling returns, the shared space.
    """

    image_size: int
    outputs: int
    channels: int = 3
    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    heads: int = 32

    def __post_init__(self) -> None:
        whole_positive(self, "model.vision", "image_size", "channels", "width", "heads", "outputs")
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ConfigError("model.vision.depths", self.depths, "four whole numbers of at least 1")
        if self.image_size % _STRIDE:
            raise ConfigError("model.image_size", self.image_size, f"a multiple of {_STRIDE} for CLIP's ResNets")
        if self.width % 2:
            raise ConfigError("model.vision.width", self.width, "an even number")
        divides("model.vision.heads", self.heads, f"32 * model.vision.width = {32 * self.width}", 32 * self.width)

    @property
    def grid(self) -> int:
        """Places on a side of the last feature map."""
        return self.image_size // _STRIDE

    @property
    def position_table(self) -> tuple[tuple[str, ...], int]:
        """As `ViTConfig.position_table`: the first row is the mean's."""
        return ("pool", "positions"), 1

    def resized(self, image_size: int) -> ModifiedResNetConfig:
        """The same tower for images of another size."""
        return dataclasses.replace(self, image_size=image_size)


class ModifiedResNet(nnx.Module):
    """Normalised images [B, H, W, C] -> [B, outputs]."""

    def __init__(
        self,
        config: ModifiedResNetConfig,
        rngs: nnx.Rngs,
        remat: bool = False,
        scan: bool = False,
    ) -> None:
        if scan:
            raise ConfigError("model.scan", True, "false for a residual network, whose blocks differ in shape")
        self.remat = remat
        width, half = config.width, config.width // 2
        self.stem = nnx.Dict(
            {
                "0": ConvNorm(config.channels, half, 3, rngs, stride=2),
                "1": ConvNorm(half, half, 3, rngs),
                "2": ConvNorm(half, width, 3, rngs),
            }
        )
        stages, inputs = {}, width
        for i, depth in enumerate(config.depths):
            inner, stage = width * 2**i, {}
            for j in range(depth):
                stage[str(j)] = _Bottleneck(inputs, inner, 2 if i > 0 and j == 0 else 1, rngs)
                inputs = _EXPANSION * inner
            stages[str(i)] = nnx.Dict(stage)
        self.stages = nnx.Dict(stages)
        self.pool = MeanQueryPooling(config.grid, inputs, config.heads, config.outputs, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for i in range(3):
            x = jax.nn.relu(self.stem[str(i)](x))
        x = average_pool(x, 2)
        for i in range(len(self.stages)):
            for j in range(len(self.stages[str(i)])):
                x = run_block(self.stages[str(i)][str(j)], x, self.remat)
        return self.pool(x)


class _Bottleneck(nnx.Module):
    """1 x 1, 3 x 3, 1 x 1; every stride is an average pooling of its own."""

    def __init__(self, inputs: int, inner: int, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        outputs = _EXPANSION * inner
        self.conv1 = ConvNorm(inputs, inner, 1, rngs)
        self.conv2 = ConvNorm(inner, inner, 3, rngs)
        self.conv3 = ConvNorm(inner, outputs, 1, rngs)
        self.shortcut = ConvNorm(inputs, outputs, 1, rngs) if stride > 1 or inputs != outputs else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        if self.stride > 1:
            x, y = average_pool(x, self.stride), average_pool(y, self.stride)
        y = self.conv3(y)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def run_block(block: nnx.Module, x: jax.Array, remat: bool) -> jax.Array:
    """A block applied to x; with `remat` its activations are computed again in the backward pass."""
    if not remat:
        return block(x)
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x))(nnx.to_pure_dict(state), x)
