"""Co-attention of an image's places and a question's tokens, pooled to one fused vector, as plain functions.

Layers are ViLBERT's co-attentional transformer layers (Lu et al. 2019, arXiv 1908.02265, section 3.1): each side's
queries meet the other side's keys and values; then each side has an MLP. Norms come before, not behind (Xiong et al.
2020). Both sides are pooled by learned weights, one set a head, projected and added, as MCAN's attentional reduction
and fusion (Yu et al. 2019, arXiv 1906.10770, equations 9 to 11).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.attention import dot_product_attention

SIDES = ("image", "question")
_EPS = 1e-5
_Sequence = Float[Array, "batch tokens width"]
_Allowed = Bool[Array, "batch 1 1 looked_at"]


@dataclasses.dataclass(frozen=True)
class CoAttention:
    """A shape of co-attention, hashable, as the heads of `ranjax.models.heads`.

    Attributes:
      image: (places, width) of an image's states.
      question: (longest text in tokens, width) of a question's states.
      width: of all layers, a multiple of `heads`.
      heads: of every attention, and of the pooling.
      layers: number of co-attention layers.
      outputs: width of the fused vector.
      dropout: share of activations left out behind each attention and MLP, in training.
    """

    image: tuple[int, int]
    question: tuple[int, int]
    width: int = 64
    heads: int = 8
    layers: int = 1
    outputs: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ConfigError("coattention.width", self.width, f"a multiple of coattention.heads = {self.heads}")

    def init(self, key: Key[Array, ""]) -> Params:
        """Return float32 parameters; residual branches start small, and places apart from each other."""
        keys = iter(jax.random.split(key, 8 + 12 * self.layers))
        width, narrow = self.width, (2 * self.width * max(self.layers, 1)) ** -0.5
        params: dict[str, Params] = {"layers": {}}
        for side, (length, inputs) in zip(SIDES, (self.image, self.question)):
            params[side] = {
                "input": _linear_init(next(keys), inputs, width, inputs**-0.5),
                # Of the size of the projected states: attention then tells places apart from the first step on.
                "positions": jax.random.normal(next(keys), (length, width), jnp.float32),
                "norm": _norm_init(width),
                "pool": _linear_init(next(keys), width, self.heads, width**-0.5),
                "output": _linear_init(next(keys), width, self.outputs, width**-0.5),
            }
        for layer in range(self.layers):
            params["layers"][str(layer)] = {
                side: {
                    "norm1": _norm_init(width),
                    **{name: _linear_init(next(keys), width, width, width**-0.5) for name in ("query", "key", "value")},
                    "out": _linear_init(next(keys), width, width, narrow),
                    "norm2": _norm_init(width),
                    "fc1": _linear_init(next(keys), width, 2 * width, width**-0.5),
                    "fc2": _linear_init(next(keys), 2 * width, width, narrow / math.sqrt(2)),
                }
                for side in SIDES
            }
        params["norm"] = _norm_init(self.outputs)
        return params

    def apply(
        self,
        params: Params,
        stats: Params,
        places: Float[Array, "batch places image_width"],
        tokens: Float[Array, "batch length question_width"],
        mask: Bool[Array, "batch length"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Return the fused vectors of images and questions; differentiable by all but the mask.

        Args:
          params: as `init` makes them.
          stats: as `standardisation` finds them in training.
          places: the image tower's states (`DualEncoderFunctions.image_tokens`).
          tokens, mask: the text tower's states (`text_tokens`) and which of them are real: padding has no influence.
          key: of the dropout; None: none, as outside of training.
        """
        rate = self.dropout if key is not None else 0.0
        keys = iter(() if key is None else jax.random.split(key, 4 * self.layers))

        def dropped(x: Array) -> Array:
            if not rate:
                return x
            kept = jax.random.bernoulli(next(keys), 1 - rate, x.shape)
            return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))

        allowed = {"image": None, "question": mask[:, None, None, :]}
        x = {
            side: _linear(params[side]["input"], (given - stats[side]["mean"][None, None]) * stats[side]["scale"])
            + params[side]["positions"][None, : given.shape[1]]
            for side, given in zip(SIDES, (places, tokens))
        }
        for layer in range(self.layers):
            own = params["layers"][str(layer)]
            normed = {side: _norm(own[side]["norm1"], x[side]) for side in SIDES}
            for side, other in zip(SIDES, reversed(SIDES)):
                attended = self._attend(own[side], normed[side], normed[other], allowed[other])
                x[side] = x[side] + dropped(attended)
            for side in SIDES:
                hidden = jax.nn.gelu(_linear(own[side]["fc1"], _norm(own[side]["norm2"], x[side])))
                x[side] = x[side] + dropped(_linear(own[side]["fc2"], hidden))
        pooled = [_linear(params[side]["output"], self._pool(params[side], x[side], allowed[side])) for side in SIDES]
        return _norm(params["norm"], pooled[0] + pooled[1])

    def _attend(self, own: Params, queries: _Sequence, other: Array, allowed: _Allowed | None) -> _Sequence:
        query, key, value = (
            _linear(own[name], x) for name, x in (("query", queries), ("key", other), ("value", other))
        )
        return _linear(own["out"], dot_product_attention(query, key, value, allowed, self.heads))

    def _pool(self, own: Params, x: _Sequence, allowed: _Allowed | None) -> Float[Array, "batch width"]:
        """Return the sum over tokens by softmax weights, of which each head has its own for its share of the width."""
        x = _norm(own["norm"], x)
        scores = _linear(own["pool"], x)
        if allowed is not None:
            scores = jnp.where(allowed[:, 0, 0, :, None], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=1)
        split = x.reshape(*x.shape[:2], self.heads, -1)
        return jnp.einsum("bth,bthd->bhd", weights, split).reshape(x.shape[0], -1)


def standardisation(
    places: Float[np.ndarray, "images places image_width"],
    tokens: Float[np.ndarray, "questions length question_width"],
    mask: Bool[np.ndarray, "questions length"],
) -> Params:
    """Return each channel's mean and inverse deviation over the training states, real tokens alone, of both sides."""
    found = {}
    for side, rows in zip(SIDES, (places.reshape(-1, places.shape[-1]), tokens[mask])):
        deviation = rows.std(axis=0)
        scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
        found[side] = {"mean": rows.mean(axis=0).astype(np.float32), "scale": scale.astype(np.float32)[None, None]}
    return found


def _linear_init(key: Array, inputs: int, outputs: int, std: float) -> Params:
    kernel = std * jax.random.normal(key, (inputs, outputs), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros((outputs,), jnp.float32)}


def _linear(params: Params, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
    flat = jnp.matmul(x.reshape(-1, x.shape[-1]), params["kernel"]) + params["bias"][None]
    return flat.reshape(*x.shape[:-1], -1)


def _norm_init(width: int) -> Params:
    return {"scale": jnp.ones((width,), jnp.float32), "bias": jnp.zeros((width,), jnp.float32)}


def _norm(params: Params, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + _EPS)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return centred * inverse * params["scale"].reshape(shape) + params["bias"].reshape(shape)
