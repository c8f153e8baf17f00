"""Heads on frozen features that bring their own solver: `Method.fit` and `Method.predict`, with their results
checked.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Shaped

from ranjax.core.errors import ConfigError, ConvergenceWarning, DataError
from ranjax.core.types import Params
from ranjax.methods import head_inputs, selection
from ranjax.methods.epochs import ADVICE
from ranjax.methods.head_fit import HeadFit
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import FittedHeads, fit_heads
from ranjax.methods.method_settings import Fit, HeadTraining
from ranjax.methods.table import Method
from ranjax.training import cpu


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

    The history is the validation metric: the mean of clean and attacked where the method needs attacked features, or
    what its `fit` says it chose by; -inf where a logit is not finite.

    Raises:
      ConfigError: the method needs an attack handle, and `shared` has none; class weights or a metric that are unknown.
      DataError: `fit` returned no nested dict of arrays with a leading axis of seeds, or `predict` no logits [N, C]; a
        class that training cannot learn, features that are not finite.
    """
    return _fit(method, settings, train, validation, classes=classes, seeds=seeds, shared=shared)[0]


@cpu.one_lapack_thread()
def _fit(
    method: Method,
    settings: object,
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    seeds: Sequence[int],
    shared: Fit,
) -> tuple[FittedHeads, str]:
    functions = method.functions
    assert functions is not None
    if "attack" in method.needs and shared.attack is None:
        expected = f"an attack handle, `encoder_attack(...)`: method {method.name!r} attacks images through the encoder"
        raise ConfigError("Fit.attack", None, expected)
    head_inputs.check_shared(shared, classes)
    train, validation = (
        head_inputs.as_named(name, Examples, given) for name, given in (("train", train), ("validation", validation))
    )
    if np.ndim(train.features) != 2:
        raise DataError(f"train features have shape {np.shape(train.features)}, [N, D] is needed: one encoder a fit")
    train, validation, notes = head_inputs.prepare([], train, validation, classes, shared.multi_label)
    train, validation = (_of_one_encoder(split) for split in (train, validation))
    fitter, predict = functions
    found = fitter(train, validation, settings, classes=classes, seeds=list(seeds), shared=shared)
    found = found if isinstance(found, HeadFit) else HeadFit(found)
    _check_tree(method.name, found.variables, len(seeds))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), found.variables)
    head = OwnHead(predict, int(np.shape(train.features)[-1]), classes)
    check_predict(method.name, head, jax.tree.map(lambda leaf: leaf[0], variables))
    sides = [validation.features, *([validation.attacked] if "attacked" in method.needs else [])]
    judge = functools.partial(_scores, predict, shared.metric, shared.multi_label)
    scores = [judge(variables, side, validation.labels) for side in sides]
    history = np.mean(np.asarray(scores, np.float32), axis=0)[None, :, None]
    clean = np.asarray(scores[0], np.float32)[None, :, None]
    if found.validation is not None:
        history = np.where(np.isfinite(history), np.float32(found.validation), history)
    chosen = np.where(np.isfinite(history[..., 0]), 0, -1)
    variables = {"params": jax.tree.map(lambda leaf: leaf[None], variables), "stats": {}}
    notes = (*notes, *found.notes, *filter(None, [found.unfinished]))
    return FittedHeads(head, variables, history, clean, None, chosen, {}, notes, found.facts), found.unfinished


def fit_method(
    method: Method,
    settings: object,
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    seeds: Sequence[int],
    shared: Fit,
    mesh: Mesh | None = None,
) -> FittedHeads:
    """Fit a head of any kind on features of one encoder: by `fit_heads`, or by its own `fit`; axes: 1 method, seeds.

    Raises:
      ConfigError, DataError: as `fit_heads` and `fit`.

    Warns:
      ConvergenceWarning: the best epoch was the last, or a fit or solver ended while its gradient was large; the notes
        of the result say so as well.
    """
    if isinstance(settings, HeadTraining):
        alone = replace(shared, attack=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below, by the method's name
            fitted = fit_heads([settings], train, validation, classes=classes, seeds=seeds, settings=alone, mesh=mesh)
        notes = fitted.unfinished(method.name, 0, settings.patience)
        for note in notes:
            warnings.warn(f"{note}; {ADVICE}", ConvergenceWarning, stacklevel=2)
        return replace(fitted, notes=(*fitted.notes, *notes))
    fitted, left = _fit(method, settings, train, validation, classes=classes, seeds=seeds, shared=shared)
    if left:
        warnings.warn(f"{method.name}: {left}", ConvergenceWarning, stacklevel=2)
    return fitted


def _of_one_encoder(split: Examples) -> Examples:
    attacked = None if split.attacked is None else np.asarray(split.attacked)[0]
    return Examples(np.asarray(split.features)[0], np.asarray(split.labels), attacked)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(
    predict: Callable[[Params, Array], Array],
    metric: str,
    multi_label: bool,
    variables: Params,
    features: Float[Array, "examples width"],
    labels: Shaped[Array, "..."],
) -> Float[Array, " seeds"]:
    logits = jax.vmap(predict, in_axes=(0, None))(variables, features)
    return jnp.stack([selection.score(metric, one, labels, multi_label) for one in logits])


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
