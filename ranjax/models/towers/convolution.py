"""What residual networks are made of: convolutions with batch norm by stored statistics, pooling.

**Batch norm is evaluated by its stored statistics, always**, as `torch` does in evaluation mode, and those statistics
are constants: no gradient reaches them and no optimiser moves them, while scale and bias train as everything else does
(docs/models.md says why). So an example's features depend on no other example, on no device count and on nothing an
attacker does to the batch.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ranjax.core.math import at_least_float32
from ranjax.models.layers import constant, normal

BATCH_NORM_EPS = 1e-5
Sides = tuple[tuple[int, int], tuple[int, int]]
"""Places before and after each of two sides."""


class BatchNorm(nnx.Module):
    """Scale and bias (trained), mean and variance (stored) of each channel."""

    def __init__(self, channels: int, eps: float = BATCH_NORM_EPS):
        self.eps = eps
        self.scale = constant(1.0, (channels,))
        self.bias = constant(0.0, (channels,))
        self.mean = constant(0.0, (channels,))
        self.var = constant(1.0, (channels,))

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
    """A convolution of each channel by itself, without bias, then batch norm; padded as `ConvNorm` is."""

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
        kernel = (self.kernel[...] * factor[None, None, None])[:, :, 0].astype(x.dtype)
        padding = tuple(_padding(side, kernel.shape[0], self.stride, self.same) for side in x.shape[1:3])
        # Inside shard_map, images differ between devices and weights do not, and a gradient rule must keep that apart:
        # as one that differs, the kernel's gradient is summed over devices outside of the rule.
        if axes := tuple(_varying(x) - _varying(kernel)):
            kernel = jax.lax.pcast(kernel, axes, to="varying")
        return depthwise(x, kernel, self.stride, padding) + shift.astype(x.dtype)[None, None, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels"],
    stride: int,
    padding: Sides,
) -> Float[Array, "batch rows columns channels"]:
    """Convolve every channel by itself.

    As a sum of shifted copies, each times one number a channel, and its gradients so as well: XLA's grouped
    convolution takes many times as long on a CPU, and what it makes of the sum's gradients takes minutes to
    compile.

    Args:
      x: images.
      kernel: cross-correlated with them.
      stride: places from one result to the next.
      padding: zeros before and after each of the two sides.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    size = kernel.shape[0]
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = jnp.zeros((x.shape[0], rows, columns, x.shape[3]), x.dtype)
    for i in range(size):
        for j in range(size):
            seen = x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
            y = y + seen * kernel[i, j][None, None, None]
    return y


def _depthwise_forward(x: Array, kernel: Array, stride: int, padding: Sides) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride: int, padding: Sides, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    size = kernel.shape[0]
    # By the images: the transposed convolution, of the results set apart by the stride.
    apart = [(gradient.shape[axis] - 1) * stride + 1 for axis in (1, 2)]
    wide = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), *[(0, 0, stride - 1)] * 2, (0, 0, 0)])
    before = [size - 1 - first for first, _ in padding]
    around = tuple((b, x.shape[axis] + size - 1 - b - apart[axis - 1]) for axis, b in zip((1, 2), before))
    by_images = depthwise(wide, kernel[::-1, ::-1], 1, around)
    # By the kernel: one place of it after another, which compiles to one loop.
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def at(place: Array) -> Array:
        starts = (0, place // size, place % size, 0)
        seen = jax.lax.dynamic_slice(padded, starts, (x.shape[0], *apart, x.shape[3]))[:, ::stride, ::stride]
        return jnp.einsum("bhwc,bhwc->c", seen, gradient)

    by_kernel = jax.lax.map(at, jnp.arange(size * size))
    return by_images, by_kernel.reshape(kernel.shape)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _varying(x: Array) -> frozenset[str]:
    """Return the axes of a mesh along which a value may differ between devices, inside a shard_map that checks it."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


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
