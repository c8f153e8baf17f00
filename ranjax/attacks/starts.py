"""Where an attack begins: functions ``(keys key[B], images) -> images``, before the projection.

Draws are per example, from its own key, so the start of an example does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ranjax.attacks.projections import l2_norm, pixel_axes

Start = Callable[[jax.Array, jax.Array], jax.Array]


def _draw(sample: Callable, keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: sample(key, images.shape[1:], images.dtype))(keys)


def _symmetric(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)


def clean(keys: jax.Array, images: jax.Array) -> jax.Array:
    """The clean images themselves (BIM)."""
    del keys
    return images


def uniform_linf(epsilon: jax.Array) -> Start:
    """x + U[-epsilon, epsilon] per pixel: both signs, not U[0, epsilon) as in Co-Attack's code."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        return images + epsilon * _draw(_symmetric, keys, images)

    return start


def uniform_l2(epsilon: jax.Array) -> Start:
    """A uniform point of the L2 ball: the first d coordinates of a uniform point on the sphere in d + 2 dimensions."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        size = images[0].size
        draw = jax.vmap(lambda key: jax.random.normal(key, (size + 2,), images.dtype))(keys)
        inside = (draw / l2_norm(draw, keepdims=True))[:, :size]
        return images + epsilon * inside.reshape(images.shape)

    return start


def surface_linf(epsilon: jax.Array) -> Start:
    """x + epsilon u / max|u|, u uniform in [-1, 1] per pixel: a point on the ball's surface (APGD's public code)."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        draw = _draw(_symmetric, keys, images)
        return images + epsilon * draw / jnp.max(jnp.abs(draw), axis=pixel_axes(draw), keepdims=True)

    return start


def surface_l2(epsilon: jax.Array) -> Start:
    """x + epsilon u / ||u||, u Gaussian: a uniform point of the sphere (APGD's public code)."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        draw = _draw(jax.random.normal, keys, images)
        return images + epsilon * draw / l2_norm(draw, keepdims=True)

    return start
