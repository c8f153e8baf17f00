"""Vision transformers (Dosovitskiy et al. 2021): as CLIP's, as timm's, as SigLIP's; the config says which."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.models.layers import MLP, Attention, Block, LayerNorm, Stack, constant, normal
from ranjax.models.tower_states import State
from ranjax.models.towers.tower_configs import ViTConfig


def patches(images: Float[Array, "batch height width channels"], size: int) -> Float[Array, "batch patches values"]:
    """Cut images into patches of `size` x `size` pixels, in reading order.

    With a matmul behind it this is a convolution of that stride, and faster than one on a CPU.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows * columns, size * size * channels)


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


class VisionTransformer(nnx.Module):
    """Normalised images to one vector each."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False) -> None:
        width, eps = config.width, config.layer_norm_eps
        inputs = config.patch_size**2 * config.channels
        first = config.pooling == "class"
        self.patch_size = config.patch_size
        self.patch_embedding = normal(rngs, (inputs, width), inputs**-0.5)
        self.patch_bias = constant(0.0, (width,)) if config.patch_bias else None
        self.class_embedding = normal(rngs, (width,), width**-0.5) if first else None
        self.positions = normal(rngs, (config.grid**2 + first, width), width**-0.5)
        self.norm_before = LayerNorm(width, eps) if config.norm_before else None
        self.blocks = Stack(
            lambda: Block(width, config.heads, config.mlp_width, config.layers, config.activation, eps, rngs),
            config.layers,
            remat,
            scan,
        )
        self.norm_after = LayerNorm(width, eps)
        head = (width, config.heads, config.mlp_width, config.activation, eps, rngs)
        self.pool = ProbePooling(*head) if config.pooling == "probe" else None

    def __call__(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch width"]:
        x = self.embedded(images)
        if self.pool is None:
            return self.norm_after(self.blocks(x, at=0)[:, 0])
        return self.pool(self.norm_after(self.blocks(x)))

    def embedded(self, images: Float[Array, "batch size size channels"]) -> Float[Array, "batch tokens width"]:
        """Return what the first block is given: embedded patches with positions, the class token first."""
        dtype = images.dtype
        x = jnp.matmul(patches(images, self.patch_size), self.patch_embedding[...].astype(dtype))
        if self.patch_bias is not None:
            x = x + self.patch_bias[...].astype(dtype)[None, None]
        if self.class_embedding is not None:
            first = self.class_embedding[...].astype(dtype)[None, None, :]
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, x.shape[2])), x], axis=1)
        x = x + self.positions[...].astype(dtype)[None]
        return x if self.norm_before is None else self.norm_before(x)


def states(tower: VisionTransformer, images: Float[Array, "batch size size channels"]) -> list[State]:
    """Return the tokens behind every block, those of the last after the tower's final norm."""
    behind = tower.blocks.each(tower.embedded(images))
    behind[-1] = tower.norm_after(behind[-1])
    rows, columns = (side // tower.patch_size for side in images.shape[1:3])
    first = int(tower.class_embedding is not None)
    return [
        State(x[:, first:].reshape(x.shape[0], rows, columns, x.shape[2]), x[:, 0] if first else None) for x in behind
    ]
