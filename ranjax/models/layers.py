"""The parts that every transformer here is made of: linear map, layer norm, attention, MLP, block, stack.

Activations carry the compute dtype and parameters are cast to it where they meet, so one set of parameters serves
float32, bfloat16 and float64. Sums that half precision would spoil (biases, moments, softmax) are taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Return float32 for half precision, else `dtype` itself: the dtype of moments, softmax and pixel arithmetic."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None, heads: int
) -> jax.Array:
    """Return softmax(q k' / sqrt(d)) v for each head.

    Written out, because `jax.nn.dot_product_attention` takes the softmax in float32 even where all else is float64.

    Args:
      query: [B, Q, W], key, value: [B, T, W], heads side by side.
      allowed: bool[B or 1, 1, Q or 1, T], True where a query may look at a key; None: everywhere.
      heads: a divisor of W.

    Returns:
      [B, Q, W]; the softmax is taken in float32 at least.
    """
    depth = query.shape[2] // heads
    # [B, H, T, D]: heads lie before tokens, without which gradients by keys and values are slow products on a CPU.
    q, k, v = (x.reshape(*x.shape[:2], heads, depth).transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = jnp.einsum("bhqd,bhtd->bhqt", q * depth**-0.5, k)
    scores = scores.astype(at_least_float32(query.dtype))
    if allowed is not None:
        # The lowest finite number, not -inf: a row without any allowed key stays finite, as do its gradients.
        scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    return jnp.matmul(weights, v).transpose(0, 2, 1, 3).reshape(query.shape)


def activation_function(name: str) -> Callable[[jax.Array], jax.Array]:
    """The pointwise nonlinearity of an MLP: "quick_gelu", "gelu" (exact), "gelu_tanh" or "relu"."""
    return {
        "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
    }[name]


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2)."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))


class Linear(nnx.Module):
    """x @ kernel + bias, kernel f32[in, out]; the bias starts at zero."""

    def __init__(self, inputs: int, outputs: int, std: float, rngs: nnx.Rngs, use_bias: bool = True):
        self.kernel = normal(rngs, (inputs, outputs), std)
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        # As one matrix of rows: the gradient by the kernel is then one product, without a copy of a wider array.
        y = jnp.matmul(x.reshape(-1, x.shape[-1]), self.kernel[...].astype(x.dtype))
        if self.bias is not None:
            wide = at_least_float32(x.dtype)
            y = (y.astype(wide) + self.bias[...].astype(wide)[None]).astype(x.dtype)
        return y.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """Normalises the last axis; the moments are taken in float32 at least."""

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        rows = x.reshape(-1, x.shape[-1]).astype(at_least_float32(x.dtype))
        scale, bias = (part[...].astype(rows.dtype)[None] for part in (self.scale, self.bias))
        centred = rows - jnp.mean(rows, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        return (centred * inverse * scale + bias).astype(x.dtype).reshape(x.shape)


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017), heads of width / heads channels."""

    def __init__(self, width: int, heads: int, in_std: float, out_std: float, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query = Linear(width, width, in_std, rngs)
        self.key = Linear(width, width, in_std, rngs)
        self.value = Linear(width, width, in_std, rngs)
        self.out = Linear(width, width, out_std, rngs)

    def __call__(self, x: jax.Array, allowed: jax.Array | None = None, queries: jax.Array | None = None) -> jax.Array:
        """x [B, T, width]; allowed bool[B or 1, 1, T or 1, T], True where a query may look at a key.

        `queries` [B, Q, width], where given, ask in the place of `x`; the result is then [B, Q, width].
        """
        return self.mix(x if queries is None else queries, *self.keys_values(x), allowed)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What x [B, T, width] offers to queries: keys and values, each [B, T, width], heads side by side."""
        return self.key(x), self.value(x)

    def mix(self, x: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
        """What x [B, Q, width] gathers from keys and values of `keys_values`, [B, Q, width]."""
        return self.out(self.gather(self.query(x), key, value, allowed))

    def gather(self, query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
        """`mix` between its two maps: `query` [B, Q, width] is mapped already, the result not yet."""
        return dot_product_attention(query, key, value, allowed, self.heads)


class MLP(nnx.Module):
    """Linear, activation, Linear."""

    def __init__(self, width: int, hidden: int, activation: str, in_std: float, out_std: float, rngs: nnx.Rngs):
        self.activation = activation
        self.fc1 = Linear(width, hidden, in_std, rngs)
        self.fc2 = Linear(hidden, width, out_std, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = self.fc1(x)
        # Half precision is as fast in float32 here: a CPU computes exp and erf in no other way.
        wide = hidden.astype(at_least_float32(x.dtype))
        return self.fc2(activation_function(self.activation)(wide).astype(x.dtype))


class Block(nnx.Module):
    """A pre-norm block; initial deviations by width and depth as CLIP's (Radford et al. 2021; open_clip)."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        depth: int,
        activation: str,
        eps: float,
        rngs: nnx.Rngs,
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

    def __call__(
        self,
        x: jax.Array,
        allowed: jax.Array | None = None,
        at: int | jax.Array | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> jax.Array:
        """Activations [B, T, ...] through all blocks; with `at` (see `Block`) those of one position, [B, 1, ...].

        `start` and `stop`: of the blocks taken, where not all are.
        """
        blocks = [self.layers[str(i)] for i in range(self.depth)][start:stop]
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
