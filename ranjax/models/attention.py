"""Attention: written out, cuDNN's fused kernel on a GPU, splash attention on a TPU; the platform and one switch decide.

| form | where | operands | is taken for |
|---|---|---|---|
| plain | everywhere | all | a CPU, one query, a mask given as an array, exact products (`core.precision`), and all below |
| cudnn | GPU | bfloat16, float16 | heads of a multiple of 8 channels, at most 128; by itself from 64 tokens on |
| splash | TPU | bfloat16, float32 | by itself from 512 tokens on |

All give softmax(q k' / sqrt(d)) v, with the softmax in float32; the fused ones never hold the matrix of weights. They
agree within the rounding of the operands (`tests/models/test_attention.py`: float32 2e-5, of gradients 2e-4).

**Forward mode.** A fused kernel has a gradient and nothing else: `jax.jvp` through it raises, as does a gradient of a
gradient. Set ``model.attention = "plain"``, or write ``with attention.switch("plain"):`` around the traced call.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.config import _check_vma
from jaxtyping import Array, Bool, Float

from ranjax.core.errors import ConfigError
from ranjax.core.math import at_least_float32

switch = jax.make_user_context("auto")
"""A context of ``"auto"``; of ``"tpu"``, as auto on a TPU, for programs that are compiled for one elsewhere; or of a
form's name, which is then taken wherever it can compute what is asked for. Part of the key of compiled functions."""
LEAST = {"cudnn": 64, "splash": 512}
"""Tokens from which a platform takes its kernel by itself. By the TPU's compiler, 197 tokens in heads of 64 channels
take 1.57 GB by splash attention, filled up to 256 and to 128 lanes, and 1.01 GB written out (docs/scale.md). cuDNN's
has not been measured."""
FORMS = ("auto", "tpu", "plain", "cudnn", "splash", "splash_interpreted")
"""What `switch` may be; the last is splash attention step by step on any device, for tests."""
_LANES, _LARGEST_BLOCK = 128, 1024
_PLATFORMS = {"gpu": "cudnn", "cuda": "cudnn", "tpu": "splash"}


@dataclasses.dataclass(frozen=True)
class Visible:
    """Which keys each query may look at, in a form that fused kernels take.

    Attributes:
      mask: bool[#B, 1, #T, T], all of it.
      keys: bool[B, T], True on keys that may be seen; None: all.
      causal: whether a query sees only keys up to its own place.
    """

    mask: Bool[Array, "#batch 1 #queries tokens"]
    keys: Bool[Array, "batch tokens"] | None = None
    causal: bool = False


Allowed = Visible | Bool[Array, "#batch 1 #queries tokens"] | None
"""Where a query may look at a key; None: everywhere."""


def visible(keys: Bool[Array, "batch tokens"] | None, causal: bool, length: int) -> Visible | None:
    """Return what is visible of `length` tokens, of which `keys` are real; None: all of them."""
    if keys is None and not causal:
        return None
    mask = None if keys is None else keys[:, None, None, :]
    if causal:
        triangle = jnp.tril(jnp.ones((length, length), bool))[None, None]
        mask = triangle if mask is None else triangle & mask
    assert mask is not None
    return Visible(mask, keys, causal)


def dot_product_attention(
    query: Float[Array, "batch queries width"],
    key: Float[Array, "batch tokens width"],
    value: Float[Array, "batch tokens width"],
    allowed: Allowed,
    heads: int,
) -> Float[Array, "batch queries width"]:
    """Return softmax(q k' / sqrt(d)) v for each head, by the form that suits; the softmax is in float32 at least.

    Args:
      query, key, value: heads lie side by side in the width.
      allowed: where a query may look at a key. An array of any other form than `Visible` is taken by the plain form.
      heads: a divisor of the width.
    """
    form = form_of(query, key, allowed, heads)
    if form == "plain" or isinstance(allowed, jax.Array):
        return _plain(query, key, value, allowed, heads)
    if form == "cudnn":
        return _cudnn(query, key, value, allowed, heads)
    return _splash(query, key, value, allowed, heads, form == "splash_interpreted")


def form_of(query: Array, key: Array, allowed: Allowed, heads: int) -> str:
    """Return the name of the form that `dot_product_attention` takes: what the switch says, or the platform's own.

    Raises:
      ConfigError: the switch has another value.
    """
    wanted = switch.value
    if wanted not in FORMS:
        raise ConfigError("attention.switch", wanted, f"one of {', '.join(FORMS)}")
    platform = jax.default_backend() if wanted == "auto" else wanted
    form = _PLATFORMS.get(platform, "plain" if wanted == "auto" else wanted)
    if form == "plain" or isinstance(allowed, jax.Array) or query.shape[1] != key.shape[1]:
        return "plain"
    depth, half = query.shape[2] // heads, query.dtype in (jnp.bfloat16, jnp.float16)
    if form == "cudnn":
        fits = half and depth % 8 == 0 and depth <= 128
    else:
        fits = query.dtype in (jnp.bfloat16, jnp.float32)
    exact = jax.default_matmul_precision.value in ("highest", "float32")
    short = wanted in ("auto", "tpu") and query.shape[1] < LEAST[form]
    return form if fits and not exact and not short else "plain"


def _heads(x: Array, heads: int) -> Array:
    """Return f[B, T, W] as f[B, T, H, D]."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def _plain(query: Array, key: Array, value: Array, allowed: Allowed, heads: int) -> Array:
    """Written out, because `jax.nn.dot_product_attention` takes the softmax in float32 even where all is float64."""
    mask = allowed.mask if isinstance(allowed, Visible) else allowed
    # [B, H, T, D]: heads lie before tokens, without which gradients by keys and values are slow products on a CPU.
    q, k, v = (_heads(x, heads).transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = jnp.einsum("bhqd,bhtd->bhqt", q * q.shape[3] ** -0.5, k)
    scores = scores.astype(at_least_float32(query.dtype))
    if mask is not None:
        # The lowest finite number, not -inf: a row without any allowed key stays finite, as do its gradients.
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    return jnp.matmul(weights, v).transpose(0, 2, 1, 3).reshape(query.shape)


def _filled(x: Array, length: int) -> Array:
    """Return f[B, T, ...] with zeros (False) behind, of `length` tokens."""
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1])) + ((0, 0),) * (x.ndim - 2))


def _cudnn(query: Array, key: Array, value: Array, allowed: Visible | None, heads: int) -> Array:
    """By cuDNN's fused kernel. Filled up to a multiple of 8 tokens, which no real one sees: it refuses odd lengths."""
    batch, length, _ = query.shape
    total = -(-length // 8) * 8
    q, k, v = (_filled(_heads(x, heads), total) for x in (query, key, value))
    how: dict[str, Any] = {}
    if allowed is not None and allowed.keys is not None:
        # Real keys may lie anywhere, so that they are a mask and not a length.
        how["mask"] = _filled(allowed.keys, total)[:, None, None, :]
        how["mask"] = jnp.broadcast_to(how["mask"], (batch, 1, total, total))
    elif total != length:
        how["query_seq_lengths"] = how["key_value_seq_lengths"] = jnp.full((batch,), length, np.int32)
    causal = allowed is not None and allowed.causal
    out = jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn", **how)
    return out[:, :length].reshape(query.shape)


def _splash(query: Array, key: Array, value: Array, allowed: Visible | None, heads: int, interpret: bool) -> Array:
    """By splash attention, jax's Pallas kernel for TPUs. Filled up to its lanes, 128 tokens."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    batch, length, _ = query.shape
    total = -(-length // _LANES) * _LANES
    q, k, v = (_filled(_heads(x, heads), total).transpose(0, 2, 1, 3) for x in (query, key, value))
    keys = jnp.ones((batch, length), bool) if allowed is None or allowed.keys is None else allowed.keys
    segments = splash.SegmentIds(jnp.ones((batch, total), np.int32), _filled(keys, total).astype(np.int32))
    kernel = _splash_kernel(heads, total, allowed is not None and allowed.causal, interpret)
    out = _splash_heads(kernel, q * q.shape[3] ** -0.5, k, v, segments)
    return out.transpose(0, 2, 1, 3)[:, :length].reshape(query.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splash_heads(kernel: Any, q: Array, k: Array, v: Array, segments: Any) -> Array:
    """Call the kernel for each row. Its own gradient is spelled out, as it is none under `shard_map`'s checks: the
    kernel does not say over which axes of the mesh its results vary. They vary as its operands do.
    """
    return _splash_forward(kernel, q, k, v, segments)[0]


def _splash_forward(kernel: Any, q: Array, k: Array, v: Array, segments: Any) -> tuple[Array, Any]:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    def one(*operands: Any) -> tuple[Array, Array]:
        fwd: Any = splash._splash_attention_fwd
        _, kept = fwd(kernel.fwd_mask_info, None, None, *operands, None, **kernel.kwargs)
        return kept[5], kept[6]

    with _check_vma(False):
        out, logsumexp = jax.vmap(one)(q, k, v, segments)
    out, logsumexp = _varying_as(q, out), _varying_as(q, logsumexp)
    return out, (q, k, v, segments, out, logsumexp)


def _splash_backward(kernel: Any, kept: Any, slope: Array) -> tuple[Array, Array, Array, None]:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    def one(*given: Any) -> Any:
        *operands, out, logsumexp, slope = given
        given = (*operands, None, out, logsumexp, None, kernel.dkv_mask_info)
        return splash._splash_attention_bwd(**kernel.kwargs, res=given, do=slope)[3:6]

    with _check_vma(False):
        dq, dk, dv = jax.vmap(one)(*kept, slope)
    q, k, v = kept[:3]
    return _varying_as(q, dq), _varying_as(k, dk), _varying_as(v, dv), None


_splash_heads.defvjp(_splash_forward, _splash_backward)


def _varying_as(like: Array, x: Array) -> Array:
    """Return `x`, said to differ between devices over the axes of the mesh over which `like` does."""
    axes = jax.typeof(like).manual_axis_type.varying - jax.typeof(x).manual_axis_type.varying
    return jax.lax.pcast(x, tuple(axes), to="varying") if axes else x


@functools.lru_cache(maxsize=16)
def _splash_kernel(heads: int, length: int, causal: bool, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    block = max(size for size in range(_LANES, _LARGEST_BLOCK + 1, _LANES) if length % size == 0)
    mask = (masks.CausalMask if causal else masks.FullMask)((length, length))
    sizes = splash.BlockSizes(block, block, block, block, block, block, use_fused_bwd_kernel=True)
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha(
            masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
        )
