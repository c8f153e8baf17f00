"""Where an attack begins: functions ``(keys key[B], images f32[B, ...]) -> images``, before the projection.

Draws are per example, from its own key, so the start of an example does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.attacks.input_checks import Keys, Pixels
from ranjax.attacks.projections import l2_length, pixel_axes

Start = Callable[[jax.Array, jax.Array], jax.Array]


def _draw(sample: Callable[..., jax.Array], keys: Keys, images: Pixels) -> Pixels:
    return jax.vmap(lambda key: sample(key, images.shape[1:], images.dtype))(keys)


def _symmetric(key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    return jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)


def clean(keys: Keys, images: Pixels) -> Pixels:
    """Start at the clean images themselves (BIM)."""
    del keys
    return images


def uniform_linf(epsilon: Float[Array, "..."]) -> Start:
    """Start at x + U[-epsilon, epsilon] per pixel: both signs, not U[0, epsilon) as in Co-Attack's code."""
    return lambda keys, images: images + epsilon * _draw(_symmetric, keys, images)


def uniform_l2(epsilon: Float[Array, "..."]) -> Start:
    """Start at a uniform point of the L2 ball: d coordinates of a uniform point on the sphere in d + 2 dimensions."""

    def start(keys: Keys, images: Pixels) -> Pixels:
        size = images[0].size
        draw = jax.vmap(lambda key: jax.random.normal(key, (size + 2,), images.dtype))(keys)
        inside = (draw / l2_length(draw))[:, :size]
        return images + epsilon * inside.reshape(images.shape)

    return start


def surface_linf(epsilon: Float[Array, "..."]) -> Start:
    """Start at x + epsilon u / max|u|, u uniform in [-1, 1]: a point on the ball's surface (APGD's public code)."""

    def start(keys: Keys, images: Pixels) -> Pixels:
        draw = _draw(_symmetric, keys, images)
        return images + epsilon * draw / jnp.max(jnp.abs(draw), axis=pixel_axes(draw), keepdims=True)

    return start


def gaussian(keys: Keys, images: Pixels) -> Pixels:
    """Start at x + N(0, 1), to be projected onto an L1 ball (APGD's public code)."""
    return images + _draw(jax.random.normal, keys, images)


def surface_l2(epsilon: Float[Array, "..."]) -> Start:
    """Start at x + epsilon u / ||u||, u Gaussian: a uniform point of the sphere (APGD's public code)."""

    def start(keys: Keys, images: Pixels) -> Pixels:
        draw = _draw(jax.random.normal, keys, images)
        return images + epsilon * draw / l2_length(draw)

    return start
