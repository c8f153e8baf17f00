"""An attack compiled once and called many times, with its input checked before anything compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks import input_checks as checks
from ranjax.attacks.ascent import KeyedLoss, Loss
from ranjax.core.errors import DataError


def jitted(
    loss: Loss,
    settings: Any,
    attack: Callable[..., Any] | None = None,
    transform: Callable[[Loss], KeyedLoss] | None = None,
    batch_size: int | None = None,
) -> Callable[..., Any]:
    """A compiled attack ``run(params, images, keys, *rows, mask=None)`` on the loss ``loss(params, images, *rows)``.

    Parameters are arguments, not constants, so the compiled program stays small and serves every set of weights.

    Args:
      loss: ``(params, images, *rows) -> f32[B]`` or ``-> (f32[B], success bool[B])``; wrapped in `KeyedLoss`, it gets
        ``(params, images, keys, *rows)``. `rows` are arrays with the batch first, e.g. labels.
      settings: of `attack`; epsilon and step size may be replaced per call by ``run(..., settings=...)`` without
        compiling.
      attack: ``(loss_fn, images, keys, settings, mask=...) -> result``; default `image.pgd`.
      transform: what turns the loss into one under transformations, e.g. `transforms.scaled`.
      batch_size: cuts longer inputs into batches of this size, the last one filled up by repetition and cut back;
        masks, radii and steps per example are cut with them. Not for losses that couple rows.

    Raises:
      ConfigError: a preset in the place of its settings.
      DataError (when called): images or keys that `checks` refuse, before anything compiles; rows to be cut into
        batches that do not have the batch first.
    """
    checks.validate_settings(settings, (), "an image.PGD or the settings of another attack")
    if attack is None:
        from ranjax.attacks.pgd import pgd as attack
    if batch_size is not None:
        checks.validate_count(batch_size, "batch_size", 1)

    def traced(params, images, keys, rows, settings, mask):
        def bound(images, *own):
            return loss(params, images, *own, *rows)

        own_loss = KeyedLoss(bound) if isinstance(loss, KeyedLoss) else bound
        return attack(own_loss if transform is None else transform(own_loss), images, keys, settings, mask=mask)

    compiled = jax.jit(traced)
    default = settings

    def run(params: Any, images: Any, keys: jax.Array, *rows: Any, mask: Any = None, settings: Any = None) -> Any:
        images = checks.validate_images(images)
        checks.validate_keys(keys, images.shape[0])
        rows = tuple(np.asarray(row) if isinstance(row, list) else row for row in rows)
        chosen = default if settings is None else settings
        size = images.shape[0] if batch_size is None else batch_size
        if images.shape[0] == size:
            return compiled(params, images, keys, rows, chosen, mask)
        batch, rank = images.shape[0], images.ndim
        for place, row in enumerate(rows):
            if any(jnp.shape(leaf)[:1] != (batch,) for leaf in jax.tree.leaves(row)):
                raise DataError(f"argument {place + 3} of the attack is no array with the batch of {batch} first.")
        parts = []
        for first in range(0, batch, size):
            index = jnp.minimum(jnp.arange(first, first + size), batch - 1)
            own = jax.tree.map(lambda row, index=index: jnp.asarray(row)[index], rows)
            per_example = functools.partial(_cut_rows, index=index, rank=rank, batch=batch)
            given = jax.tree.map(per_example, (chosen, mask))
            parts.append((compiled(params, images[index], keys[index], own, *given), min(size, batch - first)))
        return _join(parts)

    return run


def _cut_rows(value: Any, index: jax.Array, rank: int, batch: int) -> Any:
    """The rows `index` of what is given per example, [B, ...] of the rank of the images; anything else as it is."""
    if jnp.ndim(value) == rank and jnp.shape(value)[0] == batch:
        return jnp.asarray(value)[index]
    return value


def _join(parts: list[tuple[Any, int]]) -> Any:
    """Results of batches as one; every field has its batch axis last, but the images first."""
    whole = [
        type(result)(
            *(value if value is None else _cut(name, value, count) for name, value in zip(result._fields, result))
        )
        for result, count in parts
    ]
    first = whole[0]
    return type(first)(
        *(
            None if value is None else jnp.concatenate([getattr(part, name) for part in whole], axis=_axis(name))
            for name, value in zip(first._fields, first)
        )
    )


def _axis(name: str) -> int:
    return 0 if name == "images" else -1


def _cut(name: str, value: jax.Array, count: int) -> jax.Array:
    return value[:count] if _axis(name) == 0 else value[..., :count]
