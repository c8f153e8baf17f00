"""Where an attack begins: functions ``(keys key[B], images) -> images``, before the projection.

Draws are per example, from its own key, so the start of an example does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from ranjax.attacks.projections import l2_norm

Start = Callable[[jax.Array, jax.Array], jax.Array]


def _draw(sample: Callable, keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: sample(key, images.shape[1:], images.dtype))(keys)


def clean(keys: jax.Array, images: jax.Array) -> jax.Array:
    """The clean images themselves (BIM)."""
    del keys
    return images


def uniform_linf(epsilon: jax.Array) -> Start:
    """x + U[-epsilon, epsilon] per pixel: both signs, not U[0, epsilon) as in Co-Attack's code."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        def sample(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)

        return images + epsilon * _draw(sample, keys, images)

    return start


def uniform_l2(epsilon: jax.Array) -> Start:
    """A uniform point of the L2 ball: a Gaussian direction times epsilon u^(1/d), u uniform in [0, 1)."""

    def start(keys: jax.Array, images: jax.Array) -> jax.Array:
        direction = _draw(jax.random.normal, keys, images)
        size = images[0].size
        radius = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (), images.dtype))(keys) ** (
            1 / size
        )
        radius = radius.reshape((-1,) + (1,) * (images.ndim - 1))
        return images + epsilon * radius * direction / l2_norm(direction, keepdims=True)

    return start
