"""An attack compiled once and called many times, with its input checked before anything compiles."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ranjax.attacks import input_checks, probabilities
from ranjax.attacks.ascent import KeyedLoss, Loss, Value
from ranjax.attacks.input_checks import Images, Keys, Pixels
from ranjax.attacks.pgd import pgd
from ranjax.attacks.tracing import in_jax


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
      DataError (when called): images, keys or labels that `input_checks` refuse, a model that is not in JAX, or that
        gives probabilities (asked of the first call); all before the attack compiles.
    """
    input_checks.validate_settings(settings, (), "a pgd.PGD or the settings of another attack")

    def traced(
        params: PyTree, images: Pixels, keys: Keys, rows: PyTree, settings: PyTree, mask: ArrayLike | None
    ) -> PyTree:
        def bound(images: Pixels, *own: Keys) -> Value:
            return loss(params, images, *own, *rows)

        own_loss: Loss = KeyedLoss(bound) if isinstance(loss, KeyedLoss) else bound
        return attack(own_loss if transform is None else transform(own_loss), images, keys, settings, mask=mask)

    # The name that logs and `ranjax status` say while it is compiled.
    traced.__name__ = getattr(attack, "__name__", "attack")
    compiled = jax.jit(traced)
    default = settings
    # By the shapes of a call, the number of classes that the losses state for each of its rows.
    known: dict[Hashable, dict[int, int]] = {}
    # Whether the outputs of a first call were held against probabilities.
    held: list[bool] = []

    def classes_of(*given: PyTree) -> dict[int, int]:
        shapes = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), given[:4])
        key = (jax.tree.structure(given[:4]), tuple(map(str, jax.tree.leaves(shapes, is_leaf=_is_shape))))
        if key not in known:
            found: dict[int, int] = {}

            def noted(*arguments: PyTree) -> PyTree:
                with input_checks.noting_labels() as notes:
                    result = traced(*arguments)
                for i, row in enumerate(arguments[3]):
                    stated = [classes for labels, classes in notes if labels is row]
                    if stated:
                        found[i] = min(stated)
                return result

            jax.eval_shape(noted, *given)
            known[key] = found
        return known[key]

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
        if not any(input_checks.is_traced(leaf) for leaf in jax.tree.leaves((params, images, rows))):
            for i, classes in in_jax(
                lambda: classes_of(params, images, keys, rows, chosen, mask), images.shape
            ).items():
                input_checks.validate_labels(rows[i], classes)
            if not held:
                own = (keys,) if isinstance(loss, KeyedLoss) else ()
                probabilities.refuse_probabilities(loss, params, images, *own, *rows)
                held.append(True)
        return compiled(params, images, keys, rows, chosen, mask)

    return run


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], tuple)
