"""How a gradient becomes a step: optax gradient transformations over a batch of images, f32[B, ...].

An attack adds what the transformation returns, so a rule points up the loss. Chain them, or put any optax optimiser in
their place (with a sign: optax's own optimisers point down, so end the chain by ``optax.scale(-1)``)::

    rule = optax.chain(steps.l1_momentum(1.0), steps.sign(2 / 255))      # MI-FGSM
    rule = optax.chain(optax.adam(0.01), optax.scale(-1.0))              # Adam ascent

A zero gradient gives a zero step in all of them: no 0 / 0.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ranjax.attacks.projections import l2_norm, pixel_axes


def sign(size: Any) -> optax.GradientTransformation:
    """size * sign(g), the steepest ascent under linf. size: a number or an array of the rank of the images."""
    return optax.stateless(lambda gradient, _: size * jnp.sign(gradient))


def normalised_l2(size: Any) -> optax.GradientTransformation:
    """size * g / ||g||_2 per example, the steepest ascent under l2."""

    def update(gradient: jax.Array, _: Any) -> jax.Array:
        length = l2_norm(gradient, keepdims=True)
        return size * gradient / jnp.where(length > 0, length, jnp.ones_like(length))

    return optax.stateless(update)


def l1_momentum(decay: float) -> optax.GradientTransformation:
    """m <- decay m + g / ||g||_1 per example (MI-FGSM, Dong et al. 2018, eq. 6)."""

    def update(gradient: jax.Array, momentum: jax.Array, params: Any = None) -> tuple[jax.Array, jax.Array]:
        del params
        length = jnp.sum(jnp.abs(gradient), axis=pixel_axes(gradient), keepdims=True)
        momentum = decay * momentum + gradient / jnp.where(length > 0, length, jnp.ones_like(length))
        return momentum, momentum

    return optax.GradientTransformation(jnp.zeros_like, update)
