"""Vision transformers (Dosovitskiy et al. 2021): as CLIP's, as timm's, as SigLIP's; which is which is in the config."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.clip_config import ACTIVATIONS
from ranjax.models.config_checks import divides, one_of, whole_positive
from ranjax.models.layers import Block, LayerNorm, Stack, normal
from ranjax.models.towers.attention_pooling import ProbePooling

POOLINGS = ("class", "probe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """What a vision transformer is made of; hashable.

    Attributes:
      image_size, patch_size: in pixels, the former a multiple of the latter.
      channels: 1 (grey) or 3.
      width, layers, heads, mlp_width: the transformer.
      activation, layer_norm_eps: as in `DualEncoderConfig`.
      patch_bias: the patch embedding has a bias (timm, SigLIP).
      norm_before: a layer norm before the first block (CLIP).
      pooling: "class", the layer-normed class token (CLIP, timm); or "probe", SigLIP's pooling by a learned query over
        all patches, without a class token.
      name: what timm calls it, carried for files that refer to it by name.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    channels: int = 3
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    patch_bias: bool = False
    norm_before: bool = True
    pooling: str = "class"
    name: str = ""

    def __post_init__(self) -> None:
        whole_positive(
            self, "model.vision", "image_size", "patch_size", "width", "layers", "heads", "mlp_width", "channels"
        )
        if self.image_size % self.patch_size:
            raise ConfigError(
                "model.image_size", self.image_size, f"a multiple of model.patch_size = {self.patch_size}"
            )
        divides("model.vision_heads", self.heads, f"model.vision_width = {self.width}", self.width)
        one_of("model.activation", self.activation, ACTIVATIONS)
        one_of("model.vision.pooling", self.pooling, POOLINGS)

    @property
    def outputs(self) -> int:
        """Width of what the tower returns."""
        return self.width

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.image_size // self.patch_size

    @property
    def position_table(self) -> tuple[tuple[str, ...], int]:
        """Path of the position embeddings inside the tower, and how many rows come before those of the grid."""
        return ("positions",), int(self.pooling == "class")

    def resized(self, image_size: int) -> ViTConfig:
        """The same tower for images of another size."""
        return dataclasses.replace(self, image_size=image_size)


def patches(images: jax.Array, size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into [B, (H/size)(W/size), size * size * C], rows in reading order.

    With a matmul behind it this is a convolution of that stride, and faster than one on a CPU.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows * columns, size * size * channels)


class VisionTransformer(nnx.Module):
    """Normalised images [B, H, W, C] -> [B, width], pooled."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs, remat: bool = False, scan: bool = False) -> None:
        width, eps = config.width, config.layer_norm_eps
        inputs = config.patch_size**2 * config.channels
        first = config.pooling == "class"
        self.patch_size = config.patch_size
        self.patch_embedding = normal(rngs, (inputs, width), inputs**-0.5)
        self.patch_bias = nnx.Param(jnp.zeros((width,), jnp.float32)) if config.patch_bias else None
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

    def __call__(self, images: jax.Array) -> jax.Array:
        dtype = images.dtype
        x = jnp.matmul(patches(images, self.patch_size), self.patch_embedding[...].astype(dtype))
        if self.patch_bias is not None:
            x = x + self.patch_bias[...].astype(dtype)[None, None]
        if self.class_embedding is not None:
            first = self.class_embedding[...].astype(dtype)[None, None, :]
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, x.shape[2])), x], axis=1)
        x = x + self.positions[...].astype(dtype)[None]
        x = x if self.norm_before is None else self.norm_before(x)
        if self.pool is None:
            return self.norm_after(self.blocks(x, at=0)[:, 0])
        return self.pool(self.norm_after(self.blocks(x)))
