"""A defended model as one function of parameters, images and keys, whose gradient an attacker can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.methods.defences.defence_table import IDENTITY, THROUGH, Defence

Features = Callable[[PyTree, jax.Array], jax.Array]
"""``(params, images f32[B, H, W, C]) -> f32[B, D]``."""
Classify = Callable[[PyTree, jax.Array], jax.Array]
"""``(params, features f32[B, D]) -> logits f32[B, C]``."""
DefendedFunction = Callable[[PyTree, jax.Array, jax.Array], jax.Array]
"""``(params, images f32[B, H, W, C], keys key[B]) -> logits f32[B, C]``."""


class Undefended(NamedTuple):
    """The model behind a defence, its parameters bound.

    Attributes:
      features: ``images f32[B, H, W, C] -> f32[B, D]``.
      classify: ``features f32[B, D] -> logits f32[B, C]``.
    """

    features: Callable[[Array], Array]
    classify: Callable[[Array], Array]

    def logits(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """Return the model's own answer."""
        return self.classify(self.features(images))


def undefended(features: Features, classify: Classify) -> Callable[[PyTree, jax.Array], jax.Array]:
    """Return the model without a defence as ``(params, images) -> logits``; arguments as those of `defended`."""
    return lambda params, images: classify(params, features(params, images))


def defended(
    defence: Defence, features: Features, classify: Classify, settings: Any = None, gradient: str = THROUGH
) -> DefendedFunction:
    """Return a model behind a defence as ``(params, images, keys) -> logits``: pure; the caller jits.

    Args:
      defence: an entry of `DEFENCES`, or one of yours.
      features: of the model, parameters as an argument.
      classify: the rest of the model.
      settings: of the defence; None: those of the entry.
      gradient: one of `defence.gradients`: what a derivative by the images passes. Values do not depend on it.

    Raises:
      ConfigError: a gradient that the defence does not name, settings of another kind.
      DataError: (when called) keys that are not one an image, or logits of another shape.
    """
    if gradient not in defence.gradients:
        expected = f"one of {', '.join(defence.gradients)}, as the defence {defence.name!r} has them"
        raise ConfigError("gradient", gradient, expected, nearest(gradient, defence.gradients))
    used = defence.settings if settings is None else settings
    if defence.settings is not None and not isinstance(used, type(defence.settings)):
        raise ConfigError("settings", used, f"a {type(defence.settings).__name__}")

    def answered(
        params: PyTree, images: Float[Array, "batch height width channels"], keys: Key[Array, "batch"]
    ) -> Float[Array, "batch classes"]:
        if keys.shape != images.shape[:1]:
            raise DataError(f"keys have shape {keys.shape}, {images.shape[:1]} is needed, one per image")
        model = Undefended(lambda x: features(params, x), lambda z: classify(params, z))
        if defence.preprocess is not None:
            found = defence.preprocess(model, images, keys, used)
            if gradient == IDENTITY:
                # The values of the defence, the slope of the identity.
                found = jax.lax.stop_gradient(found) + (images - jax.lax.stop_gradient(images))
            images = found
        logits = model.logits(images) if defence.answer is None else defence.answer(model, images, keys, used)
        if jnp.ndim(logits) != 2 or logits.shape[0] != images.shape[0]:
            raise DataError(
                f"the defence {defence.name!r} gives {jnp.shape(logits)}, logits [images, classes] expected"
            )
        return logits

    return answered
