"""Checks that the configs of the towers share; all raise ConfigError."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ranjax.core.errors import ConfigError


def whole_positive(config: Any, group: str, *names: str) -> None:
    """Each named field is a whole number of at least 1."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{group}.{name}", value, "a whole number of at least 1")


def divides(name: str, value: int, whole: str, number: int) -> None:
    """`value` divides `number`, which messages call `whole`."""
    if number % value:
        raise ConfigError(name, value, f"a divisor of {whole}")


def one_of(name: str, value: Any, allowed: Collection[str]) -> None:
    """`value` is among the allowed ones."""
    if value not in allowed:
        raise ConfigError(name, value, f"one of {', '.join(allowed)}")


def pixels(config: Any, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Fills pixel_mean and pixel_std of a frozen config where they are None, and checks all that says how to see."""
    if channels not in (1, 3):
        raise ConfigError("model.channels", channels, "1 (grey) or 3")
    for name, default in (("pixel_mean", mean), ("pixel_std", std)):
        given = getattr(config, name)
        value = tuple(float(v) for v in (default if given is None else given))
        if len(value) != channels:
            raise ConfigError(f"model.{name}", value, f"one number for each of the {channels} channels")
        object.__setattr__(config, name, value)
    if min(config.pixel_std) <= 0:
        raise ConfigError("model.pixel_std", config.pixel_std, "positive numbers")
    if config.grey_to_rgb and channels != 3:
        raise ConfigError("model.grey_to_rgb", True, "only with model.channels = 3")
