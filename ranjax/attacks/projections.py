"""Where an attacked image may lie: a ball about the clean image, cut by the box [0, 1].

A projection is a function ``(candidate, images) -> images``. Distances hold in float32 up to rounding (under 1e-7 for
images in [0, 1]); the box holds exactly, because it is applied last and never leads out of a ball about a point inside
it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Projection = Callable[[jax.Array, jax.Array], jax.Array]


def pixel_axes(images: jax.Array) -> tuple[int, ...]:
    """All axes but the batch."""
    return tuple(range(1, images.ndim))


def l2_norm(delta: jax.Array, keepdims: bool = False) -> jax.Array:
    """L2 norm per example, f32[B], of delta f32[B, ...]; scaled by the largest entry, lest tiny ones vanish."""
    axes = pixel_axes(delta)
    top = jnp.max(jnp.abs(delta), axis=axes, keepdims=True)
    safe = jnp.where(top > 0, top, jnp.ones_like(top))
    length = safe * jnp.sqrt(jnp.sum(jnp.square(delta / safe), axis=axes, keepdims=True))
    return length if keepdims else length.reshape(delta.shape[0])


def linf_norm(delta: jax.Array) -> jax.Array:
    """Largest absolute entry per example, f32[B], of delta f32[B, ...]."""
    return jnp.max(jnp.abs(delta), axis=pixel_axes(delta))


def linf(epsilon: jax.Array) -> Projection:
    """Onto max |adv - x| <= epsilon, then the box. epsilon: of the rank of the images (see ``checks.spread``)."""

    def project(candidate: jax.Array, images: jax.Array) -> jax.Array:
        return jnp.clip(images + jnp.clip(candidate - images, -epsilon, epsilon), 0, 1)

    return project


def l2(epsilon: jax.Array) -> Projection:
    """Onto ||adv - x||_2 <= epsilon per example, then the box. epsilon: [1, 1, 1, 1] or [B, 1, 1, 1]."""

    def project(candidate: jax.Array, images: jax.Array) -> jax.Array:
        delta = candidate - images
        length = l2_norm(delta, keepdims=True)
        inside = length <= epsilon
        shrink = jnp.where(inside, 1, epsilon / jnp.where(inside, jnp.ones_like(length), length))
        return jnp.clip(images + delta * shrink, 0, 1)

    return project
