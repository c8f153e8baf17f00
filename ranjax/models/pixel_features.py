"""Pixels in the place of an encoder: what a head learns from the images alone, without any pre-training."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models import input_filter

SIDE = 32
"""Pixels a side at most: a head on more of them has more inputs than a small labelled set has images."""


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """The shape of images, by the names that an encoder's config has.

    Attributes:
      image_size: pixels a side.
      channels: of an image.
    """

    image_size: int
    channels: int = 1

    @property
    def side(self) -> int:
        """Return the pixels a side that are left."""
        return min(self.image_size, SIDE)

    @property
    def embed_dim(self) -> int:
        """Return the number of features."""
        return self.side**2 * self.channels


@dataclasses.dataclass(frozen=True)
class PixelFunctions:
    """Pure functions as `DualEncoderFunctions` has them, of parameters that hold nothing but perhaps a filter.

    The one vector of pixels stands for every kind of features of an encoder.
    """

    config: PixelConfig

    def image_features(
        self, params: Params, images: Shaped[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """Return images averaged by area to at most 32 x 32 and flattened, behind the filter where there is one.

        Args:
          params: {}, or with a filter of `ranjax.models.input_filter`.
          images: floats in [0, 1].

        Raises:
          ConfigError: an image of another size or number of channels than the config's, or of integers.
        """
        size = self.config.image_size
        if images.shape[1:] != (size, size, self.config.channels) or not jnp.issubdtype(images.dtype, jnp.floating):
            expected = f"floats [B, {size}, {size}, {self.config.channels}] in [0, 1]"
            raise ConfigError("images", f"{images.dtype}{list(images.shape)}", expected)
        if input_filter.NAME in params:
            images = input_filter.apply(params[input_filter.NAME], images)
        means = jnp.asarray(area_weights(size, self.config.side), images.dtype)
        small = jnp.einsum("jw,bhwc->bhjc", means, jnp.einsum("ih,bhwc->biwc", means, images))
        return small.reshape(len(images), -1)

    def features(
        self, params: Params, images: Shaped[Array, "batch height width channels"], kind: str = "embedding"
    ) -> Float[Array, "batch features"]:
        """Return `image_features`, whatever the kind."""
        return self.image_features(params, images)

    def width_of(self, kind: str = "embedding") -> int:
        """Return the width of `features`, whatever the kind."""
        return self.config.embed_dim


def area_weights(size: int, side: int) -> Float[np.ndarray, "{side} {size}"]:
    """Return the share of each of `size` pixels in each of `side` cells of equal width; rows sum to 1."""
    edges = np.linspace(0, size, side + 1)
    first, last = edges[:-1, None], edges[1:, None]
    places = np.arange(size)[None]
    covered = np.minimum(last, places + 1) - np.maximum(first, places)
    return np.clip(covered, 0, None) * side / size


def pixels(size: int, channels: int) -> tuple[PixelFunctions, dict[str, jax.Array]]:
    """Return functions and parameters of the pixels of images of that size."""
    return PixelFunctions(PixelConfig(size, channels)), {}
