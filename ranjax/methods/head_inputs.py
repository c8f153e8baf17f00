"""What frozen-feature training refuses, before anything compiles, and in which form it takes the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.settings import DataclassInstance
from ranjax.methods.method_settings import Fit, HeadTraining
from ranjax.objectives.rectification import DEFENCE

T = TypeVar("T", bound=tuple)


class Examples(NamedTuple):
    """Cached features of a split.

    Attributes:
      features: f32[N, D], or f32[R, N, D] of R encoders.
      labels: i32[N] in [0, C), or multi-hot [N, C].
      attacked: the same examples' features under attack, shape of `features`, or None.
    """

    features: Any
    labels: Any
    attacked: Any = None


def check_settings(methods: Sequence[HeadTraining], seeds: Sequence[int], settings: Fit, classes: int) -> None:
    """Raises ConfigError, naming the setting, where one is refused."""
    if not isinstance(settings, Fit):
        raise ConfigError("settings", settings, "a Fit, e.g. Fit(epochs=30)")
    listed = isinstance(methods, Sequence) and not isinstance(methods, str) and len(methods) > 0
    if not listed or not all(isinstance(method, HeadTraining) for method in methods):
        raise ConfigError("methods", methods, "a list of HeadTraining, at least one, e.g. [METHODS['lp'].settings]")
    listed = not isinstance(seeds, (str, int)) and len(seeds) > 0
    if not listed or not all(map(_is_whole, seeds)) or len(set(seeds)) != len(seeds):
        raise ConfigError("seeds", seeds, "a list of whole numbers, at least one, all different, e.g. range(5)")
    check_whole("classes", classes, 2 - settings.multi_label, "; 1 is allowed where multi_label")
    for index, method in enumerate(methods):
        check_fields(f"methods[{index}]", method)
        if not method.terms:
            raise ConfigError(f"methods[{index}]", method, "at least one weight above 0: there is no loss without")
        for name in ("head", "top_k", "svd_every", "epochs_share", "standardised", "patience", "most_hidden"):
            if getattr(method, name) != getattr(methods[0], name):
                allowed = f"{getattr(methods[0], name)!r}, as methods[0] has: one call fits methods of one {name}"
                raise ConfigError(f"methods[{index}].{name}", getattr(method, name), allowed)
    check_shared(settings, classes)


def check_shared(settings: Fit, classes: int) -> None:
    """Raise ConfigError, naming the setting of a `Fit` that is refused."""
    check_fields("", settings)
    if settings.parallel is not None:
        check_whole("parallel", settings.parallel, 1, ", or None")
    if isinstance(settings.class_weights, tuple):
        check_weights("class_weights", settings.class_weights, classes)
    elif settings.class_weights not in ("none", "balanced"):
        raise ConfigError("class_weights", settings.class_weights, "'none', 'balanced' or one number a class")


def check_whole(key: str, value: object, least: int, why: str = "") -> None:
    """Raises ConfigError where a value is no whole number of at least `least`."""
    if not _is_whole(value) or value < least:
        raise ConfigError(key, value, f"a whole number of at least {least}{why}")


def check_weights(key: str, weights: object, classes: int) -> None:
    """Raise ConfigError where weights are not one finite number above 0 a class."""
    array = np.asarray(weights)
    numbers = array.shape == (classes,) and jnp.issubdtype(array.dtype, jnp.number)
    if not numbers or not (np.isfinite(array) & (array > 0)).all():
        raise ConfigError(key, array.tolist(), f"{classes} finite numbers above 0, one a class")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_fields(key: str, settings: DataclassInstance) -> None:
    """Check every field that `setting` declares by its type and by the check declared there.

    Raises:
      ConfigError: names the field, e.g. ``methods[0].learning_rate``.
    """
    words = {int: "a whole number", float: "a finite number", bool: "True or False", tuple: "a tuple of texts"}
    for field in dataclasses.fields(settings):
        if "meaning" not in field.metadata:
            continue
        value, kind = getattr(settings, field.name), type(field.default)
        if kind is float:
            number = np.asarray(value)
            fits = number.ndim == 0 and jnp.issubdtype(number.dtype, jnp.number) and bool(np.isfinite(number))
        else:
            # Pixel units may be a number in place of a text: the field's own check says whether they are.
            fits = _is_whole(value) if kind is int else isinstance(value, (str, int, float) if kind is str else kind)
        expected = field.metadata["check"](value) if fits else ""
        if expected or not fits:
            name = f"{key}.{field.name}" if key else field.name
            raise ConfigError(name, value, expected or words.get(kind, "a text"))


def prepare(
    methods: Sequence[HeadTraining], train: Examples, validation: Examples, classes: int, multi_label: bool
) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Both splits as f32[R, N, D] and i32[N] or f32[N, C], checked, and notes on what they lack but can do without.

    Raises:
      ConfigError: a method that needs attacked features which are not given.
      DataError: as `ranjax.methods.head_training.fit_heads` says.
    """
    for index, method in enumerate(methods):
        for name in (*DEFENCE, "attacked_share"):
            split, given = ("train", train) if name in DEFENCE else ("validation", validation)
            if getattr(method, name) and given.attacked is None:
                raise ConfigError(
                    f"methods[{index}].{name}", getattr(method, name), f"0 where {split}.attacked is None"
                )
    train = _as_arrays("train", train, classes, multi_label)
    validation = _as_arrays("validation", validation, classes, multi_label)
    if validation.features.shape[::2] != train.features.shape[::2]:
        raise DataError(
            f"validation features are of (encoders, width) {validation.features.shape[::2]}, "
            f"training features of {train.features.shape[::2]}"
        )
    if train.features.shape[1] < 2:
        raise DataError("train has 1 example, at least 2 are needed")
    return train, validation, check_classes(train.labels, validation.labels, classes, multi_label)


def as_named(what: str, kind: type[T], given: object) -> T:
    """A named tuple of a kind, such as `Examples`, or a plain tuple or list of the same parts, as that kind.

    Raises:
      DataError: it is something else; says what it should be.
    """
    fields, optional = kind._fields, kind._field_defaults  # type: ignore[attr-defined]
    if not isinstance(given, (tuple, list)) or not len(fields) - len(optional) <= len(given) <= len(fields):
        found = f"{type(given).__name__} of {len(given)}" if hasattr(given, "__len__") else type(given).__name__
        needed = f"{kind.__name__}({', '.join(name for name in fields if name not in optional)})"
        beside = f" or with {', '.join(optional)}" if optional else ""
        raise DataError(f"{what} is a {found}, {needed}{beside} is needed")
    return kind(*given)


def _as_arrays(split: str, examples: Examples, classes: int, multi_label: bool) -> Examples:
    features = _features(f"{split} features", examples.features)
    attacked = None
    if examples.attacked is not None:
        attacked = _features(f"attacked {split} features", examples.attacked)
        if attacked.shape != features.shape:
            raise DataError(f"attacked {split} features have shape {attacked.shape}, the clean ones {features.shape}")
    labels = check_labels(split, examples.labels, features.shape[1], classes, multi_label)
    return Examples(features, np.asarray(labels, np.float32 if multi_label else np.int32), attacked)


def check_labels(split: str, labels: ArrayLike, count: int, classes: int, multi_label: bool) -> np.ndarray:
    """The labels of `count` examples as an array: integers in [0, classes), or multi-hot [N, classes].

    Raises:
      DataError: they are something else; names the split.
    """
    labels = np.asarray(labels)
    wanted = (count, classes) if multi_label else (count,)
    if labels.shape != wanted:
        raise DataError(f"{split} labels have shape {labels.shape}, {wanted} is needed")
    if multi_label:
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"{split} labels hold {labels[~np.isin(labels, (0, 1))][0]:g}, multi-hot ones are 0 or 1")
        return labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{split} labels are {labels.dtype}, integers are needed")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"{split} label {labels[outside[0]]} in row {outside[0]} is not in 0..{classes - 1}; "
            "leave out rows that are not part of the task"
        )
    return labels


def _features(name: str, values: ArrayLike) -> Float[np.ndarray, "encoders batch width"]:
    array = np.asarray(values)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{name} have shape {array.shape}, [N, D] or [encoders, N, D] is needed, none of them 0")
    if not jnp.issubdtype(array.dtype, jnp.floating):  # NumPy does not count bfloat16
        raise DataError(f"{name} are {array.dtype}, floating-point numbers are needed")
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        rows = np.unique(bad[:, -2])
        raise DataError(f"{name} hold {array[tuple(bad[0])]} (row {bad[0][-2]}; {rows.size} rows in all)")
    if array.dtype == np.float64 and np.abs(array).max() > np.finfo(np.float32).max:
        raise DataError(f"{name} hold {np.abs(array).max():g}, more than float32 can hold")
    return np.asarray(array.reshape((-1, *array.shape[-2:])), np.float32)


def check_classes(train: ArrayLike, validation: ArrayLike, classes: int, multi_label: bool) -> tuple[str, ...]:
    """Notes on classes without validation examples, of labels i[N] or multi-hot [N, C].

    Raises:
      DataError: a class that training cannot learn, or a validation split that tells no two apart.
    """
    train, validation = np.asarray(train), np.asarray(validation)
    if multi_label:
        return _check_multi_label(train, validation)
    absent = np.flatnonzero(np.bincount(train, minlength=classes) == 0)
    if absent.size:
        raise DataError(f"class {absent[0]} has no training examples")
    seen = np.bincount(validation, minlength=classes)
    if (seen > 0).sum() < 2:
        raise DataError(f"validation holds class {seen.argmax()} only, at least two classes are needed")
    return tuple(f"class {c} has no validation examples and does not count there" for c in np.flatnonzero(seen == 0))


def _check_multi_label(train: np.ndarray, validation: np.ndarray) -> tuple[str, ...]:
    for share, word in ((0.0, "no"), (1.0, "only")):
        one_sided = np.flatnonzero(train.mean(0) == share)
        if one_sided.size:
            raise DataError(f"class {one_sided[0]} has {word} positive training examples")
    defined = (validation.mean(0) > 0) & (validation.mean(0) < 1)
    if not defined.any():
        raise DataError("in validation no class has both positive and negative examples")
    word = "lacks positive or negative validation examples and does not count there"
    return tuple(f"class {c} {word}" for c in np.flatnonzero(~defined))
