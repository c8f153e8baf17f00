"""An image tower and a text tower that meet in one space, as a module and as pure functions of its parameters."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models import input_filter
from ranjax.models.clip_config import DualEncoderConfig
from ranjax.models.encoder_config import TowersConfig, image_tower, text_tower, towers
from ranjax.models.layers import at_least_float32
from ranjax.models.towers.projection_head import build

Params = dict[str, Any]
MAX_LOGIT_SCALE = 100.0


class DualEncoder(nnx.Module):
    """Two towers, two projections and one logit scale (CLIP, Radford et al. 2021), by config a bias of the logits."""

    def __init__(self, config: DualEncoderConfig | TowersConfig, rngs: nnx.Rngs):
        self.config = config
        parts = towers(config)
        self.vision = image_tower(parts, rngs)
        self.text = text_tower(parts, rngs)
        self.visual_projection = build(parts.image_projection, parts.image.outputs, parts.embed_dim, rngs)
        self.text_projection = build(parts.text_projection, parts.text.width, parts.embed_dim, rngs)
        start = nnx.Param(jnp.asarray(parts.logit_scale_init, jnp.float32))
        # Two names, because what holds one of them at 100 at most (`training.optimizer`) must leave the other alone.
        self.log_scale: nnx.Param | None = start if parts.scale_limited else None
        self.free_log_scale: nnx.Param | None = None if parts.scale_limited else start
        bias = parts.logit_bias_init
        self.bias = None if bias is None else nnx.Param(jnp.asarray(bias, jnp.float32))

    def image_features(self, images: jax.Array) -> jax.Array:
        """See `DualEncoderFunctions.image_features`."""
        x = self.vision(self.normalise(images))
        return _projected(self.visual_projection, x).astype(self._stored)

    def normalise(self, images: jax.Array) -> jax.Array:
        """Images [B, S, S, C] in [0, 1], checked, as the tower reads them: compute dtype, channels, mean, deviation."""
        config = self.config
        _check_images(images, config)
        x = images.astype(compute_dtype(config, self._stored))
        if config.grey_to_rgb and x.shape[-1] == 1:
            x = jnp.broadcast_to(x, (*x.shape[:-1], 3))
        wide = at_least_float32(x.dtype)
        mean, std = (jnp.asarray(v, wide)[None, None, None] for v in (config.pixel_mean, config.pixel_std))
        return ((x.astype(wide) - mean) / std).astype(x.dtype)

    def text_features(self, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None) -> jax.Array:
        """See `DualEncoderFunctions.text_features`."""
        config, stored = self.config, self._stored
        check_tokens(tokens, mask, embeddings, config)
        if embeddings is None:
            embeddings = self.text.token_embedding[...][tokens]
        x = self.text(tokens, mask, embeddings.astype(compute_dtype(config, stored)))
        return _projected(self.text_projection, x).astype(stored)

    def token_table(self) -> jax.Array:
        """See `DualEncoderFunctions.token_table`."""
        return self.text.token_embedding[...]

    def logit_scale(self) -> jax.Array:
        """See `DualEncoderFunctions.logit_scale`."""
        if self.log_scale is None:
            return jnp.exp(self.free_log_scale[...])
        limit = math.log(MAX_LOGIT_SCALE)
        stored = self.log_scale[...]
        # `where`, not `minimum`: a parameter clamped exactly to the limit keeps its whole gradient and can come back.
        scale = jnp.exp(jnp.where(stored > limit, jnp.asarray(limit, stored.dtype), stored))
        return scale - jax.lax.stop_gradient(jnp.maximum(scale - MAX_LOGIT_SCALE, 0.0))

    def logit_bias(self) -> jax.Array:
        """See `DualEncoderFunctions.logit_bias`."""
        return jnp.zeros((), self._stored) if self.bias is None else self.bias[...]

    @property
    def _stored(self) -> jnp.dtype:
        return (self.free_log_scale if self.log_scale is None else self.log_scale)[...].dtype


def _projected(projection: Any, x: jax.Array) -> jax.Array:
    return x if projection is None else projection(x)


@dataclasses.dataclass(frozen=True)
class DualEncoderFunctions:
    """Pure functions of a parameter pytree; hashable, so it can be closed over or be a static argument of `jax.jit`."""

    config: DualEncoderConfig | TowersConfig

    def image_features(self, params: Params, images: jax.Array) -> jax.Array:
        """Projected image embeddings, not L2-normalised: dtype of the parameters, [B, D].

        Args:
          params: as given by `split`, or with a filter of :mod:`ranjax.models.input_filter` beside.
          images: f32[B, S, S, C] in [0, 1]; filter and pixel normalisation happen inside.

        Raises:
          ConfigError: an image of another size or number of channels than the config's.
        """
        if input_filter.NAME in params:
            _check_images(images, self.config)
            images = input_filter.apply(params[input_filter.NAME], images)
        return self._bind(params).image_features(images)

    def text_features(
        self, params: Params, tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> jax.Array:
        """Projected text embeddings, not L2-normalised: dtype of the parameters, [B, D].

        Args:
          params: as given by `split`.
          tokens: i32[B, L], L up to max_length.
          mask: bool[B, L], True on real tokens.
          embeddings: [B, L, W], stands in for ``token_table[tokens]`` (before positions), for gradients by it. The
            tokens still say which position is pooled.

        Raises:
          ConfigError: a text longer than max_length, or shapes that do not fit each other.
        """
        return self._bind(params).text_features(tokens, mask, embeddings)

    def token_table(self, params: Params) -> jax.Array:
        """The token embeddings, [V, W]."""
        return self._bind(params).token_table()

    def logit_scale(self, params: Params) -> jax.Array:
        """The factor of the cosine logits, a scalar: exp of the parameter, at most 100 but for SigLIP's."""
        return self._bind(params).logit_scale()

    def logit_bias(self, params: Params) -> jax.Array:
        """What is added to the scaled cosines under the sigmoid loss, a scalar: 0 for encoders without it."""
        return self._bind(params).logit_bias()

    def computing_in(self, dtype: str) -> DualEncoderFunctions:
        """The same functions whose towers compute in `dtype` ("float32", "bfloat16"); parameters stay as they are."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, compute_dtype=dtype))

    def _bind(self, params: Params) -> DualEncoder:
        towers = {name: part for name, part in params.items() if name != input_filter.NAME}
        return nnx.merge(_graph(self.config), towers)


def split(model: DualEncoder) -> tuple[DualEncoderFunctions, Params]:
    """Takes a module apart into pure functions and a plain nested dict of arrays."""
    return DualEncoderFunctions(model.config), nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.lru_cache(maxsize=64)
def _graph(config: DualEncoderConfig | TowersConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: DualEncoder(config, nnx.Rngs(0))))


def stored_dtype(params: Params) -> jnp.dtype:
    """The dtype that an encoder's parameters are kept in."""
    return jnp.dtype(params["log_scale" if "log_scale" in params else "free_log_scale"].dtype)


def compute_dtype(config: DualEncoderConfig | TowersConfig, stored: jnp.dtype) -> jnp.dtype:
    """What a tower computes in, given the dtype of its parameters."""
    return jnp.dtype(stored if config.compute_dtype == "params" else config.compute_dtype)


def _check_images(images: jax.Array, config: DualEncoderConfig | TowersConfig) -> None:
    channels = (1, 3) if config.grey_to_rgb else (config.channels,)
    size = config.image_size
    if images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        raise ConfigError("images.shape", images.shape, f"[B, {size}, {size}, {wanted}] for this image tower")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError("images.dtype", str(images.dtype), "floats in [0, 1] (divide 8-bit images by 255)")


def check_tokens(
    tokens: jax.Array, mask: jax.Array, embeddings: jax.Array | None, config: DualEncoderConfig | TowersConfig
) -> None:
    """Raises ConfigError where tokens, mask and embeddings do not fit the text tower or each other."""
    if tokens.ndim != 2 or tokens.shape[1] > config.max_length:
        raise ConfigError("tokens.shape", tokens.shape, f"[B, L] with L at most model.max_length = {config.max_length}")
    if mask.shape != tokens.shape or mask.dtype != jnp.bool_:
        raise ConfigError("mask", f"{mask.dtype}{list(mask.shape)}", f"bool{list(tokens.shape)}, as the tokens")
    if embeddings is not None and embeddings.shape != (*tokens.shape, config.text_width):
        raise ConfigError(
            "embeddings.shape", embeddings.shape, f"{(*tokens.shape, config.text_width)}, one row per token"
        )
