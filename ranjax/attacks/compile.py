"""An attack compiled once and called many times, with its input checked before anything compiles."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ranjax.attacks import input_checks
from ranjax.attacks.ascent import KeyedLoss, Loss, Value
from ranjax.attacks.input_checks import Images, Keys, Pixels
from ranjax.attacks.pgd import pgd


def jitted(
    loss: Loss,
    settings: PyTree,
    attack: Callable[..., PyTree] = pgd,
    transform: Callable[[Loss], KeyedLoss] | None = None,
) -> Callable[..., PyTree]:
    """Return a compiled attack ``run(params, images, keys, *rows, mask=None)`` on ``loss(params, images, *rows)``.

    Parameters are arguments, not constants, so the compiled program stays small and serves every set of weights.

    Args:
      loss: ``(params, images, *rows) -> f32[B]`` or ``-> (f32[B], success bool[B])``; wrapped in `KeyedLoss`, it gets
        ``(params, images, keys, *rows)``. `rows` are arrays with the batch first, e.g. labels.
      settings: of `attack`; epsilon and step size may be replaced per call by ``run(..., settings=...)`` without
        compiling.
      attack: ``(loss_fn, images, keys, settings, mask=...) -> result``, e.g. `apgd.apgd`.
      transform: turns the loss into one under transformations, e.g. `transforms.scaled`.

    Raises:
      ConfigError: a preset in the place of its settings.
      DataError (when called): images or keys that `input_checks` refuse, before anything compiles.
    """
    input_checks.validate_settings(settings, (), "a pgd.PGD or the settings of another attack")

    def traced(
        params: PyTree, images: Pixels, keys: Keys, rows: PyTree, settings: PyTree, mask: ArrayLike | None
    ) -> PyTree:
        def bound(images: Pixels, *own: Keys) -> Value:
            return loss(params, images, *own, *rows)

        own_loss: Loss = KeyedLoss(bound) if isinstance(loss, KeyedLoss) else bound
        return attack(own_loss if transform is None else transform(own_loss), images, keys, settings, mask=mask)

    compiled = jax.jit(traced)
    default = settings

    def run(
        params: PyTree,
        images: Images,
        keys: ArrayLike,
        *rows: PyTree,
        mask: ArrayLike | None = None,
        settings: PyTree = None,
    ) -> PyTree:
        images = input_checks.validate_images(images)
        keys = input_checks.validate_keys(keys, images.shape[0])
        rows = tuple(np.asarray(row) if isinstance(row, list) else row for row in rows)
        chosen = default if settings is None else settings
        return compiled(params, images, keys, rows, chosen, mask)

    return run
