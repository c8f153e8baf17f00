"""The parts that every transformer here is made of: linear map, layer norm, attention, MLP, block, stack.

Activations carry the compute dtype and parameters are cast to it where they meet, so one set of parameters serves
float32, bfloat16 and float64. Attention keeps its heads in front, (B, H, T, D), which is the faster layout on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


def activation_function(name: str) -> Callable[[jax.Array], jax.Array]:
    """The pointwise nonlinearity of an MLP: "quick_gelu", "gelu" (exact), "gelu_tanh" or "relu"."""
    return {
        "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[name]


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for half precision, else `dtype` itself: what moments, softmax and pixel arithmetic are taken in."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2)."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))


class Linear(nnx.Module):
    """x @ kernel + bias, kernel f32[in, out]; the bias starts at zero."""

    def __init__(self, inputs: int, outputs: int, std: float, rngs: nnx.Rngs, use_bias: bool = True):
        self.kernel = normal(rngs, (inputs, outputs), std)
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.matmul(x, self.kernel[...].astype(x.dtype))
        if self.bias is None:
            return y
        return y + jnp.expand_dims(self.bias[...].astype(x.dtype), tuple(range(x.ndim - 1)))


class LayerNorm(nnx.Module):
    """Normalises the last axis; the moments are taken in float32 at least."""

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(at_least_float32(x.dtype))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        axes = tuple(range(x.ndim - 1))
        scale = jnp.expand_dims(self.scale[...].astype(y.dtype), axes)
        bias = jnp.expand_dims(self.bias[...].astype(y.dtype), axes)
        return (y * scale + bias).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017), heads of width / heads channels."""

    def __init__(self, width: int, heads: int, in_std: float, out_std: float, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Linear(width, width, in_std, rngs)
        self.key = Linear(width, width, in_std, rngs)
        self.value = Linear(width, width, in_std, rngs)
        self.out = Linear(width, width, out_std, rngs)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None, queries: jax.Array | None = None) -> jax.Array:
        """x [B, T, width]; allowed bool[B or 1, 1, T or 1, T], True where a query may look at a key.

        `queries` [B, Q, width], where given, ask in the place of `x`; the result is then [B, Q, width].
        """
        query = self._split(self.query(x if queries is None else queries))
        key, value = self._split(self.key(x)), self._split(self.value(x))
        scale = float(query.shape[-1]) ** -0.5
        scores = jnp.einsum("bhtd,bhsd->bhts", query * scale, key)
        scores = scores.astype(at_least_float32(x.dtype))
        if allowed is not None:
            # The lowest finite number, not -inf: a row without any allowed key stays finite, as do its gradients.
            lowest = jnp.full(scores.shape, jnp.finfo(scores.dtype).min, scores.dtype)
            scores = jnp.where(jnp.broadcast_to(allowed, scores.shape), scores, lowest)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("bhts,bhsd->bhtd", weights, value)
        batch, _, time, _ = mixed.shape
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, time, x.shape[-1]))

    def _split(self, x: jax.Array) -> jax.Array:
        batch, time, width = x.shape
        return x.reshape(batch, time, self.heads, width // self.heads).transpose(0, 2, 1, 3)


class MLP(nnx.Module):
    """Linear, activation, Linear."""

    def __init__(self, width: int, hidden: int, activation: str, in_std: float, out_std: float, rngs: nnx.Rngs):
        self.activation = activation
        self.fc1 = Linear(width, hidden, in_std, rngs)
        self.fc2 = Linear(hidden, width, out_std, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(activation_function(self.activation)(self.fc1(x)))


class Block(nnx.Module):
    """A pre-norm block; initial deviations by width and depth as CLIP's (Radford et al. 2021; open_clip)."""

    def __init__(
        self, width: int, heads: int, hidden: int, depth: int, activation: str, eps: float, rngs: nnx.Rngs
    ) -> None:
        narrow = width**-0.5 * (2 * depth) ** -0.5
        self.norm1 = LayerNorm(width, eps)
        self.attention = Attention(width, heads, width**-0.5, narrow, rngs)
        self.norm2 = LayerNorm(width, eps)
        self.mlp = MLP(width, hidden, activation, (2 * width) ** -0.5, narrow, rngs)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None, at: int | jax.Array | None = None) -> jax.Array:
        """x [B, T, width] -> the same; with `at` (one position, or i32[B]) only that position, [B, 1, width]."""
        normed = self.norm1(x)
        if at is None:
            x = x + self.attention(normed, allowed)
        else:
            if allowed is not None and allowed.shape[2] > 1:
                allowed = take_position(allowed, at, axis=2)
            x = take_position(x, at) + self.attention(normed, allowed, take_position(normed, at))
        return x + self.mlp(self.norm2(x))


def take_position(x: jax.Array, at: int | jax.Array, axis: int = 1) -> jax.Array:
    """One position of `axis`, kept with length 1: the same in every row, or (i32[B]) one for each row of axis 0."""
    if isinstance(at, int):
        return jax.lax.slice_in_dim(x, at, at + 1, axis=axis)
    return jnp.take_along_axis(x, at.reshape((-1,) + (1,) * (x.ndim - 1)), axis=axis)


class Stack(nnx.Module):
    """Blocks one after the other: unrolled, or as one scanned block; with or without rematerialisation.

    Parameters are kept per block either way, so that checkpoints do not depend on how a tower is run. A tower that is
    pooled at one position names it by `at`: the last block then computes queries and MLP for that position alone,
    which spares 10 of its 12 width x width products for all others.
    """

    def __init__(self, make_block: Callable[[], nnx.Module], depth: int, remat: bool = False, scan: bool = False):
        self.depth, self.remat, self.scan = depth, remat, scan
        self.layers = nnx.Dict({str(i): make_block() for i in range(depth)})

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None, at: int | jax.Array | None = None) -> jax.Array:
        """Activations [B, T, ...] through all blocks; with `at` (see `Block`) those of one position, [B, 1, ...]."""
        blocks = [self.layers[str(i)] for i in range(self.depth)]
        if not (self.remat or self.scan):
            for block in blocks if at is None else blocks[:-1]:
                x = block(x, allowed)
            return x if at is None else blocks[-1](x, allowed, at)
        graph = nnx.graphdef(blocks[0])
        states = [nnx.to_pure_dict(nnx.state(block)) for block in blocks]
        checkpoint = jax.checkpoint if self.remat else lambda run: run

        @checkpoint
        def apply(x: jax.Array, state: dict) -> jax.Array:
            return nnx.merge(graph, state)(x, allowed)

        @checkpoint
        def apply_last(x: jax.Array, state: dict) -> jax.Array:
            return nnx.merge(graph, state)(x, allowed, at)

        whole = states if at is None else states[:-1]
        if self.scan and whole:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *whole)
            x = jax.lax.scan(lambda x, state: (apply(x, state), None), x, stacked)[0]
        else:
            for state in whole:
                x = apply(x, state)
        return x if at is None else apply_last(x, states[-1])
