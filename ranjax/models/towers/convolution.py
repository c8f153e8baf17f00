"""What residual networks are made of: convolutions with batch norm by stored statistics, pooling.

**Batch norm is evaluated by its stored statistics, always**, as `torch` does in evaluation mode, and those statistics
are constants: no gradient reaches them and no optimiser moves them, while scale and bias train as everything else does
(docs/models.md says why). So an example's features depend on no other example, on no device count and on nothing an
attacker does to the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.models.layers import at_least_float32, normal

BATCH_NORM_EPS = 1e-5


class BatchNorm(nnx.Module):
    """Scale and bias (trained), mean and variance (stored) of each channel."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.Param(jnp.ones((channels,), jnp.float32))

    def factor_and_shift(self) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        """Return the norm as ``x * factor + shift``, one number a channel each."""
        mean, var = (jax.lax.stop_gradient(part[...]) for part in (self.mean, self.var))
        factor = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPS)
        return factor, self.bias[...] - mean * factor


class ConvNorm(nnx.Module):
    """A convolution without bias, odd kernel, padded to keep the size at stride 1; then batch norm.

    The norm's factor is multiplied into the kernel, which is smaller than what it would otherwise multiply.
    """

    def __init__(self, inputs: int, outputs: int, size: int, rngs: nnx.Rngs, stride: int = 1):
        self.stride, self.padding = stride, size // 2
        # He et al. 2015, by outgoing connections, as torchvision starts its residual networks.
        self.kernel = normal(rngs, (size, size, inputs, outputs), (2 / (size * size * outputs)) ** 0.5)
        self.norm = BatchNorm(outputs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        factor, shift = self.norm.factor_and_shift()
        kernel = (self.kernel[...] * factor[None, None, None]).astype(x.dtype)
        if kernel.shape[:2] == (1, 1):
            # A convolution of one place is a matrix product of the places kept.
            y = jnp.matmul(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                [(self.padding, self.padding)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y + shift.astype(x.dtype)[None, None, None]


def average_pool(
    x: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch rows columns channels"]:
    """Return the means of whole `size` x `size` squares; rows and columns that fill none are left out."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
    return jnp.mean(x, axis=(2, 4), dtype=at_least_float32(x.dtype)).astype(x.dtype)


def max_pool(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Return the maxima of 3 x 3 squares at stride 2, padded by one on every side."""
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
