"""Check an attack's input before anything compiles: a range, a unit or a shape that would mislead without a word.

Of traced arrays (inside `jax.jit`) shape and dtype are checked, and the values are taken on trust. So call an attack
through `jitted`, or check the images before.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Key, PyTree, Shaped

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.pixels import pixel_units

NORMS = ("linf", "l2")
ALL_NORMS = (*NORMS, "l1")

Length = Any
"""A length in pixel units: a number, a fraction, text such as "8/255", or an array per example or per pixel."""
Images = Shaped[Array | np.ndarray, "batch *pixels"]
"""Images as a caller gives them: f32 or f64 [batch, height, width, channels] in [0, 1], any layout with batch first."""
Pixels = Float[Array, "batch *pixels"]
PerExample = Float[Array, "batch"]
Flags = Bool[Array, "batch"]
Keys = Key[Array, "batch"]
Number = Integer[Array, ""]

T = TypeVar("T")


_noted: ContextVar[list[tuple[object, int]] | None] = ContextVar("noted", default=None)


@contextlib.contextmanager
def noting_labels() -> Iterator[list[tuple[object, int]]]:
    """Collect the traced labels that losses meet inside, each with the number of classes that it has to fit."""
    notes: list[tuple[object, int]] = []
    token = _noted.set(notes)
    try:
        yield notes
    finally:
        _noted.reset(token)


def note_labels(labels: object, classes: int) -> None:
    """Tell `noting_labels`, where one is open, that traced labels are classes 0 to `classes` - 1."""
    notes = _noted.get()
    if notes is not None and is_traced(labels):
        notes.append((labels, classes))


def validate_labels(labels: ArrayLike, classes: int) -> None:
    """Raise DataError for labels i32[B] of which one is no class."""
    held = np.asarray(labels)
    if held.size and (held.min() < 0 or held.max() >= classes):
        rows = np.flatnonzero((held < 0) | (held >= classes))
        expected = f"0 to {classes - 1}, the classes of the logits"
        raise DataError(
            f"labels lie in {held.min()} to {held.max()}, expected {expected}. Rows {rows[:8].tolist()}"
            f"{' and more' if len(rows) > 8 else ''} hold another."
        )


def is_traced(value: object) -> bool:
    """Return True for an abstract array inside `jit`, `vmap` or `grad`, which has no value yet."""
    return isinstance(value, jax.core.Tracer)


def validate_length(value: Length, key: str, norm: str, positive: bool = False) -> Length:
    """Return a length as a float, or as it is where it is an array.

    Raises:
      ConfigError: negative, zero where `positive`, not finite, no number, or (linf) above 1, as if written in 0-255.
    """
    if is_traced(value):
        return value
    if np.ndim(value) == 0:
        length = pixel_units(value.item() if isinstance(value, (np.ndarray, jax.Array)) else value, key)
        low = high = length
    else:
        length, low, high = value, float(np.min(value)), float(np.max(value))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(key, value, "finite numbers in pixel units")
    if low < 0 or (positive and low == 0):
        raise ConfigError(key, value, "above 0" if positive else "0 or more")
    if norm == "linf" and high > 1:
        expected = "at most 1, in pixel units of images in [0, 1]"
        raise ConfigError(key, value, expected, "Written in 0-255? Divide by 255.")
    return length


def validate_choice(value: str, key: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError, with the nearest name, where `value` is none of `choices`."""
    if value not in choices:
        raise ConfigError(key, value, f"one of {', '.join(choices)}", nearest(str(value), choices))


def validate_count(value: int, key: str, least: int) -> None:
    """Raise ConfigError where `value` is no integer or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(key, value, f"an integer, {least} or more")


def radius(epsilon: Length, eps: Length) -> Length:
    """Return the radius that settings were given, under either of its names.

    Raises:
      ConfigError: none was given, or both.
    """
    if (epsilon is None) == (eps is None):
        raise ConfigError("epsilon", epsilon, "a radius in pixel units, once: as epsilon or as eps")
    return eps if epsilon is None else epsilon


def validate_search(
    settings: PyTree, starts: tuple[str, ...], eps: Length = None, norms: tuple[str, ...] = NORMS
) -> None:
    """Check the fields that PGD and APGD share, and turn `epsilon` of the frozen dataclass into a float.

    Raises:
      ConfigError: a value that is refused, by its name.
    """
    validate_choice(settings.norm, "norm", norms)
    validate_choice(settings.start, "start", starts)
    validate_count(settings.steps, "steps", 0)
    validate_count(settings.restarts, "restarts", 1)
    if settings.restarts > 1 and settings.start == "none":
        raise ConfigError("restarts", settings.restarts, "1 where start is 'none'", "Every restart would be the same.")
    chosen = radius(settings.epsilon, eps)
    object.__setattr__(settings, "epsilon", validate_length(chosen, "epsilon", settings.norm))


def example_names(ids: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the different names of `count` examples; of None "0", "1", ...

    Raises:
      DataError: another number of them, or two alike.
    """
    names = tuple(map(str, range(count))) if ids is None else tuple(ids)
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{len(names)} ids, {len(set(names))} of them different, for {count} images: different ids are needed"
        )
    return names


def validate_images(images: Images, rank: int | None = None) -> Pixels:
    """Return the images as a JAX array.

    Args:
      images: float32 or float64 in [0, 1], the batch first.
      rank: the number of axes to insist on; None asks for a batch axis and one more at least.

    Raises:
      DataError: a list, integers (0-255?), half precision, a wrong rank, an empty batch, NaN, or values outside [0, 1].
    """
    if isinstance(images, list | tuple):
        raise DataError("images are a list, expected an array: np.asarray(images, np.float32).")
    shape, dtype = jnp.shape(images), jnp.result_type(images)
    if dtype not in (jnp.float32, jnp.float64):
        hint = " Divide by 255 on purpose." if jnp.issubdtype(dtype, jnp.integer) else ""
        raise DataError(f"images have dtype {dtype}, expected float32 or float64 with values in [0, 1].{hint}")
    if (rank is not None and len(shape) != rank) or len(shape) < 2:
        expected = f"{rank} axes" if rank is not None else "a batch axis and at least one more, e.g. [B, H, W, C]"
        raise DataError(f"images have shape {shape}, expected {expected}. A single image needs images[None].")
    if math.prod(shape) == 0:
        raise DataError(f"images have shape {shape}: there is nothing to attack.")
    if not is_traced(images):
        values = np.asarray(images)
        low, high = float(values.min()), float(values.max())
        if math.isnan(low):
            rows = np.flatnonzero(np.isnan(values.reshape(shape[0], -1)).any(1))
            raise DataError(f"images hold NaN, in rows {rows[:8].tolist()}{' and more' if len(rows) > 8 else ''}.")
        if low < 0 or high > 1:
            hint = "Normalisation (mean, std) belongs to the model, so that epsilon keeps its unit."
            raise DataError(f"images lie in [{low:.4g}, {high:.4g}], expected [0, 1]. {hint}")
    return images if isinstance(images, jax.Array) else jax.device_put(np.asarray(images))


def validate_keys(keys: ArrayLike, batch: int) -> Keys:
    """Return typed random keys, one per example: key[batch].

    Raises:
      DataError: integers, another shape, or one key alone.
    """
    dtype, shape = getattr(keys, "dtype", None), getattr(keys, "shape", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or shape != (batch,):
        found = type(keys).__name__ if dtype is None else f"{dtype} of shape {shape}"
        origin = f"ranjax.core.keys.example_keys or jax.random.split(key, {batch})"
        alone = " One image without a batch axis? It needs images[None]." if shape in ((), (1,)) and batch > 1 else ""
        raise DataError(
            f"keys are {found}, expected typed keys of shape ({batch},), one per example, from {origin}.{alone}"
        )
    return jnp.asarray(keys)


def validate_settings(settings: object, names: tuple[str, ...], expected: str) -> None:
    """Raise ConfigError where `settings` are a preset, or lack one of the fields `names`."""
    preset = hasattr(settings, "settings")
    if preset or not all(hasattr(settings, name) for name in names):
        hint = "Of a preset, pass its .settings, or call its .jitted(loss)." if preset else ""
        raise ConfigError("settings", f"<{type(settings).__name__}>", expected, hint)


def broadcast_per_example(value: ArrayLike, images: Pixels, key: str) -> Array:
    """Return `value` with the dtype and rank of the images, in a shape that broadcasts against them.

    Args:
      value: a number, an array of shape [] or [1], per pixel ``images.shape[1:]`` (or 1s), per example [B, 1, 1, 1] or
        both.
      images: f32[B, ...].
      key: the name for errors.

    Raises:
      ConfigError: any other shape; [B] is refused because it may as well mean channels.
    """
    array = jnp.asarray(value, images.dtype)
    shape = array.shape
    if shape in ((), (1,)):
        return array.reshape((1,) * images.ndim)
    full = (1, *shape) if len(shape) == images.ndim - 1 else shape
    if len(full) != images.ndim or any(a not in (1, b) for a, b in zip(full, images.shape)):
        expected = f"a number, or a shape that broadcasts to {images.shape[1:]} or {images.shape} axis by axis"
        raise ConfigError(f"{key}.shape", shape, expected, "Per example: reshape to [B, 1, 1, 1].")
    return array.reshape(full)


def broadcast_radius(value: ArrayLike, norm: str, images: Pixels) -> Array:
    """Return the radius of a ball as `broadcast_per_example` does.

    Raises:
      ConfigError: a shape that does not broadcast; under l2 and l1 no one radius an image, or one that all of [0, 1]
        lies in.
    """
    epsilon = broadcast_per_example(value, images, "epsilon")
    if norm == "linf":
        return epsilon
    if any(n != 1 for n in epsilon.shape[1:]):
        expected = f"one radius per example under {norm}"
        raise ConfigError("epsilon.shape", epsilon.shape, expected, "A mask exempts pixels.")
    numbers = math.prod(images.shape[1:])
    most = math.sqrt(numbers) if norm == "l2" else numbers
    if not is_traced(value) and float(np.max(np.asarray(value))) > most:
        what = f"the root of an image's {numbers} numbers" if norm == "l2" else "an image's numbers"
        expected = f"at most {most:.4g}, {what}"
        raise ConfigError("epsilon", value, expected, "Written in 0-255? Divide by 255.")
    return epsilon


def traced_fields(*names: str) -> Callable[[type[T]], type[T]]:
    """Register a settings dataclass as a pytree whose leaves are the fields `names`; the others are static.

    Unflattening goes around `__init__`: JAX puts tracers and placeholders there, which its checks must not see.
    """

    def register(kind: type[T]) -> type[T]:
        def flatten(settings: T) -> tuple[tuple[object, ...], tuple[tuple[str, object], ...]]:
            static = tuple(item for item in vars(settings).items() if item[0] not in names)
            return tuple(getattr(settings, name) for name in names), static

        def unflatten(static: tuple[tuple[str, object], ...], leaves: tuple[object, ...]) -> T:
            settings = object.__new__(kind)
            vars(settings).update(zip(names, leaves), **dict(static))
            return settings

        jax.tree_util.register_pytree_node(kind, flatten, unflatten)
        return kind

    return register


def check_rows(table: Array, tokens: Array, mask: Array, words: Array) -> None:
    """Raise ValueError, before anything compiles, where arrays as of `text.substitute` do not fit each other."""
    if table.ndim != 2:
        raise ValueError(f"the token table must be [V, W], got shape {table.shape}")
    if tokens.ndim != 2 or not tokens.shape == mask.shape == words.shape:
        shapes = f"{tokens.shape}, {mask.shape}, {words.shape}"
        raise ValueError(f"tokens, mask and words must all be [B, L], got shapes {shapes}")
    for name, array, dtype in (("mask", mask, jnp.bool_), ("tokens", tokens, jnp.int32), ("words", words, jnp.int32)):
        if array.dtype != dtype:
            raise ValueError(f"{name} must be {jnp.dtype(dtype)}, got {array.dtype}")
    check_vocabulary(table, tokens, "tokens")
    low, high = _extent(words)
    if low < -1 or high >= words.shape[1]:
        slots = f"slots from 0 to {words.shape[1] - 1} in rows of {words.shape[1]} tokens"
        raise ValueError(f"words must be {slots}, or -1 on special tokens and padding, got {low} to {high}")


def check_vocabulary(table: Array, tokens: Array, name: str) -> None:
    """Raise ValueError for tokens that have no row in the token table; traced ones are taken on trust."""
    low, high = _extent(tokens)
    if low < 0 or high >= table.shape[0]:
        expected = f"0 to {table.shape[0] - 1}, the rows of the token table"
        raise ValueError(f"{name} must be {expected}, got {low} to {high}; is this the tokenizer of another model?")


def _extent(array: Array) -> tuple[int, int]:
    """Return the least and the largest entry; 0 and 0 where the array is traced or empty."""
    if is_traced(array) or not array.size:
        return 0, 0
    held = np.asarray(array)  # not by jnp: inside jit that would trace even what is known
    return int(held.min()), int(held.max())
