"""An image tower and a text tower that meet in one space, as a module and as pure functions of its parameters."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from ranjax.core.errors import ConfigError, nearest
from ranjax.core.math import at_least_float32
from ranjax.core.types import Params
from ranjax.models import attention, input_filter, tower_states
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.layers import Tokens, constant
from ranjax.models.towers.contract import FEATURES, TowerConfig, check_tokens, refuse_no_array
from ranjax.models.towers.projection_head import build
from ranjax.models.towers.tower_table import tower_of

MAX_LOGIT_SCALE = 100.0
_ROUNDING = 1e-3
"""By how much pixels may lie outside [0, 1]."""


P = ParamSpec("P")


def _attending(method: Callable[Concatenate[DualEncoder, P], Array]) -> Callable[Concatenate[DualEncoder, P], Array]:
    """Return a method of a dual encoder whose towers attend as its config says."""

    @functools.wraps(method)
    def attending(self: DualEncoder, *args: P.args, **kwargs: P.kwargs) -> Array:
        if self.config.attention == "auto":  # what stands around the call decides
            return method(self, *args, **kwargs)
        with attention.switch(self.config.attention):
            return method(self, *args, **kwargs)

    return attending


class DualEncoder(nnx.Module):
    """Two towers, two projections and one logit scale (CLIP, Radford et al. 2021), by config a bias of the logits."""

    def __init__(self, config: DualEncoderConfig, rngs: nnx.Rngs):
        self.config = config
        image, text = config.image, config.text
        self.vision = tower_of(image).build(image, rngs, config.remat, config.scan)
        self.text = tower_of(text).build(text, rngs, config.remat, config.scan)
        self.visual_projection = build(config.image_projection, image.outputs, config.embed_dim, rngs)
        self.text_projection = build(config.text_projection, text.outputs, config.embed_dim, rngs)
        start = constant(config.logit_scale_init)
        # Two names, because what holds one of them at 100 at most (`training.optimizer`) must leave the other alone.
        self.log_scale: nnx.Param | None = start if config.scale_limited else None
        self.free_log_scale: nnx.Param | None = None if config.scale_limited else start
        bias = config.logit_bias_init
        self.bias = None if bias is None else constant(bias)

    @_attending
    def image_features(self, images: Shaped[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """See `DualEncoderFunctions.image_features`."""
        x = self.vision(self.normalise(images))
        _check_output(x, images.shape[0], self.config.image)
        return (x if self.visual_projection is None else self.visual_projection(x)).astype(self._stored)

    @_attending
    def tower_features(
        self, images: Shaped[Array, "batch height width channels"], kind: str
    ) -> Float[Array, "batch features"]:
        """See `DualEncoderFunctions.features`, of "tokens" or "blocks"."""
        states = tower_of(self.config.image).states_of(self.vision, self.normalise(images))
        return {"tokens": tower_states.tokens, "blocks": tower_states.blocks}[kind](states).astype(self._stored)

    @_attending
    def image_tokens(self, images: Shaped[Array, "batch height width channels"]) -> Float[Array, "batch places states"]:
        """See `DualEncoderFunctions.image_tokens`."""
        states = tower_of(self.config.image).states_of(self.vision, self.normalise(images))
        return tower_states.sequence(states).astype(self._stored)

    def normalise(
        self, images: Shaped[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width tower_channels"]:
        """Check images in [0, 1] and return them as the tower reads them: dtype, channels, mean, deviation."""
        config = self.config
        check_images(images, config)
        x = images.astype(compute_dtype(config, self._stored))
        if config.grey_to_rgb and x.shape[-1] == 1:
            x = jnp.broadcast_to(x, (*x.shape[:-1], 3))
        wide = at_least_float32(x.dtype)
        mean, std = (jnp.asarray(v, wide)[None, None, None] for v in (config.pixel_mean, config.pixel_std))
        return ((x.astype(wide) - mean) / std).astype(x.dtype)

    @_attending
    def text_features(
        self, tokens: Tokens, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> Float[Array, "batch features"]:
        """See `DualEncoderFunctions.text_features`."""
        x = self.text(tokens, mask, self._token_rows(tokens, mask, embeddings))
        _check_output(x, tokens.shape[0], self.config.text)
        return (x if self.text_projection is None else self.text_projection(x)).astype(self._stored)

    @_attending
    def text_tokens(
        self, tokens: Tokens, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> Float[Array, "batch length states"]:
        """See `DualEncoderFunctions.text_tokens`."""
        rows = self._token_rows(tokens, mask, embeddings)
        return tower_of(self.config.text).states_of(self.text, tokens, mask, rows).astype(self._stored)

    def _token_rows(self, tokens: Tokens, mask: jax.Array, embeddings: jax.Array | None) -> jax.Array:
        check_tokens(tokens, mask, embeddings, self.config.text)
        rows = self.token_table()[tokens] if embeddings is None else embeddings
        return rows.astype(compute_dtype(self.config, self._stored))

    def token_table(self) -> Float[Array, "vocabulary width"]:
        """See `DualEncoderFunctions.token_table`."""
        return self.text.token_embedding[...]

    def logit_scale(self) -> Float[Array, ""]:
        """See `DualEncoderFunctions.logit_scale`."""
        if self.log_scale is None:
            return jnp.exp(self._scale)
        limit = math.log(MAX_LOGIT_SCALE)
        stored = self._scale
        # `where`, not `minimum`: a parameter clamped exactly to the limit keeps its whole gradient and can come back.
        scale = jnp.exp(jnp.where(stored > limit, jnp.asarray(limit, stored.dtype), stored))
        return scale - jax.lax.stop_gradient(jnp.maximum(scale - MAX_LOGIT_SCALE, 0.0))

    def logit_bias(self) -> Float[Array, ""]:
        """See `DualEncoderFunctions.logit_bias`."""
        return jnp.zeros((), self._stored) if self.bias is None else self.bias[...]

    @property
    def _scale(self) -> jax.Array | np.ndarray:
        found = self.free_log_scale if self.log_scale is None else self.log_scale
        assert found is not None
        return found[...]

    @property
    def _stored(self) -> jnp.dtype:
        return self._scale.dtype


@dataclasses.dataclass(frozen=True)
class DualEncoderFunctions:
    """Pure functions of a parameter pytree; hashable, so it can be closed over or be a static argument of `jax.jit`."""

    config: DualEncoderConfig

    def image_features(
        self, params: Params, images: Shaped[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """Return projected image embeddings, not L2-normalised, in the dtype of the parameters.

        Args:
          params: as given by `split`, or with a filter of `ranjax.models.input_filter` beside.
          images: floats in [0, 1]; filter and pixel normalisation happen inside.

        Raises:
          ConfigError: an image of another size or number of channels than the config's, or of integers.
        """
        return self._bind(params).image_features(self._filtered(params, images))

    def features(
        self, params: Params, images: Shaped[Array, "batch height width channels"], kind: str = "embedding"
    ) -> Float[Array, "batch features"]:
        """Return what a head reads of images, in the dtype of the parameters; differentiable.

        Args:
          params: as given by `split`, or with a filter of `ranjax.models.input_filter` beside.
          images: floats in [0, 1]; filter and pixel normalisation happen inside.
          kind: "embedding", as `image_features`; "tokens", the image tower's last tokens after its final norm on a grid
            of 4 x 4 at most, and its class token or pooled vector; "blocks", the class token, mean and greatest value
            of every block, or of every stage of a convolutional tower.

        Raises:
          ConfigError: an unknown kind, a tower that shows no tokens, or images that do not fit.
        """
        if kind not in FEATURES:
            raise ConfigError("features", kind, f"one of {', '.join(FEATURES)}", nearest(kind, FEATURES))
        if kind == "embedding":
            return self.image_features(params, images)
        return self._bind(params).tower_features(self._filtered(params, images), kind)

    def width_of(self, kind: str = "embedding") -> int:
        """Return the width of `features` of that kind.

        Raises:
          ConfigError: as `features`.
        """
        return self.config.embed_dim if kind == "embedding" else _width_of(self.config, kind)

    def _filtered(self, params: Params, images: Array) -> Array:
        if input_filter.NAME not in params:
            return images
        check_images(images, self.config)
        return input_filter.apply(params[input_filter.NAME], images)

    def text_features(
        self, params: Params, tokens: Tokens, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> Float[Array, "batch features"]:
        """Return projected text embeddings, not L2-normalised, in the dtype of the parameters.

        Args:
          params: as given by `split`.
          tokens: L up to max_length.
          mask: bool[B, L], True on real tokens.
          embeddings: f[B, L, W], stands in for ``token_table[tokens]`` (before positions), for gradients by it. The
            tokens still say which position is pooled.

        Raises:
          ConfigError: a text longer than max_length, or shapes that do not fit each other.
        """
        return self._bind(params).text_features(tokens, mask, embeddings)

    def image_tokens(
        self, params: Params, images: Shaped[Array, "batch height width channels"]
    ) -> Float[Array, "batch places states"]:
        """Return the image tower's last states as a sequence, not projected, in the dtype of the parameters.

        The class token, or a pooled vector of the same width, comes first; then places in reading order, averaged to a
        grid of 4 x 4 at most.

        Args:
          params, images: as of `image_features`.

        Raises:
          ConfigError: as `image_features`, or a tower that shows no tokens.
        """
        return self._bind(params).image_tokens(self._filtered(params, images))

    def text_tokens(
        self, params: Params, tokens: Tokens, mask: jax.Array, embeddings: jax.Array | None = None
    ) -> Float[Array, "batch length states"]:
        """Return the text tower's last state of every token, not projected; those of padding mean nothing.

        Args:
          params, tokens, mask, embeddings: as of `text_features`.

        Raises:
          ConfigError: as `text_features`, or a tower that shows no tokens.
        """
        return self._bind(params).text_tokens(tokens, mask, embeddings)

    def token_table(self, params: Params) -> Float[Array, "vocabulary width"]:
        """Return the token embeddings."""
        return self._bind(params).token_table()

    def logit_scale(self, params: Params) -> Float[Array, ""]:
        """Return the factor of the cosine logits: exp of the parameter, at most 100 but for SigLIP's."""
        return self._bind(params).logit_scale()

    def logit_bias(self, params: Params) -> Float[Array, ""]:
        """Return the bias of the scaled cosines under the sigmoid loss: 0 for encoders without one."""
        return self._bind(params).logit_bias()

    def computing_in(self, dtype: str) -> DualEncoderFunctions:
        """Return the same functions with towers that compute in "float32" or "bfloat16"; parameters stay as
        they are.
        """
        return dataclasses.replace(self, config=dataclasses.replace(self.config, compute_dtype=dtype))

    def _bind(self, params: Params) -> DualEncoder:
        return nnx.merge(_graph(self.config), {name: p for name, p in params.items() if name != input_filter.NAME})


def split(model: DualEncoder) -> tuple[DualEncoderFunctions, Params]:
    """Take a module apart into pure functions and a plain nested dict of arrays."""
    return DualEncoderFunctions(model.config), nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.lru_cache(maxsize=64)
def _width_of(config: DualEncoderConfig, kind: str) -> int:
    def of_one() -> Array:
        encoder = DualEncoder(config, nnx.Rngs(0))
        images = jnp.zeros((1, config.image_size, config.image_size, config.channels), jnp.float32)
        return DualEncoderFunctions(config).features(split(encoder)[1], images, kind)

    return int(jax.eval_shape(of_one).shape[1])


@functools.lru_cache(maxsize=64)
def _graph(config: DualEncoderConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: DualEncoder(config, nnx.Rngs(0))))


def stored_dtype(params: Params) -> jnp.dtype:
    """Return the dtype that an encoder's parameters are kept in."""
    return jnp.dtype(params["log_scale" if "log_scale" in params else "free_log_scale"].dtype)


def compute_dtype(config: DualEncoderConfig, stored: jnp.dtype) -> jnp.dtype:
    """Return the dtype that towers compute in, given that of the parameters."""
    return jnp.dtype(stored if config.compute_dtype == "params" else config.compute_dtype)


def check_images(images: Any, config: DualEncoderConfig) -> None:
    """Raise ConfigError where images do not fit the image tower: no array, another size, other channels, integers."""
    refuse_no_array("images", images)
    channels = (1, 3) if config.grey_to_rgb else (config.channels,)
    size = config.image_size
    if images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        hint = ""
        if images.ndim == 3 and images.shape[2] in channels:
            hint = "One image without a batch axis? Use images[None]."
        elif images.ndim == 4 and images.shape[1] in channels and images.shape[2:] == (size, size):
            hint = "Channels first (NCHW)? Use images.transpose(0, 2, 3, 1)."
        raise ConfigError("images.shape", images.shape, f"[B, {size}, {size}, {wanted}] for this image tower", hint)
    if not images.shape[0]:
        raise ConfigError("images.shape", images.shape, "one image at least")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError("images.dtype", str(images.dtype), "floats in [0, 1] (divide 8-bit images by 255)")
    # Traced values are not known; a rounding error beyond the range is none of the caller's.
    if not isinstance(images, jax.core.Tracer) and images.size:
        held = np.asarray(images, np.float32)
        low, high = float(held.min()), float(held.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            hint = "Normalisation (mean, std) happens inside the model." if np.isfinite(low + high) else ""
            raise ConfigError("images", f"values in [{low:.4g}, {high:.4g}]", "finite values in [0, 1]", hint)


def _check_output(x: object, rows: int, config: TowerConfig) -> None:
    """Raise ConfigError where a tower, perhaps the user's own, returns another shape than its config says."""
    tower = tower_of(config)
    if getattr(x, "shape", None) != (rows, config.outputs):
        expected = f"[B, {config.outputs}], as its config's `outputs` says"
        raise ConfigError(f"output of the tower {tower.name!r}", getattr(x, "shape", type(x).__name__), expected)
