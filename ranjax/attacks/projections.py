"""Where an attacked image may lie: a ball about the clean image, cut by the box [0, 1].

A projection is a function ``(candidate, images) -> images``. Distances hold in float32 up to rounding (under 1e-7 for
images in [0, 1]); the box holds exactly, because it is applied last and never leads out of a ball about a point inside
it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ranjax.attacks.input_checks import PerExample, Pixels

Projection = Callable[[jax.Array, jax.Array], jax.Array]


def pixel_axes(images: Pixels) -> tuple[int, ...]:
    """Return all axes but the batch."""
    return tuple(range(1, images.ndim))


def l2_length(delta: Pixels) -> Float[Array, "batch *ones"]:
    """Return the L2 norm per example, of the rank of `delta`; scaled by the largest entry, lest tiny ones vanish."""
    axes = pixel_axes(delta)
    top = jnp.max(jnp.abs(delta), axis=axes, keepdims=True)
    safe = jnp.where(top > 0, top, jnp.ones_like(top))
    return safe * jnp.sqrt(jnp.sum(jnp.square(delta / safe), axis=axes, keepdims=True))


def l2_norm(delta: Pixels) -> PerExample:
    """Return the L2 norm per example."""
    return l2_length(delta).reshape(delta.shape[0])


def linf_norm(delta: Pixels) -> PerExample:
    """Return the largest absolute entry per example."""
    return jnp.max(jnp.abs(delta), axis=pixel_axes(delta))


def unit_l2(direction: Pixels) -> Pixels:
    """Return ``direction / ||direction||_2`` per example; zeros stay zeros."""
    length = l2_length(direction)
    return direction / jnp.where(length > 0, length, jnp.ones_like(length))


def linf(epsilon: Float[Array, "..."]) -> Projection:
    """Project onto max |adv - x| <= epsilon, then the box. epsilon: as `input_checks.broadcast_per_example`
    gives it.
    """
    return lambda candidate, images: jnp.clip(images + jnp.clip(candidate - images, -epsilon, epsilon), 0, 1)


def l2(epsilon: Float[Array, "..."]) -> Projection:
    """Project onto ||adv - x||_2 <= epsilon per example, then the box. epsilon: [1, 1, 1, 1] or [B, 1, 1, 1]."""

    def project(candidate: Pixels, images: Pixels) -> Pixels:
        delta = candidate - images
        length = l2_length(delta)
        inside = length <= epsilon
        shrink = jnp.where(inside, 1, epsilon / jnp.where(inside, jnp.ones_like(length), length))
        return jnp.clip(images + delta * shrink, 0, 1)

    return project
