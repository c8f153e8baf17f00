"""Zero-shot classification with prompt ensembles (Radford et al. 2021): pure functions of embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ranjax.core.errors import DataError
from ranjax.core.math import unit


def class_embeddings(prompts: jax.Array, classes: jax.Array, count: int) -> jax.Array:
    """One embedding a class: the mean of its prompts' normalised embeddings, normalised again.

    Args:
      prompts: f[P, D] text embeddings.
      classes: i32[P], the class of each prompt; any number of prompts a class.
      count: C.

    Returns:
      f[C, D].

    Raises:
      DataError: shapes that do not fit, or (outside jit) a class without a prompt.
    """
    if prompts.ndim != 2 or classes.shape != prompts.shape[:1]:
        raise DataError(f"prompts [P, D] and classes [P] are needed, got {prompts.shape} and {classes.shape}")
    if not isinstance(classes, jax.core.Tracer):
        present = {int(c) for c in classes}
        absent = sorted(set(range(count)) - present)
        if absent or not present <= set(range(count)):
            raise DataError(f"classes 0..{count - 1} need a prompt each; without: {absent}, seen: {sorted(present)}")
    members = jax.nn.one_hot(classes, count, dtype=prompts.dtype).T
    return unit(members @ unit(prompts) / jnp.sum(members, axis=1, keepdims=True))


def logits(images: jax.Array, classes: jax.Array, scale: jax.Array | float) -> jax.Array:
    """``scale * cos(image, class)``: images f[B, D], classes f[C, D] -> f[B, C]."""
    return scale * (unit(images) @ unit(classes).T)
