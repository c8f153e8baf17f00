"""CLIP's residual networks (Radford et al. 2021, section 2.4): RN50, RN101.

ResNet-D's three-layer stem (He et al. 2019), average pooling before every strided step (Zhang 2019), attention pooling
in the place of the mean.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float

from ranjax.models.towers.attention_pooling import MeanQueryPooling
from ranjax.models.towers.convolution import ConvNorm, average_pool
from ranjax.models.towers.tower_configs import ModifiedResNetConfig

_EXPANSION = 4


class ModifiedResNet(nnx.Module):
    """Normalised images to one vector each."""

    def __init__(self, config: ModifiedResNetConfig, rngs: nnx.Rngs, remat: bool = False) -> None:
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
        self.pool = MeanQueryPooling(config.grid, inputs, config.heads, config.pooled_width, rngs)

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
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

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        if self.stride > 1:
            x, y = average_pool(x, self.stride), average_pool(y, self.stride)
        y = self.conv3(y)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def run_block(block: nnx.Module, x: jax.Array, remat: bool) -> jax.Array:
    """Apply a block to x; with `remat` its activations are computed again in the backward pass."""
    if not remat:
        return block(x)
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x))(nnx.to_pure_dict(state), x)
