"""Parts of transformers with their gradients written out: autodiff's values in fewer passes over memory.

Left to differentiation, the gradient of a linear map behind a reshape is copied once for each of its three uses
(input, kernel, bias), the wider factor of a kernel's gradient is transposed rather than the narrower one, and
attention's gradients by keys and values become products that XLA runs on one core of a CPU. Reverse mode can be taken
as often as one likes; forward mode (`jax.jvp`) is not defined.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """``x @ kernel + bias`` for x [N, in], kernel [in, out], bias [out], all of one dtype."""
    return _affine(x, as_varied(kernel, x), as_varied(bias, x))


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Layer norm of the last axis of x [N, W]; scale and bias [W] and the moments are of float32 at least."""
    return _layer_norm(x, as_varied(scale, x), as_varied(bias, x), eps)


def pointwise(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """``function(x)`` for an elementwise function, taken in float32 at least; x and the result are of one dtype.

    Its derivative is kept for the way back instead of what it is made from: one array of the size of `x`, not two.
    """
    return _pointwise(function, x)


ATTENTIONS = ("auto", "own", "jax")
"""Whose attention: "own", below; "jax", `jax.nn.dot_product_attention`; "auto", own on a CPU and jax's elsewhere.

jax's takes the softmax in float32 at most, and forward mode is defined for it.
"""


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None, heads: int, whose: str = "auto"
) -> jax.Array:
    """Multi-head attention before its output map: softmax(q k' / sqrt(d)) v by head.

    Args:
      query: [B, Q, W], key, value: [B, T, W], heads side by side.
      allowed: bool[B or 1, 1, Q or 1, T], True where a query may look at a key; None: everywhere.
      heads: a divisor of W.
      whose: one of `ATTENTIONS`.

    Returns:
      [B, Q, W]; the softmax is taken in float32 at least.
    """
    if whose == "jax" or (whose == "auto" and jax.default_backend() != "cpu"):
        # It mixes float32 constants into float64.
        with jax.numpy_dtype_promotion("standard"):
            q, k, v = _apart(query, heads), _apart(key, heads), _apart(value, heads)
            return jax.nn.dot_product_attention(q, k, v, mask=allowed).reshape(query.shape)
    return _attention(query, key, value, allowed, heads)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for half precision, else `dtype` itself: what moments, softmax and pixel arithmetic are taken in."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def as_varied(weight: jax.Array, x: jax.Array) -> jax.Array:
    """`weight`, under `shard_map`, as varying over the devices that `x` varies over: its gradient is then their sum."""
    missing = jax.typeof(x).manual_axis_type.varying - jax.typeof(weight).manual_axis_type.varying
    return jax.lax.pcast(weight, tuple(sorted(missing)), to="varying") if missing else weight


@jax.custom_vjp
def _once(x: jax.Array) -> jax.Array:
    """`x`, brought to memory once for all of its uses."""
    if x.dtype.itemsize >= 4:
        return jax.lax.optimization_barrier(x)
    # Through its bits: XLA widens half precision at a barrier, and with it every product behind the barrier.
    bits = jax.lax.bitcast_convert_type(x, jnp.uint16)
    return jax.lax.bitcast_convert_type(jax.lax.optimization_barrier(bits), x.dtype)


_once.defvjp(lambda x: (_once(x), None), lambda _, slope: (slope,))


@jax.custom_vjp
def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel) + bias[None]


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    return _affine(x, kernel, bias), (x, kernel)


def _affine_backward(kept: Any, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel = kept
    slope = _once(slope)
    by_x = _contract(slope, kernel, 1, 1)
    # The first factor is transposed in memory: the narrower one is cheaper.
    narrow = x.shape[1] <= slope.shape[1]
    by_kernel = _contract(x, slope, 0, 0) if narrow else _contract(slope, x, 0, 0).T
    # Summed in float32 at least: XLA's sum of half-precision rows is inexact, and slow on a CPU.
    by_bias = jnp.sum(slope.astype(at_least_float32(slope.dtype)), axis=0).astype(slope.dtype)
    return by_x, by_kernel, by_bias


_affine.defvjp(_affine_forward, _affine_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    return _layer_norm_forward(x, scale, bias, eps)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, Any]:
    wide = x.astype(scale.dtype)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    normal = centred * inverse
    return (normal * scale[None] + bias[None]).astype(x.dtype), (normal, inverse, scale)


def _layer_norm_backward(eps: float, kept: Any, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    normal, inverse, scale = kept
    wide = slope.astype(normal.dtype)
    scaled = wide * scale[None]
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    by_x = inverse * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normal * along)
    return by_x.astype(slope.dtype), jnp.sum(wide * normal, axis=0), jnp.sum(wide, axis=0)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pointwise(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    # Half precision is as fast in float32 here: a CPU computes exp and erf in no other way.
    return function(x.astype(at_least_float32(x.dtype))).astype(x.dtype)


def _pointwise_forward(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = x.astype(at_least_float32(x.dtype))
    value, derivative = jax.jvp(function, (wide,), (as_varied(jnp.ones_like(wide), wide),))
    # Left alone, XLA takes the derivative on the way back and keeps for that what it is made from.
    return value.astype(x.dtype), _once(derivative.astype(x.dtype))


def _pointwise_backward(
    function: Callable[[jax.Array], jax.Array], derivative: jax.Array, slope: jax.Array
) -> tuple[jax.Array]:
    return (slope * derivative,)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None, heads: int) -> jax.Array:
    return _attention_forward(query, key, value, allowed, heads)[0]


def _attention_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None, heads: int
) -> tuple[jax.Array, Any]:
    scale = (query.shape[-1] // heads) ** -0.5
    # Keys lie as [B, H, D, T]: the product with the queries needs no transposed factor.
    keys, values = _by_head(key, heads, _COLUMNS), _by_head(value, heads, _ROWS)
    scores = jnp.matmul(_by_head(query, heads, _ROWS) * scale, keys)
    scores = scores.astype(at_least_float32(query.dtype))
    if allowed is not None:
        # The lowest finite number, not -inf: a row without any allowed key stays finite, as do its gradients.
        lowest = jnp.full(scores.shape, jnp.finfo(scores.dtype).min, scores.dtype)
        scores = jnp.where(jnp.broadcast_to(allowed, scores.shape), scores, lowest)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    mixed = _together(jnp.matmul(weights, values), _ROWS)
    return mixed, (query, keys, values, weights, mixed)


def _attention_backward(heads: int, kept: Any, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, keys, values, weights, mixed = kept
    scale = (query.shape[-1] // heads) ** -0.5
    slope = _once(slope)
    wide = at_least_float32(slope.dtype)
    by_weights = jnp.einsum("bhtd,bhsd->bhts", _by_head(slope, heads, _ROWS), values)
    # Sum over keys of weights * by_weights, which is the sum over channels of slope * mixed.
    along = jnp.sum(_apart(slope.astype(wide) * mixed.astype(wide), heads), axis=-1).transpose(0, 2, 1)[..., None]
    by_scores = (weights.astype(wide) * (by_weights.astype(wide) - along)).astype(slope.dtype)
    by_query = jnp.einsum("bhts,bhds->bhtd", by_scores, keys)
    by_key = jnp.matmul(_by_head(query, heads, _COLUMNS), by_scores)
    by_value = jnp.matmul(_by_head(slope, heads, _COLUMNS), weights)
    return _together(by_query, _ROWS) * scale, _together(by_key, _COLUMNS) * scale, _together(by_value, _COLUMNS), None


_attention.defvjp(_attention_forward, _attention_backward)

# Where the axes of [B, T, H, D] go: tokens as rows of a head's matrix, [B, H, T, D], or as its columns, [B, H, D, T].
_ROWS, _COLUMNS = (0, 2, 1, 3), (0, 2, 3, 1)
_BACK = {_ROWS: (0, 2, 1, 3), _COLUMNS: (0, 3, 1, 2)}


def _apart(x: jax.Array, heads: int) -> jax.Array:
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def _by_head(x: jax.Array, heads: int, axes: tuple[int, ...]) -> jax.Array:
    return _apart(x, heads).transpose(axes)


def _together(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    joined = x.transpose(_BACK[axes])
    return joined.reshape(*joined.shape[:2], -1)


def _contract(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())))
