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

    def __init__(self, channels: int, eps: float = BATCH_NORM_EPS):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.Param(jnp.ones((channels,), jnp.float32))

    def factor_and_shift(self) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        """Return the norm as ``x * factor + shift``, one number a channel each."""
        mean, var = (jax.lax.stop_gradient(part[...]) for part in (self.mean, self.var))
        factor = self.scale[...] * jax.lax.rsqrt(var + self.eps)
        return factor, self.bias[...] - mean * factor


class ConvNorm(nnx.Module):
    """A convolution without bias, odd kernel, padded to keep the size at stride 1; then batch norm.

    The norm's factor is multiplied into the kernel, which is smaller than what it would otherwise multiply.
    `same`: padded as TensorFlow does, which at stride 2 puts less on the first sides; else by half the kernel around.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        rngs: nnx.Rngs,
        stride: int = 1,
        same: bool = False,
        eps: float = BATCH_NORM_EPS,
    ):
        self.stride, self.same = stride, same
        # He et al. 2015, by outgoing connections, as torchvision starts its residual networks.
        self.kernel = normal(rngs, (size, size, inputs, outputs), (2 / (size * size * outputs)) ** 0.5)
        self.norm = BatchNorm(outputs, eps)

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
                [_padding(side, kernel.shape[0], self.stride, self.same) for side in x.shape[1:3]],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y + shift.astype(x.dtype)[None, None, None]


class DepthwiseNorm(nnx.Module):
    """A convolution of each channel by itself, without bias, then batch norm; padded as `ConvNorm` is.

    As a sum of shifted copies, each times one number a channel: XLA's grouped convolution takes 10 to 50 times as long
    on a CPU, and longer for gradients by the input.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        rngs: nnx.Rngs,
        stride: int = 1,
        same: bool = False,
        eps: float = BATCH_NORM_EPS,
    ):
        self.stride, self.same = stride, same
        self.kernel = normal(rngs, (size, size, 1, channels), (2 / (size * size)) ** 0.5)
        self.norm = BatchNorm(channels, eps)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
        factor, shift = self.norm.factor_and_shift()
        kernel = (self.kernel[...] * factor[None, None, None]).astype(x.dtype)
        size, stride = kernel.shape[0], self.stride
        padding = [_padding(side, size, stride, self.same) for side in x.shape[1:3]]
        x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
        rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
        y = jnp.broadcast_to(shift.astype(x.dtype), (x.shape[0], rows, columns, x.shape[3]))
        for i in range(size):
            for j in range(size):
                seen = x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
                y = y + seen * kernel[i, j][None, None]
        return y


def _padding(side: int, size: int, stride: int, same: bool) -> tuple[int, int]:
    """Return the places to add before and after a side for a kernel of `size`."""
    if not same:
        return size // 2, size // 2
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


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
