"""Zero-shot classification with prompt ensembles (Radford et al. 2021): pure functions of embeddings."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ranjax.core import precision
from ranjax.core.errors import DataError
from ranjax.core.math import unit


def class_embeddings(
    prompts: Float[Array | np.ndarray, "prompts dim"], classes: Int[Array | np.ndarray, "..."], count: int
) -> Float[Array, "{count} dim"]:
    """Return one embedding a class: the mean of its prompts' normalised embeddings, normalised again.

    Args:
      prompts: text embeddings.
      classes: the class of each prompt; any number of prompts a class.
      count: number of classes.

    Raises:
      DataError: shapes that do not fit, or (outside jit) a class without a prompt.
    """
    if classes.shape != prompts.shape[:1]:
        raise DataError(f"expected prompts [P, D] and classes [P], got {prompts.shape} and {classes.shape}")
    if not isinstance(classes, jax.core.Tracer):
        present = {int(c) for c in np.asarray(classes)}
        absent = sorted(set(range(count)) - present)
        if absent or not present <= set(range(count)):
            raise DataError(f"classes 0..{count - 1} need a prompt each; without: {absent}, found: {sorted(present)}")
    return _ensembles(prompts, classes, count)


@functools.partial(jax.jit, static_argnums=2)
@precision.exact
def _ensembles(prompts: Array, classes: Array, count: int) -> Array:
    members = jax.nn.one_hot(classes, count, dtype=prompts.dtype).T
    return unit(members @ unit(prompts) / jnp.sum(members, axis=1, keepdims=True))


def logits(
    images: Float[Array | np.ndarray, "batch dim"],
    classes: Float[Array | np.ndarray, "classes dim"],
    scale: Float[Array, ""] | float,
) -> Float[Array, "batch classes"]:
    """Return ``scale * cos(image, class)``."""
    return _logits(images, classes, scale)


@jax.jit
def _logits(images: Array, classes: Array, scale: Array) -> Array:
    return scale * (unit(images) @ unit(classes).T)
