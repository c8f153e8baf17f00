"""Residual networks: torchvision's (He et al. 2016; stride in the 3 x 3 convolution), ResNet-18 to 152, and CLIP's.

CLIP's (Radford et al. 2021, section 2.4: RN50, RN101) have ResNet-D's three-layer stem (He et al. 2019), average
pooling before every strided step (Zhang 2019), and attention pooling in the place of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.core.math import at_least_float32
from ranjax.models.layers import Attention, normal, run_block
from ranjax.models.tower_states import State
from ranjax.models.towers.convolution import ConvNorm, average_pool, max_pool
from ranjax.models.towers.tower_configs import ModifiedResNetConfig, ResNetConfig

_EXPANSION = 4


def _stages(depths: tuple[int, ...], make: Callable[[int, int], nnx.Module]) -> Mapping[str, Any]:
    """Return the blocks that `make` makes of numbers of stage and block."""
    return nnx.Dict({str(i): nnx.Dict({str(j): make(i, j) for j in range(depth)}) for i, depth in enumerate(depths)})


def _run(stages: Mapping[str, Any], x: jax.Array, remat: bool) -> list[jax.Array]:
    """Return the maps behind every stage."""
    found = []
    for i in range(len(stages)):
        for j in range(len(stages[str(i)])):
            x = run_block(stages[str(i)][str(j)], x, remat=remat)
        found.append(x)
    return found


class ResNet(nnx.Module):
    """Normalised images to the mean over all places."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs, remat: bool = False) -> None:
        self.remat = remat
        self.stem = ConvNorm(config.channels, config.stem_width, 7, rngs, stride=2)
        self.stages = _stages(config.depths, lambda i, j: _Block(config, i, j, rngs))

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
        return self.pool(self.maps(images)[-1])

    def maps(self, images: Float[Array, "batch size size channels"]) -> list[Array]:
        """Return the maps f[B, h, w, c] behind every stage."""
        return _run(self.stages, max_pool(jax.nn.relu(self.stem(images))), self.remat)

    def pool(self, x: Float[Array, "batch rows columns width"]) -> Float[Array, "batch width"]:
        """Return the mean over all places."""
        return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype)).astype(x.dtype)


class _Block(nnx.Module):
    """Two or three convolutions and a way around them."""

    def __init__(self, config: ResNetConfig, stage: int, block: int, rngs: nnx.Rngs):
        outputs, stride = config.widths[stage], 2 if stage > 0 and block == 0 else 1
        inputs = outputs if block else (config.stem_width, *config.widths)[stage]
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


class ModifiedResNet(nnx.Module):
    """CLIP's: normalised images to one vector each."""

    def __init__(self, config: ModifiedResNetConfig, rngs: nnx.Rngs, remat: bool = False) -> None:
        self.remat = remat
        width, half = config.width, config.width // 2
        sizes = ((config.channels, half, 2), (half, half, 1), (half, width, 1))
        self.stem = nnx.Dict({str(k): ConvNorm(a, b, 3, rngs, step) for k, (a, b, step) in enumerate(sizes)})

        def make(i: int, j: int) -> _Bottleneck:
            inner = width * 2**i
            before = width if i == 0 else _EXPANSION * inner // 2
            return _Bottleneck(_EXPANSION * inner if j else before, inner, 2 if i > 0 and j == 0 else 1, rngs)

        self.stages = _stages(config.depths, make)
        self.pool = MeanQueryPooling(config.grid, 32 * width, config.heads, config.pooled_width, rngs)

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
        return self.pool(self.maps(images)[-1])

    def maps(self, images: Float[Array, "batch size size channels"]) -> list[Array]:
        """Return the maps f[B, h, w, c] behind every stage."""
        x = images
        for i in range(3):
            x = jax.nn.relu(self.stem[str(i)](x))
        return _run(self.stages, average_pool(x, 2), self.remat)


def states(tower: ResNet | ModifiedResNet, images: Float[Array, "batch size size channels"]) -> list[State]:
    """Return the maps behind every stage, and of the last the tower's pooled vector."""
    maps = tower.maps(images)
    return [*(State(places) for places in maps[:-1]), State(maps[-1], pooled=tower.pool(maps[-1]))]


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


class MeanQueryPooling(nnx.Module):
    """The head of CLIP's ResNets (Radford et al. 2021, section 2.4): the mean of all places is the query.

    Positions are f32[H * W + 1, width], that of the mean first.
    """

    def __init__(self, grid: int, width: int, heads: int, outputs: int, rngs: nnx.Rngs):
        self.positions = normal(rngs, (grid * grid + 1, width), width**-0.5)
        self.attention = Attention(width, heads, width**-0.5, width**-0.5, rngs, outputs)

    def __call__(self, x: Float[Array, "batch rows columns width"]) -> Float[Array, "batch outputs"]:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([jnp.mean(x, axis=1, keepdims=True), x], axis=1)
        x = x + self.positions[...].astype(x.dtype)[None]
        return self.attention(x, queries=x[:, :1])[:, 0]
