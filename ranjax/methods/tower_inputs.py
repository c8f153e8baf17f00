"""What tuning refuses before anything compiles: a method that is none, settings, and data that do not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks.pgd import PGD
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.types import Params
from ranjax.methods.head_inputs import (
    as_named,
    check_classes,
    check_fields,
    check_labels,
    check_weights,
    check_whole,
)
from ranjax.methods.method_settings import TowerTraining
from ranjax.methods.tower_methods import ImageEncoder, Images, Task, TowerFit
from ranjax.models import input_filter
from ranjax.models.dual_encoder import DualEncoderFunctions
from ranjax.models.heads import HEADS

BY_HEAD = ("clean", "at", "ran")


def as_images(split: str, given: object) -> Images:
    """`Images`, or a plain (images, labels, original), as `Images` of arrays; `as_named` says what it raises."""
    return Images(*map(np.asarray, as_named(split, Images, given)))


def without_labels(method: object, given: object, classes: int) -> object:
    """Return training images of FARE whose labels are None with some in their place, which its objective never reads;
    anything else as it is.
    """
    if getattr(method, "objective", "") != "fare" or not isinstance(given, (tuple, list)) or len(given) != 3:
        return given
    images, labels, original = given
    return Images(images, np.arange(len(images), dtype=np.int32) % classes if labels is None else labels, original)


def as_task(given: object) -> Task:
    """`Task`, or a plain (prompts, scale[, weights]), as `Task`; `as_named` says what it raises."""
    task = as_named("the task", Task, given)
    return task._replace(weights=None if task.weights is None else np.asarray(task.weights))


def check(
    functions: ImageEncoder,
    params: Params,
    method: TowerTraining,
    train: Images,
    validation: Images,
    task: Task,
    seed: int,
    settings: TowerFit,
) -> tuple[str, ...]:
    """Return notes on what the validation split lacks; arguments as of `ranjax.methods.tower_training.tune`.

    Raises:
      ConfigError: the encoder, the method, a setting or the seed, by its name.
      DataError: images, labels, embeddings or prompts, by split.
    """
    if not isinstance(settings, TowerFit):
        raise ConfigError("settings", settings, "a TowerFit, e.g. TowerFit(epochs=5)")
    _check_method(method, settings)
    check_fields("", settings)
    # The key as the command line has it: a batch is set there.
    check_whole("adapt.tower.batch_size", settings.batch_size, 2)
    if not isinstance(settings.attack, PGD):
        raise ConfigError("attack", settings.attack, "a pgd.PGD, e.g. PGD('4/255', '2/255', 2, keep='last')")
    check_whole("seed", seed, 0)
    width = _width(functions)
    classes = _check_task(task, width, method.head == "prompts")
    for name, split in (("train", train), ("validation", validation)):
        _check_split(name, split, classes, width, settings.multi_label)
    if train.images.shape[1:] != validation.images.shape[1:]:
        shapes = f"{train.images.shape[1:]} and {validation.images.shape[1:]}"
        raise DataError(f"images of train and validation are of [H, W, C] {shapes}, one shape is needed")
    if len(train.labels) < 2:
        raise DataError("train has 1 example, at least 2 are needed")
    if not isinstance(functions, DualEncoderFunctions):
        _check_foreign(functions, params, train.images.shape[1:], width, settings.sigma if method.filtered else 0.0)
    return check_classes(train.labels, validation.labels, classes, settings.multi_label)


def _width(functions: object) -> int:
    """D of the encoder's embeddings, of an object that has what `tune` needs."""
    width = getattr(getattr(functions, "config", None), "embed_dim", None)
    callable_ = callable(getattr(functions, "image_features", None))
    if not callable_ or width is None or type(functions).__hash__ is None:
        allowed = "a hashable object with image_features(params, images) and config.embed_dim, as models.split gives"
        raise ConfigError("functions", functions, allowed)
    check_whole("functions.config.embed_dim", width, 1)
    return int(width)


def _check_foreign(functions: ImageEncoder, params: Params, shape: tuple[int, ...], width: int, sigma: float) -> None:
    """Refuses an encoder of other people's that gives another width, or would leave out the filter in silence."""
    features = jax.jit(functions.image_features)
    picture = jnp.asarray(np.random.default_rng(0).random((1, *shape)), jnp.float32)
    plain = features(params, picture)
    if plain.shape != (1, width):
        allowed = f"one whose image_features gives {(1, width)} for one image, not {plain.shape}"
        raise ConfigError("functions", functions, allowed)
    if not sigma:
        return
    behind = {**params, input_filter.NAME: input_filter.gaussian(sigma)}
    if np.array_equal(features(behind, picture), plain):
        allowed = (
            f"False, or an encoder that begins with images = input_filter.apply(params[{input_filter.NAME!r}], images) "
            f"where params hold it: this one gives the same with the filter and without"
        )
        raise ConfigError("method.filtered", True, allowed)


def _check_method(method: TowerTraining, settings: TowerFit) -> None:
    if not isinstance(method, TowerTraining):
        raise ConfigError("method", method, "a TowerTraining, e.g. METHODS['lora'].settings")
    check_fields("method", method)
    heads = tuple(HEADS) if method.objective in BY_HEAD else ("prompts",)
    if method.head not in heads:
        expected = f"one of {', '.join(heads)} where method.objective = {method.objective!r}"
        raise ConfigError("method.head", method.head, expected, nearest(method.head, heads))
    if method.head == "prompts" and settings.multi_label:
        raise ConfigError("multi_label", True, "False where prompts classify: they compete for one label")
    if method.objective == "ran" and not method.terms:
        raise ConfigError("method", method, "at least one weight above 0")


def _check_task(task: Task, width: int, by_prompts: bool) -> int:
    """The number of classes."""
    shape = np.shape(task.prompts)
    if len(shape) != 2 or shape[1] != width:
        raise DataError(f"prompts have shape {shape}, [classes, {width}] is needed, {width} the encoder's width")
    for name, values in (("prompts", task.prompts), ("the logit scale", task.scale)):
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise DataError(f"{name} hold a number that is not finite")
    empty = np.flatnonzero(~np.any(np.asarray(task.prompts), axis=1))
    if by_prompts and empty.size:
        raise DataError(f"the prompt of class {empty[0]} is 0 throughout: it has no direction to classify by")
    if task.weights is not None:
        check_weights("weights", task.weights, shape[0])
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
