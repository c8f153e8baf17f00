"""The parts that every transformer here is made of: linear map, layer norm, attention, MLP, block, stack.

Activations carry the compute dtype and parameters are cast to it where they meet, so one set of parameters serves
float32, bfloat16 and float64. Sums that half precision would spoil (biases, moments, softmax) are taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ranjax.core import keys
from ranjax.core.math import at_least_float32
from ranjax.models.attention import Allowed, Visible, dot_product_attention

ACTIVATION_FUNCTIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}
"""The pointwise nonlinearities of an MLP: "quick_gelu", "gelu" (exact, erf), "gelu_tanh"."""

Tokens = Int[Array, "batch length"]
"""Texts, one a row."""
Mask = Bool[Array, "batch length"]
"""True on real tokens."""
States = Float[Array, "batch length width"]
"""One vector a token."""
Position = int | Int[Array, " batch"]
"""A position in a sequence: the same in every row, or one for each row."""


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    """Draw a float32 parameter from N(0, std^2)."""
    return nnx.Param(keys.normal(rngs.params(), shape, std))


def constant(value: float, shape: tuple[int, ...] = ()) -> nnx.Param:
    """Return a float32 parameter of one value, made on the host: no program is compiled for it."""
    return nnx.Param(jax.device_put(np.full(shape, value, np.float32)))


class Linear(nnx.Module):
    """x @ kernel + bias, kernel f32[in, out]; the bias starts at zero."""

    def __init__(self, inputs: int, outputs: int, std: float, rngs: nnx.Rngs, use_bias: bool = True):
        self.kernel = normal(rngs, (inputs, outputs), std)
        self.bias = constant(0.0, (outputs,)) if use_bias else None

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        # As one matrix of rows: the gradient by the kernel is then one product, without a copy of a wider array.
        y = jnp.matmul(x.reshape(-1, x.shape[-1]), self.kernel[...].astype(x.dtype))
        if self.bias is not None:
            wide = at_least_float32(x.dtype)
            y = (y.astype(wide) + self.bias[...].astype(wide)[None]).astype(x.dtype)
        return y.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """Normalise the last axis; the moments are taken in float32 at least."""

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale = constant(1.0, (width,))
        self.bias = constant(0.0, (width,))

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        rows = x.reshape(-1, x.shape[-1]).astype(at_least_float32(x.dtype))
        scale, bias = (part[...].astype(rows.dtype)[None] for part in (self.scale, self.bias))
        centred = rows - jnp.mean(rows, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.eps)
        return (centred * inverse * scale + bias).astype(x.dtype).reshape(x.shape)


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017), heads of width / heads channels; `outputs` None: the width."""

    def __init__(
        self, width: int, heads: int, in_std: float, out_std: float, rngs: nnx.Rngs, outputs: int | None = None
    ) -> None:
        self.heads = heads
        self.query = Linear(width, width, in_std, rngs)
        self.key = Linear(width, width, in_std, rngs)
        self.value = Linear(width, width, in_std, rngs)
        self.out = Linear(width, width if outputs is None else outputs, out_std, rngs)

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        allowed: Allowed = None,
        queries: Float[Array, "batch queries width"] | None = None,
    ) -> Float[Array, "batch queries outputs"]:
        """Attend to `x`, from every token of `x` or from `queries`; `allowed`: where a query may look at a key."""
        key, value = self.key(x), self.value(x)
        query = self.query(x if queries is None else queries)
        return self.out(dot_product_attention(query, key, value, allowed, self.heads))


class MLP(nnx.Module):
    """Linear, activation (one of `ACTIVATION_FUNCTIONS`), Linear."""

    def __init__(self, width: int, hidden: int, activation: str, in_std: float, out_std: float, rngs: nnx.Rngs):
        self.activation = activation
        self.fc1 = Linear(width, hidden, in_std, rngs)
        self.fc2 = Linear(hidden, width, out_std, rngs)

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        # Half precision is as fast in float32 here: a CPU computes exp and erf in no other way.
        hidden = self.fc1(x).astype(at_least_float32(x.dtype))
        return self.fc2(ACTIVATION_FUNCTIONS[self.activation](hidden).astype(x.dtype))


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

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        allowed: Allowed = None,
        at: Position | None = None,
    ) -> Float[Array, "batch outputs width"]:
        """Return [B, T, width]; with `at` only that position, [B, 1, width]."""
        normed = self.norm1(x)
        if at is None:
            x = x + self.attention(normed, allowed)
        else:
            mask = allowed.mask if isinstance(allowed, Visible) else allowed
            if mask is not None and mask.shape[2] > 1:
                mask = take_position(mask, at, axis=2)
            x = take_position(x, at) + self.attention(normed, mask, take_position(normed, at))
        return x + self.mlp(self.norm2(x))


def take_position(x: jax.Array, at: Position, axis: int = 1) -> jax.Array:
    """Return one position of `axis`, kept with length 1."""
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
        x: Float[Array, "batch ..."],
        allowed: Visible | jax.Array | None = None,
        at: Position | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Float[Array, "batch ..."]:
        """Return the activations behind blocks `start` to `stop`; with `at` (see `Block`) those of one position."""
        blocks: list[Any] = [self.layers[str(i)] for i in range(self.depth)][start:stop]
        whole, last = (blocks, None) if at is None else (blocks[:-1], blocks[-1])
        if self.scan and whole:
            graph = nnx.graphdef(whole[0])
            states = [nnx.to_pure_dict(nnx.state(block)) for block in whole]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

            def step(x: jax.Array, state: dict[str, object]) -> tuple[jax.Array, None]:
                return run_block(nnx.merge(graph, state), x, allowed, remat=self.remat), None

            x = jax.lax.scan(step, x, stacked)[0]
        else:
            for block in whole:
                x = run_block(block, x, allowed, remat=self.remat)
        return x if last is None else run_block(last, x, allowed, at, remat=self.remat)

    def each(self, x: Float[Array, "batch ..."]) -> list[Array]:
        """Return the activations behind every block."""
        found: list[Array] = []
        for i in range(self.depth):
            found.append(run_block(self.layers[str(i)], x if i == 0 else found[-1], remat=self.remat))
        return found


def run_block(block: nnx.Module, x: jax.Array, *others: Any, remat: bool) -> jax.Array:
    """Apply a block to x (and others); with `remat` its activations are computed again in the backward pass."""
    if not remat:
        return block(x, *others)
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x, *others))(nnx.to_pure_dict(state), x)
