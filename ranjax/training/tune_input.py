"""What tuning refuses before anything compiles: a method that is none, settings, and data that do not fit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ranjax.errors import ConfigError, DataError, nearest
from ranjax.models.heads import HEADS
from ranjax.objectives.rectification import Weights
from ranjax.training import selection
from ranjax.training.adapt_input import check_classes, check_finite, check_labels, check_whole
from ranjax.training.tuned import Images, Task, Tune, Tuned

SCOPES = ("head", "lora", "full")
BY_HEAD = ("clean", "at", "ran")
BY_PROMPTS = ("tecoa", "fare", "pmg_aft")


def check(
    method: Tuned, train: Images, validation: Images, task: Task, width: int, seed: int, settings: Tune
) -> tuple[str, ...]:
    """Notes on what the validation split lacks but can do without.

    Args:
      method, train, validation, task, seed, settings: as of `ranjax.training.tune.tune`.
      width: D of the encoder's embeddings.

    Raises:
      ConfigError: the method, a setting or the seed, by its name.
      DataError: images, labels, embeddings or prompts, by split.
    """
    _check_method(method, settings)
    _check_settings(settings)
    check_whole("seed", seed, 0)
    classes = _check_task(task, width)
    for name, split in (("train", train), ("validation", validation)):
        _check_split(name, split, classes, width, settings.multi_label)
    if len(train.labels) < 2:
        raise DataError("train has 1 example, at least 2 are needed")
    return check_classes(train.labels, validation.labels, classes, settings.multi_label)


def _check_method(method: Tuned, settings: Tune) -> None:
    if not isinstance(method, Tuned):
        raise ConfigError("method", method, "a Tuned, e.g. TUNED['lora']")
    _one_of("method.scope", method.scope, SCOPES)
    _one_of("method.objective", method.objective, (*BY_HEAD, *BY_PROMPTS))
    heads = tuple(HEADS) if method.objective in BY_HEAD else ("prompts",)
    if method.head not in heads:
        allowed = f"one of {', '.join(heads)} where method.objective = {method.objective!r}"
        raise ConfigError("method.head", method.head, allowed, nearest(method.head, heads))
    if method.head == "prompts" and settings.multi_label:
        raise ConfigError("multi_label", True, "False where prompts classify: they compete for one label")
    unknown = [term for term in method.without if term not in Weights._fields]
    if unknown:
        raise ConfigError("method.without", unknown[0], f"some of {', '.join(Weights._fields)}")
    left = [term for term, weight in settings.weights._asdict().items() if weight and term not in method.without]
    if method.objective == "ran" and not left:
        raise ConfigError("method.without", method.without, "to leave at least one term with a weight above 0")


def _check_settings(settings: Tune) -> None:
    check_whole("epochs", settings.epochs, 1)
    # The key as the command line has it: a batch is set there.
    check_whole("adapt.tune_batch_size", settings.batch_size, 2)
    check_whole("rank", settings.rank, 1)
    check_whole("top_k", settings.top_k, 1)
    for name in ("learning_rate", "lora_rate", "head_rate"):
        check_finite(name, getattr(settings, name), above_zero=True)
    weights = {f"weights.{term}": weight for term, weight in settings.weights._asdict().items()}
    numbers = {name: getattr(settings, name) for name in ("weight_decay", "pull", "sigma")}
    for name, value in (weights | numbers).items():
        check_finite(name, value)
    _one_of("metric", settings.metric, selection.METRICS)
    for name in ("trainable", "targets"):
        for pattern in getattr(settings, name):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(name, pattern, f"a regular expression ({error})") from error


def _check_task(task: Task, width: int) -> int:
    """The number of classes."""
    shape = np.shape(task.prompts)
    if len(shape) != 2 or shape[1] != width:
        raise DataError(f"prompts have shape {shape}, [classes, {width}] is needed, {width} the encoder's width")
    finite = {"prompts": task.prompts, "the logit scale": task.scale}
    for name, values in finite.items():
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise DataError(f"{name} hold a number that is not finite")
    if task.weights is not None:
        weights = np.asarray(task.weights)
        if weights.shape != shape[:1] or not (np.isfinite(weights) & (weights > 0)).all():
            raise ConfigError("weights", weights.tolist(), f"{shape[0]} finite numbers above 0, one a class")
    return int(shape[0])


def _check_split(name: str, split: Images, classes: int, width: int, multi_label: bool) -> None:
    images = np.asarray(split.images)
    if images.ndim != 4 or not len(images):
        raise DataError(f"{name} images have shape {images.shape}, [N, H, W, C] is needed, N above 0")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"{name} images are {images.dtype}, uint8, or float in [0, 1], is needed")
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise DataError(f"{name} images are {images.dtype} from {low:g} to {high:g}, [0, 1] is needed, or uint8")
    check_labels(name, split.labels, len(images), classes, multi_label)
    original = np.asarray(split.original)
    if original.shape != (len(images), width):
        wanted = f"({len(images)}, {width}): one an image, of the encoder's width"
        raise DataError(f"{name} features have shape {original.shape}, allowed: {wanted}")
    bad = np.flatnonzero(~np.isfinite(original).all(axis=1))
    if bad.size:
        raise DataError(f"{name} features hold a number that is not finite (row {bad[0]}; {bad.size} rows in all)")


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(key, value, f"one of {', '.join(allowed)}", nearest(str(value), allowed))
