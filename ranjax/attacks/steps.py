"""How a gradient becomes a step: optax gradient transformations over a batch of images, f32[B, ...].

An attack adds what the transformation returns, so a rule points up the loss. Chain them, or put any optax optimiser in
their place (with a sign: optax's own optimisers point down, so end the chain by ``optax.scale(-1)``)::

    rule = optax.chain(steps.l1_momentum(1.0), steps.sign(2 / 255))      # MI-FGSM
    rule = optax.chain(optax.adam(0.01), optax.scale(-1.0))              # Adam ascent

A zero gradient gives a zero step in all of them: no 0 / 0.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike

from ranjax.attacks.input_checks import Pixels
from ranjax.attacks.projections import l2_length, pixel_axes


def sign(size: ArrayLike) -> optax.GradientTransformation:
    """Step by size * sign(g), the steepest ascent under linf. size: a number or an array of the rank of the images."""
    return optax.stateless(lambda gradient, _: jnp.multiply(size, jnp.sign(gradient)))


def normalised_l2(size: ArrayLike) -> optax.GradientTransformation:
    """Step by size * g / ||g||_2 per example, the steepest ascent under l2."""

    def update(gradient: Pixels, _: object) -> Pixels:
        length = l2_length(gradient)
        return jnp.multiply(size, gradient) / jnp.where(length > 0, length, jnp.ones_like(length))

    return optax.stateless(update)


def l1_momentum(decay: ArrayLike) -> optax.GradientTransformation:
    """Accumulate m <- decay m + g / ||g||_1 per example (MI-FGSM, Dong et al. 2018, eq. 6)."""

    def update(gradient: Pixels, momentum: Pixels, params: object = None) -> tuple[Pixels, Pixels]:
        del params
        length = jnp.sum(jnp.abs(gradient), axis=pixel_axes(gradient), keepdims=True)
        momentum = jnp.multiply(decay, momentum) + gradient / jnp.where(length > 0, length, jnp.ones_like(length))
        return momentum, momentum

    return optax.GradientTransformation(jnp.zeros_like, update)
