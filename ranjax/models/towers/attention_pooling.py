"""Pooling by attention: one query looks at all places of an image; SigLIP's is learned, a CLIP ResNet's their mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.models.layers import MLP, LayerNorm, Linear, at_least_float32, normal


class CrossAttention(nnx.Module):
    """Multi-head attention of queries [B, Q, width] over places [B, T, width] -> [B, Q, outputs]."""

    def __init__(self, width: int, heads: int, outputs: int, rngs: nnx.Rngs):
        self.heads = heads
        std = width**-0.5
        self.query, self.key, self.value = (Linear(width, width, std, rngs) for _ in range(3))
        self.out = Linear(width, outputs, std, rngs)

    def __call__(self, queries: jax.Array, places: jax.Array) -> jax.Array:
        query, key, value = (
            self._split(self.query(queries)),
            self._split(self.key(places)),
            self._split(self.value(places)),
        )
        scale = float(query.shape[-1]) ** -0.5
        scores = jnp.einsum("bhqd,bhtd->bhqt", query * scale, key)
        weights = jax.nn.softmax(scores.astype(at_least_float32(scores.dtype)), axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bhqt,bhtd->bhqd", weights, value).transpose(0, 2, 1, 3)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))

    def _split(self, x: jax.Array) -> jax.Array:
        batch, time, width = x.shape
        return x.reshape(batch, time, self.heads, width // self.heads).transpose(0, 2, 1, 3)


class ProbePooling(nnx.Module):
    """SigLIP's head (Zhai et al. 2023): a learned probe attends to all patches, then an MLP block.

    [B, T, width] -> [B, width].
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: str, eps: float, rngs: nnx.Rngs):
        self.probe = normal(rngs, (width,), width**-0.5)
        self.attention = CrossAttention(width, heads, width, rngs)
        self.norm = LayerNorm(width, eps)
        self.mlp = MLP(width, hidden, activation, width**-0.5, hidden**-0.5, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype)[None, None], (x.shape[0], 1, x.shape[2]))
        x = self.attention(probe, x)[:, 0]
        return x + self.mlp(self.norm(x))


class MeanQueryPooling(nnx.Module):
    """The head of CLIP's ResNets (Radford et al. 2021, section 2.4): the mean of all places is the query.

    [B, H, W, width] -> [B, outputs]; positions f32[H * W + 1, width], that of the mean first.
    """

    def __init__(self, grid: int, width: int, heads: int, outputs: int, rngs: nnx.Rngs):
        self.positions = normal(rngs, (grid * grid + 1, width), width**-0.5)
        self.attention = CrossAttention(width, heads, outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([jnp.mean(x, axis=1, keepdims=True), x], axis=1)
        x = x + self.positions[...].astype(x.dtype)[None]
        return self.attention(x[:, :1], x)[:, 0]
