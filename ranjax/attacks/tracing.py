"""What goes wrong where a loss or a model is traced, by its name: other frameworks, channels that come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from ranjax.core.errors import ConfigError, DataError

T = TypeVar("T")


def in_jax(trace: Callable[[], T], shape: tuple[int, ...], what: str = "loss") -> T:
    """Return what `trace` returns for images of that shape.

    Raises:
      DataError: the loss, or what is named, is no function of JAX arrays, or refuses images whose channels come first.
    """
    hint = "The loss and its model must be functions of JAX arrays: no torch, no NumPy, no .item()."
    try:
        return trace()
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise DataError(f"the {what} turns JAX arrays into NumPy's or Python's. {hint}") from error
    except (TypeError, AttributeError) as error:
        if "Tracer" in str(error):
            raise DataError(
                f"the {what} cannot take JAX arrays ({str(error).splitlines()[0][:120]}). {hint}"
            ) from error
        _name_channels_first(shape, error)
        raise
    except ValueError as error:
        if not isinstance(error, (ConfigError, DataError)):
            _name_channels_first(shape, error)
        raise


def _name_channels_first(shape: tuple[int, ...], error: Exception) -> None:
    """Raise DataError where images that a model refuses look like [B, C, H, W]."""
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, 4):
        hint = "Channels first? Images are [B, H, W, C]: images.transpose(0, 2, 3, 1)."
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"the model refuses images of shape {shape} ({reason}). {hint}") from error
