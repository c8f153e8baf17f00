"""TTC, a defence at test time: the model attacks its own input to shake an adversarial perturbation off.

After Xing et al., CVPR 2025, "CLIP is Strong Enough to Fight Back" (arXiv 2503.03613). Attacked images sit in a place
where the encoder hardly reacts to small noise; natural ones do not. So images whose embedding hardly moves under noise
are pushed away from where they are, and the others keep the noise alone.

Steps, averaging over iterates and the defaults (radius 4/255, 2 steps of 1/255, threshold 0.2, beta 2) are those of the
authors' public code (TTC.sh and test_time_counterattack.py). They were chosen for CLIP at 224 pixels; another encoder
may move more or less than 0.2 under the same noise, and then all images or none are pushed: look at `tau`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ranjax.core.errors import DataError
from ranjax.core.pixels import pixel_units
from ranjax.methods.head_inputs import check_fields
from ranjax.methods.method_settings import TTC


class Counterattack(NamedTuple):
    """Attributes: images f32[B, ...] in [0, 1]; tau f32[B]; pushed bool[B], which images were counterattacked."""

    images: jax.Array
    tau: jax.Array
    pushed: jax.Array


def counterattack(
    features_fn: Callable[[jax.Array], jax.Array], images: jax.Array, keys: jax.Array, settings: TTC
) -> Counterattack:
    """Raises ``||phi(x + d) - phi(x)||_2`` over d in the ball, where tau < threshold. Pure; the caller jits.

    ``tau = ||phi(x + n) - phi(x)|| / ||phi(x)||`` with n uniform in the ball. The perturbation is added without
    gradient, so an attack that differentiates through this function sees the identity (the adaptive attack of Athalye
    et al. 2018 for a defence that has no useful gradient).

    Args:
      features_fn: ``images -> f32[B, D]``, parameters bound.
      images: f32[B, H, W, C] in [0, 1].
      keys: key[B]: an image's noise does not depend on its batch.

    Raises:
      ConfigError: a setting.
      DataError: keys that are not one per image.
    """
    moved, tau, pushed = _pushed(features_fn, lax.stop_gradient(images), keys, settings)
    return Counterattack(lax.stop_gradient(moved) + (images - lax.stop_gradient(images)), tau, pushed)


def counterattacked(model: Any, images: jax.Array, keys: jax.Array, settings: TTC) -> jax.Array:
    """Return the counterattacked images of a `ranjax.methods.defences.Undefended`, differentiable through the steps.

    The values are those of `counterattack`. A derivative by the images passes the unrolled steps, where a sign counts
    as the hyperbolic tangent of x over its mean length, as it has no slope of its own; the choice of the images that
    are pushed has none.
    """
    return _pushed(model.features, images, keys, settings).images


def _pushed(
    features_fn: Callable[[jax.Array], jax.Array], images: jax.Array, keys: jax.Array, settings: TTC
) -> Counterattack:
    """Return what `counterattack` does, without stopping any gradient."""
    check_fields("settings", settings)
    epsilon, size = pixel_units(settings.epsilon), pixel_units(settings.step)
    if keys.shape != images.shape[:1]:
        raise DataError(f"keys have shape {keys.shape}, {images.shape[:1]} is needed, one per image")
    before = features_fn(images)

    def inside(delta: jax.Array) -> jax.Array:
        return within(images, delta, epsilon)

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, images.shape[1:], images.dtype, -epsilon, epsilon)

    def square_shift(delta: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(features_fn(images + delta) - before), axis=1)

    def step(delta: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda d: jnp.sum(square_shift(d)))(delta)
        delta = inside(delta + size * sign(gradient))
        return delta, delta

    start = inside(jax.vmap(draw)(keys))
    length = jnp.sqrt(jnp.sum(jnp.square(before), axis=1))
    tau = jnp.sqrt(square_shift(start)) / jnp.maximum(length, jnp.finfo(images.dtype).tiny)
    _, later = lax.scan(step, start, None, length=settings.steps)
    iterates = jnp.concatenate([start[None], later])
    weights = jax.nn.softmax(settings.beta * jnp.arange(settings.steps + 1, dtype=images.dtype))
    average = jnp.tensordot(weights, iterates, axes=1)
    pushed = tau < settings.threshold
    delta = jnp.where(pushed.reshape((-1,) + (1,) * (images.ndim - 1)), average, start)
    return Counterattack(jnp.clip(images + delta, 0, 1), tau, pushed)


def within(images: jax.Array, delta: jax.Array, epsilon: float) -> jax.Array:
    """Return the nearest perturbation in the L-infinity ball that leaves the images in [0, 1]."""
    return jnp.clip(images + jnp.clip(delta, -epsilon, epsilon), 0, 1) - images


@jax.custom_jvp
def sign(x: jax.Array) -> jax.Array:
    """Return the signs of [B, ...], with the slope of the hyperbolic tangent of x over its mean length in an image."""
    return jnp.sign(x)


@sign.defjvp
def _sign_slope(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (moved,) = primals, tangents
    scale = jnp.mean(jnp.abs(x), axis=tuple(range(1, x.ndim)), keepdims=True) + jnp.finfo(x.dtype).tiny
    return jnp.sign(x), moved * (1 - jnp.tanh(x / scale) ** 2) / scale
