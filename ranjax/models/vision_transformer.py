"""CLIP's vision transformer (Dosovitskiy et al. 2021; Radford et al. 2021): pre-norm, class token, pooled at it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.models.config import DualEncoderConfig
from ranjax.models.layers import Block, LayerNorm, Stack, normal


def patches(images: jax.Array, size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into [B, (H/size)(W/size), size * size * C], rows in reading order.

    With a matmul behind it this is a convolution of that stride, and faster than one on a CPU.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows * columns, size * size * channels)


class VisionTransformer(nnx.Module):
    """Normalised images [B, H, W, C] -> [B, width], the layer-normed class token."""

    def __init__(self, config: DualEncoderConfig, rngs: nnx.Rngs):
        width, eps = config.vision_width, config.layer_norm_eps
        inputs = config.patch_size**2 * config.channels
        self.patch_size = config.patch_size
        self.patch_embedding = normal(rngs, (inputs, width), inputs**-0.5)
        self.class_embedding = normal(rngs, (width,), width**-0.5)
        self.positions = normal(rngs, (config.patches + 1, width), width**-0.5)
        self.norm_before = LayerNorm(width, eps)
        self.blocks = Stack(
            lambda: Block(
                width,
                config.vision_heads,
                config.vision_mlp_width,
                config.vision_layers,
                config.activation,
                eps,
                rngs,
            ),
            config.vision_layers,
            config.remat,
            config.scan,
        )
        self.norm_after = LayerNorm(width, eps)

    def __call__(self, images: jax.Array) -> jax.Array:
        dtype = images.dtype
        x = jnp.matmul(patches(images, self.patch_size), self.patch_embedding[...].astype(dtype))
        first = jnp.broadcast_to(self.class_embedding[...].astype(dtype)[None, None, :], (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([first, x], axis=1) + self.positions[...].astype(dtype)[None]
        x = self.blocks(self.norm_before(x), at=0)
        return self.norm_after(x[:, 0])
