"""EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6).

Inverted residual blocks (Sandler et al. 2018): 1 x 1 wider, each channel by itself, 1 x 1 narrower without a
nonlinearity, and a way around where shapes agree. Trained without stochastic depth here.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.core.math import at_least_float32
from ranjax.models.layers import run_block
from ranjax.models.tower_states import State
from ranjax.models.towers.convolution import ConvNorm, DepthwiseNorm
from ranjax.models.towers.tower_configs import EfficientNetConfig

_KERNELS, _STRIDES, _EXPANSIONS = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
"""Of the seven stages; the stride is that of a stage's first block."""


class EfficientNet(nnx.Module):
    """Normalised images to the mean over all places of the last map."""

    def __init__(self, config: EfficientNetConfig, rngs: nnx.Rngs, remat: bool = False) -> None:
        self.remat = remat
        conv = partial(ConvNorm, rngs=rngs, same=config.same, eps=config.norm_eps)
        self.stem = conv(config.channels, config.stem_width, 3, stride=2)
        self.stages = nnx.Dict(
            {
                str(i): nnx.Dict({str(j): _Block(config, i, j, rngs) for j in range(depth)})
                for i, depth in enumerate(config.depths)
            }
        )
        self.head = conv(config.widths[-1], config.head_width, 1)

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
        return self.pool(self.maps(images)[-1])

    def maps(self, images: Float[Array, "batch size size channels"]) -> list[Array]:
        """Return the maps f[B, h, w, c] behind every stage, and that of the last convolution."""
        x, found = jax.nn.relu6(self.stem(images)), []
        for i in range(len(self.stages)):
            for j in range(len(self.stages[str(i)])):
                x = run_block(self.stages[str(i)][str(j)], x, remat=self.remat)
            found.append(x)
        return [*found, jax.nn.relu6(self.head(x))]

    def pool(self, x: Float[Array, "batch rows columns width"]) -> Float[Array, "batch width"]:
        """Return the mean over all places."""
        return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype)).astype(x.dtype)


def states(tower: EfficientNet, images: Float[Array, "batch size size channels"]) -> list[State]:
    """Return the maps behind every stage and of the last convolution, and of the last the tower's pooled vector."""
    maps = tower.maps(images)
    return [*(State(places) for places in maps[:-1]), State(maps[-1], pooled=tower.pool(maps[-1]))]


class _Block(nnx.Module):
    """An inverted residual block; the first stage's are not wider inside."""

    def __init__(self, config: EfficientNetConfig, stage: int, block: int, rngs: nnx.Rngs):
        outputs, stride = config.widths[stage], 1 if block else _STRIDES[stage]
        inputs = outputs if block else (config.stem_width, *config.widths)[stage]
        inner = inputs * _EXPANSIONS[stage]
        conv = partial(ConvNorm, rngs=rngs, same=config.same, eps=config.norm_eps)
        self.around = stride == 1 and inputs == outputs
        self.expand = conv(inputs, inner, 1) if _EXPANSIONS[stage] > 1 else None
        self.depthwise = DepthwiseNorm(inner, _KERNELS[stage], rngs, stride, config.same, config.norm_eps)
        self.project = conv(inner, outputs, 1)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return x + y if self.around else y
