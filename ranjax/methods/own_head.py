"""Heads on frozen features that bring their own solver: `Method.fit` and `Method.predict`, with their results
checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ranjax.core.errors import DataError
from ranjax.core.types import Params
from ranjax.methods import selection
from ranjax.methods.head_inputs import Examples, check_classes
from ranjax.methods.head_training import FittedHeads
from ranjax.methods.method_settings import Fit
from ranjax.methods.table import Method


@dataclass(frozen=True)
class OwnHead:
    """A `predict` in the form of `ranjax.models.heads`: `apply` of parameters, without batch statistics.

    Attributes:
      predict: ``(variables, features f32[N, D]) -> logits f32[N, C]``.
      features: D.
      classes: C.
    """

    predict: Callable[[Params, Array], Array]
    features: int
    classes: int

    def apply(
        self, params: Params, stats: Params, features: Float[Array, "batch width"], train: bool
    ) -> tuple[Float[Array, "batch width"], Float[Array, "batch classes"], Params]:
        """Return (features, logits [B, C], stats) of features [B, D]; a head without a hidden layer, so z = f."""
        return features, self.predict(params, features), stats


def fit(
    method: Method,
    settings: object,
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    seeds: Sequence[int],
    shared: Fit,
) -> FittedHeads:
    """Fit a method by its own `fit`, and score each seed on the validation split, as one epoch of one method.

    The history is the validation metric: the mean of clean and attacked where the method needs attacked features, -inf
    where a logit is not finite.

    Raises:
      DataError: `fit` returned no nested dict of arrays with a leading axis of seeds, or `predict` no logits [N, C]; a
        class that training cannot learn.
    """
    notes = check_classes(train.labels, validation.labels, classes, shared.multi_label)
    assert method.fit is not None
    assert method.predict is not None
    variables = method.fit(train, validation, settings, classes=classes, seeds=list(seeds), shared=shared)
    _check_tree(method.name, variables, len(seeds))
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)
    head = OwnHead(method.predict, int(np.shape(train.features)[-1]), classes)
    check_predict(method.name, head, jax.tree.map(lambda leaf: leaf[0], variables))
    sides = [validation.features, *([validation.attacked] if "attacked" in method.needs else [])]
    labels = jnp.asarray(validation.labels, jnp.float32 if shared.multi_label else jnp.int32)
    scores = []
    for side in sides:
        logits = jax.vmap(method.predict, in_axes=(0, None))(variables, jnp.asarray(side, jnp.float32))
        scores.append([selection.score(shared.metric, found, labels, shared.multi_label) for found in logits])
    history = np.mean(np.asarray(scores, np.float32), axis=0)[None, :, None]
    chosen = np.where(np.isfinite(history[..., 0]), 0, -1)
    variables = {"params": jax.tree.map(lambda leaf: leaf[None], variables), "stats": {}}
    return FittedHeads(head, variables, history, history, None, chosen, {}, notes)


def check_predict(name: str, head: OwnHead, variables: Params) -> None:
    """Check the shape that `predict` gives for one seed's variables.

    Raises:
      DataError: it is not [N, C], or `predict` fails on features [N, D].
    """
    wanted = (2, head.classes)
    try:
        rows = jax.ShapeDtypeStruct((2, head.features), jnp.float32)
        found = jax.eval_shape(head.predict, variables, rows).shape
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"predict of method {name!r} failed on features [2, {head.features}] and its variables: {error}"
        ) from error
    if found != wanted:
        raise DataError(
            f"predict of method {name!r} gives {found} for features [2, {head.features}], {wanted} is needed"
        )


def _check_tree(name: str, variables: object, seeds: int) -> None:
    if not isinstance(variables, Mapping) or not jax.tree.leaves(variables):
        raise DataError(f"fit of method {name!r} returned a {type(variables).__name__}, a dict of arrays is needed")
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        names = [str(getattr(part, "key", "/")) for part in path]
        if any("/" in part for part in names):
            raise DataError(f"fit of method {name!r} returned a part called {names}, nested dicts of texts are needed")
        if np.shape(leaf)[:1] != (seeds,):
            shape = f"{np.shape(leaf)}, a leading axis of {seeds} seeds is needed"
            raise DataError(f"fit of method {name!r} returned {'/'.join(names)} of shape {shape}")
