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
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ranjax.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class TTC:
    """Settings of `counterattack`.

    Attributes:
      epsilon: Linf radius in pixel units.  step_size: likewise.  steps: gradient steps.
      threshold: images whose tau is at or above it keep the noise alone.
      beta: iterate i of 0..steps (0 is the noise) is weighted by exp(beta * i) in the final average.
    """

    epsilon: float = 4 / 255
    step_size: float = 1 / 255
    steps: int = 2
    threshold: float = 0.2
    beta: float = 2.0

    def __post_init__(self) -> None:
        for name in ("epsilon", "step_size", "threshold"):
            if not getattr(self, name) >= 0:
                raise ConfigError(name, getattr(self, name), "0 or more")
        if self.steps < 0:
            raise ConfigError("steps", self.steps, "0 or more")


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
      DataError: keys that are not one per image.
    """
    if keys.shape != images.shape[:1]:
        raise DataError(f"keys have shape {keys.shape}, {images.shape[:1]} is needed, one per image")
    fixed = lax.stop_gradient(images)
    before = features_fn(fixed)

    def inside(delta: jax.Array) -> jax.Array:
        return jnp.clip(fixed + jnp.clip(delta, -settings.epsilon, settings.epsilon), 0, 1) - fixed

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, images.shape[1:], images.dtype, -settings.epsilon, settings.epsilon)

    def square_shift(delta: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(features_fn(fixed + delta) - before), axis=1)

    def step(delta: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda d: jnp.sum(square_shift(d)))(delta)
        delta = inside(delta + settings.step_size * jnp.sign(gradient))
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
    moved = jnp.clip(fixed + delta, 0, 1)
    return Counterattack(lax.stop_gradient(moved) + (images - fixed), tau, pushed)
