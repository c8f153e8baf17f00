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

from ranjax.attacks.input_checks import Number, PerExample, Pixels

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


def l1_norm(delta: Pixels) -> PerExample:
    """Return the sum of absolute entries per example."""
    return jnp.sum(jnp.abs(delta), axis=pixel_axes(delta))


def l1(epsilon: Float[Array, "..."]) -> Projection:
    """Project onto the meet of ||adv - x||_1 <= epsilon and the box. epsilon: [1, 1, 1, 1] or [B, 1, 1, 1].

    The nearest point of both at once (Croce & Hein 2021, arXiv 2103.01208, Section 2): a soft threshold of the change,
    cut at the box. Bisection brackets the threshold, and the sums of its bracket give it.
    """

    def project(candidate: Pixels, images: Pixels) -> Pixels:
        delta, axes = candidate - images, pixel_axes(images)
        size = jnp.abs(delta)
        most = jnp.where(delta > 0, 1 - images, images)  # how far the box lets this entry go

        def length(threshold: Float[Array, "batch *ones"]) -> Float[Array, "batch *ones"]:
            return jnp.sum(jnp.clip(size - threshold, 0, most), axis=axes, keepdims=True)

        def halve(_: Number, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) / 2
            long = length(middle) > epsilon
            return jnp.where(long, middle, low), jnp.where(long, high, middle)

        top = jnp.max(size, axis=axes, keepdims=True)
        low, high = jax.lax.fori_loop(0, 26, halve, (jnp.zeros_like(top), top))
        # Within the bracket no entry changes its kind but by rounding: solve for the threshold, and keep it inside.
        moving = (size > high) & (size - high < most)
        fixed = jnp.sum(jnp.where(size - high >= most, most, 0), axis=axes, keepdims=True)
        total = jnp.sum(jnp.where(moving, size, 0), axis=axes, keepdims=True)
        count = jnp.sum(moving.astype(size.dtype), axis=axes, keepdims=True)
        exact = (total + fixed - epsilon) / jnp.maximum(count, 1)
        threshold = jnp.where(count > 0, jnp.clip(exact, low, high), high)
        threshold = jnp.where(length(jnp.zeros_like(top)) <= epsilon, 0, threshold)
        return jnp.clip(images + jnp.sign(delta) * jnp.clip(size - threshold, 0, most), 0, 1)

    return project


def ball(norm: str, epsilon: Float[Array, "..."]) -> Projection:
    """Return the projection onto the ball of that norm ("linf", "l2" or "l1") and that radius."""
    return {"linf": linf, "l2": l2, "l1": l1}[norm](epsilon)


def norm_of(norm: str) -> Callable[[jax.Array], jax.Array]:
    """Return the function f32[B, ...] -> f32[B] that measures a change in "linf", "l2" or "l1"."""
    return {"linf": linf_norm, "l2": l2_norm, "l1": l1_norm}[norm]
