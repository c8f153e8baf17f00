"""Pooling by attention: one query looks at all places of an image; SigLIP's is learned, a CLIP ResNet's their mean."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.models.layers import MLP, Attention, LayerNorm, normal


class ProbePooling(nnx.Module):
    """SigLIP's head (Zhai et al. 2023): a learned probe attends to all patches, then an MLP block."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str, eps: float, rngs: nnx.Rngs):
        self.probe = normal(rngs, (width,), width**-0.5)
        self.attention = Attention(width, heads, width**-0.5, width**-0.5, rngs)
        self.norm = LayerNorm(width, eps)
        self.mlp = MLP(width, hidden, activation, width**-0.5, hidden**-0.5, rngs)

    def __call__(self, x: Float[Array, "batch places width"]) -> Float[Array, "batch width"]:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype)[None, None], (x.shape[0], 1, x.shape[2]))
        x = self.attention(x, queries=probe)[:, 0]
        return x + self.mlp(self.norm(x))


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
