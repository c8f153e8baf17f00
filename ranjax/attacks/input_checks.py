"""What an image attack refuses, before anything compiles: a value range, a unit or a shape that would silently mislead.

Every check works on concrete arrays; on traced ones (inside ``jax.jit``) what can be known there, shape and dtype, is
checked, and the values are taken on trust. So call an attack through ``image.jitted`` or check the images before.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.pixels import pixel_units

NORMS = ("linf", "l2")


def is_traced(value: Any) -> bool:
    """True for what has no value yet: an abstract array inside ``jit``, ``vmap`` or ``grad``."""
    return isinstance(value, jax.core.Tracer)


def validate_length(value: Any, key: str, norm: str, positive: bool = False) -> Any:
    """`value` as a float (or as it is, where it is an array), refused where negative or, under linf, above 1.

    Raises:
      ConfigError: negative, zero where `positive`, not finite, or written in 0-255.
    """
    if is_traced(value):
        return value
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0:
        low, high = float(np.min(value)), float(np.max(value))
        length = value
    else:
        length = pixel_units(value.item() if isinstance(value, (np.ndarray, jax.Array)) else value, key)
        low = high = length
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(key, value, "finite numbers in pixel units")
    if low < 0 or (positive and low <= 0):
        raise ConfigError(key, value, "above 0" if positive else "0 or more")
    if norm == "linf" and high > 1:
        raise ConfigError(
            key, value, "at most 1, in pixel units of images in [0, 1]", "Written in 0-255? Divide by 255."
        )
    return length


def validate_choice(value: str, key: str, choices: tuple[str, ...]) -> None:
    """Raises ConfigError, with the nearest name, where `value` is none of `choices`."""
    if value not in choices:
        raise ConfigError(key, value, f"one of {', '.join(choices)}", nearest(str(value), choices))


def validate_count(value: int, key: str, least: int) -> None:
    """Raises ConfigError where `value` is no integer or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(key, value, f"an integer, {least} or more")


def validate_images(images: Any, rank: int | None = None) -> jax.Array:
    """The images as a JAX array, float32 or float64, [B, ...] in [0, 1].

    Args:
      images: f32[B, H, W, C] (any layout with the batch first does), numpy or JAX.
      rank: the number of axes to insist on; None asks for a batch axis and one more at least.

    Raises:
      DataError: integers (0-255?), half precision, a wrong rank, an empty batch, NaN, or values outside [0, 1].
    """
    if not isinstance(images, (np.ndarray, jax.Array)):
        raise DataError(
            f"images are {type(images).__name__}, allowed: a NumPy or JAX array, float32 or float64, batch first."
        )
    if images.dtype == object:
        raise DataError("images have dtype object, allowed: float32 or float64 with values in [0, 1].")
    shape, dtype = jnp.shape(images), jnp.result_type(images)
    if dtype not in (jnp.float32, jnp.float64):
        word = " Divide by 255 on purpose." if jnp.issubdtype(dtype, jnp.integer) else ""
        raise DataError(f"images have dtype {dtype}, allowed: float32 or float64 with values in [0, 1].{word}")
    if (rank is not None and len(shape) != rank) or len(shape) < 2:
        allowed = f"{rank} axes" if rank is not None else "a batch axis and at least one more, e.g. [B, H, W, C]"
        raise DataError(f"images have shape {shape}, allowed: {allowed}. A single image needs images[None].")
    if math.prod(shape) == 0:
        raise DataError(f"images have shape {shape}: there is nothing to attack.")
    if is_traced(images):
        return jnp.asarray(images)
    values = np.asarray(images)
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or math.isnan(high):
        rows = np.flatnonzero(np.isnan(values.reshape(shape[0], -1)).any(1))
        raise DataError(f"images hold NaN, in rows {rows[:8].tolist()}{' and more' if len(rows) > 8 else ''}.")
    if low < 0 or high > 1:
        raise DataError(
            f"images lie in [{low:.4g}, {high:.4g}], allowed: [0, 1]. Normalisation (mean, std) belongs to the "
            "model, so that epsilon keeps its unit."
        )
    return jnp.asarray(images)


def validate_keys(keys: Any, batch: int) -> None:
    """Raises DataError where `keys` are not typed random keys, one per example: key[B]."""
    dtype = getattr(keys, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or keys.shape != (batch,):
        seen = f"{dtype} of shape {getattr(keys, 'shape', None)}" if dtype is not None else type(keys).__name__
        raise DataError(
            f"keys are {seen}, allowed: typed keys of shape ({batch},), one per example, from "
            f"ranjax.core.keys.example_keys or jax.random.split(key, {batch})."
        )


def validate_initial(initial: Any, images: jax.Array) -> jax.Array:
    """A start in the shape and dtype of the images.

    Raises:
      DataError: another shape, or NaN.
    """
    array = jnp.asarray(initial, images.dtype)
    if array.shape != images.shape:
        raise DataError(f"initial has shape {array.shape}, allowed: that of the images, {images.shape}.")
    if not is_traced(array) and bool(jnp.any(jnp.isnan(array))):
        raise DataError("initial holds NaN.")
    return array


def validate_settings(settings: Any, names: tuple[str, ...], allowed: str) -> None:
    """Raises ConfigError where `settings` are a preset or those of something else, that lack one of the fields
    `names`."""
    preset = hasattr(settings, "settings")
    if not preset and all(hasattr(settings, name) for name in names):
        return
    hint = "Of a preset, pass its .settings, or call its .jitted(loss)." if preset else ""
    raise ConfigError("settings", f"<{type(settings).__name__}>", allowed, hint)


def spread(value: Any, images: jax.Array, key: str) -> jax.Array:
    """`value` with the dtype of `images` and a shape that broadcasts against them without a change of rank.

    Args:
      value: a number, an array of shape [] or [1], per pixel ``images.shape[1:]`` (or 1s), per example [B, 1, 1, 1] or
        both.

    Raises:
      ConfigError: any other shape; [B] is refused because it may as well mean channels.
    """
    array = jnp.asarray(value, images.dtype)
    shape = array.shape
    if shape in ((), (1,)):
        return array.reshape((1,) * images.ndim)
    full = (1, *shape) if len(shape) == images.ndim - 1 else shape
    if len(full) != images.ndim or any(a not in (1, b) for a, b in zip(full, images.shape)):
        allowed = f"a number, or a shape that broadcasts to {images.shape[1:]} or {images.shape} axis by axis"
        raise ConfigError(f"{key}.shape", shape, allowed, "Per example: reshape to [B, 1, 1, 1].")
    return array.reshape(full)


def validate_l2(value: Any, epsilon: jax.Array, images: jax.Array) -> None:
    """Raises ConfigError where an L2 ball has no one radius, or one that all of [0, 1] lies within.

    Args:
      value: the radius as it was given, and `epsilon`: as spread over `images`.
    """
    if any(n != 1 for n in epsilon.shape[1:]):
        allowed = "one radius per example under l2"
        raise ConfigError("epsilon.shape", epsilon.shape, allowed, "Use a mask to exempt pixels.")
    numbers = math.prod(images.shape[1:])
    if not is_traced(value) and float(np.max(np.asarray(value))) > math.sqrt(numbers):
        allowed = f"at most {math.sqrt(numbers):.4g}, the root of an image's {numbers} numbers"
        raise ConfigError("epsilon", value, allowed, "Written in 0-255? Divide by 255.")


def validate_decay(value: Any) -> None:
    """Raises ConfigError where `momentum` is neither None nor a number, 0 or more; a traced one is taken on trust."""
    if value is None or is_traced(value):
        return
    number = not isinstance(value, (bool, str)) and np.ndim(value) == 0 and np.isreal(value)
    if not number or not value >= 0:
        raise ConfigError("momentum", value, "None, or 0 or more")


def validate_restarts(restarts: int, start: str) -> None:
    """Raises ConfigError where restarts would repeat each other."""
    if restarts > 1 and start == "none":
        raise ConfigError("restarts", restarts, "1 where start is 'none'", "Every restart would be the same.")


def flatten_settings(settings: Any, names: tuple[str, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The fields of a settings dataclass: those of `names` as leaves of a pytree, the others static."""
    fields = [field.name for field in dataclasses.fields(settings)]
    rest = tuple((name, getattr(settings, name)) for name in fields if name not in names)
    return tuple(getattr(settings, name) for name in names), (names, rest)


def unflatten_settings(kind: type, static: tuple[Any, ...], leaves: tuple[Any, ...]) -> Any:
    """The inverse, around __init__: JAX puts tracers and placeholders here, which its checks must not see."""
    settings: Any = object.__new__(kind)
    names, rest = static
    for name, value in (*zip(names, leaves), *rest):
        object.__setattr__(settings, name, value)
    return settings


def check_rows(table: jax.Array, tokens: jax.Array, mask: jax.Array, words: jax.Array) -> None:
    """Raises ValueError, before anything compiles, if the arrays of a text do not fit each other."""
    if table.ndim != 2:
        raise ValueError(f"the token table must be [V, W], got shape {table.shape}")
    if tokens.ndim != 2 or tokens.shape != mask.shape or tokens.shape != words.shape:
        raise ValueError(
            f"tokens, mask and words must all be [B, L], got shapes {tokens.shape}, {mask.shape}, {words.shape}"
        )
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be bool, True on real tokens, got {mask.dtype}")
    for name, array in (("tokens", tokens), ("words", words)):
        if array.dtype != jnp.int32:
            raise ValueError(f"{name} must be int32, got {array.dtype}")
    check_vocabulary(table, tokens, "tokens")
    if not is_traced(words) and words.size:
        held = np.asarray(words)
        low, high = int(held.min()), int(held.max())
        if low < -1 or high >= words.shape[1]:
            raise ValueError(
                f"words must be slots from 0 to {words.shape[1] - 1} in rows of {words.shape[1]} tokens, or -1 on "
                f"special tokens and padding, got {low} to {high}"
            )


def check_vocabulary(table: jax.Array, tokens: jax.Array, name: str) -> None:
    """Raises ValueError for tokens that have no row in the token table; traced ones are taken on trust."""
    if is_traced(tokens) or not tokens.size:
        return
    held = np.asarray(tokens)  # not by jnp: inside jit that would trace even what is known
    low, high = int(held.min()), int(held.max())
    if low < 0 or high >= table.shape[0]:
        raise ValueError(
            f"{name} must be 0 to {table.shape[0] - 1}, the rows of the token table, got {low} to {high}; is this the "
            "tokenizer of another model?"
        )
