"""Configuration keys, and checks of their values."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ranjax.core.errors import ConfigError, nearest
from ranjax.core.pixels import pixel_units

Value = bool | int | float | str | tuple[bool | int | float | str, ...]
"""What a configuration key holds."""
Check = Callable[[Any], str]
"""Takes a value of the key's type; returns "" for a valid one, else words that read well after "expected"."""


def at_least(low: int | float) -> Check:
    return lambda v: "" if v >= low else f"a number of at least {low}"


def above(low: int | float) -> Check:
    return lambda v: "" if v > low else f"a number above {low}"


def between(low: int | float, high: int | float) -> Check:
    return lambda v: "" if low <= v <= high else f"a number from {low} to {high}"


def share_of(value: int | float) -> str:
    """Check a share of which something is left."""
    return "" if 0 < value <= 1 else "a number above 0 and at most 1"


@dataclass(frozen=True)
class Choice:
    """Check that a value, or each one of a tuple of different values, is among `choices`, which `stated` names."""

    choices: tuple[Value, ...]
    several: bool = False

    def __call__(self, value: Any) -> str:
        given = value if self.several else (value,)
        unknown = [x for x in given if x not in self.choices]
        if given and not unknown and len(set(given)) == len(given):
            return ""
        names = [choice for choice in self.choices if isinstance(choice, str)]
        hint = nearest(unknown[0], names) if unknown and isinstance(unknown[0], str) else ""
        return f"{self.stated} ({hint})" if hint else self.stated

    @property
    def stated(self) -> str:
        head = "a tuple of different names out of" if self.several else "one of"
        return f"{head} {', '.join(map(repr, self.choices))}"


def one_of(*choices: Value) -> Check:
    return Choice(choices)


def some_of(*choices: str) -> Check:
    return Choice(choices, several=True)


def patterns(value: tuple[str, ...]) -> str:
    """Check regular expressions, of which there must be one."""
    try:
        compiled = [re.compile(v) for v in value if v]
    except re.error as error:
        return f"regular expressions ({error})"
    return "" if compiled else "at least one regular expression on parameters' paths, e.g. ('^vision/', 'projection')"


def epsilon(value: str | int | float) -> str:
    """Check pixel units, 0 to 1: a number, or text such as "8/255"."""
    try:
        good = 0.0 <= pixel_units(value) <= 1.0
    except ConfigError:
        good = False
    return "" if good else 'pixel units from 0 to 1, e.g. "8/255" or "0.03" (not 0 to 255)'


def length(value: str | int | float) -> str:
    """Check pixel units above 0: an attack with a step of 0 stays where it starts."""
    try:
        good = pixel_units(value) > 0
    except ConfigError:
        good = False
    return "" if good else 'pixel units above 0, e.g. "2/255"'


def pixel_step(value: str | int | float) -> str:
    """Check pixel units above 0 and at most 1."""
    return epsilon(value) or length(value)


def ratios(value: tuple[float, ...]) -> str:
    good = len(value) > 0 and value[0] == 0.0 and all(a < b for a, b in itertools.pairwise(value)) and value[-1] <= 1.0
    return "" if good else "shares from 0 to 1 that rise and begin with 0.0 (the clean run is the surrogate)"


def texts_by_name(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return texts of the form NAME=TEXT by name: ("a=x", "a=y") -> {"a": ("x", "y")}."""
    found: dict[str, tuple[str, ...]] = {}
    for name, _, text in (text.partition("=") for text in texts):
        found[name] = (*found.get(name, ()), text)
    return found


def maps(value: tuple[str, ...]) -> str:
    return "" if all("=" in v for v in value if v) else "texts of the form 'name=value'"


def anything(value: object) -> str:
    return ""


@dataclass(frozen=True)
class Key:
    """One configuration key; `check` takes a value of the default's type."""

    name: str
    default: Value
    meaning: str
    unit: str = ""
    check: Check = anything


def check_value(key: Key, value: object) -> None:
    """Check a value against the type of a key's default and against the key's check.

    Raises:
      ConfigError: another type, a number that is not finite, or a value that the check refuses.
    """
    kind = type(key.default)
    if not _is_of(kind, value):
        raise ConfigError(key.name, value, f"a value of type {kind.__name__}")
    if isinstance(key.default, tuple) and isinstance(value, tuple):
        element = type(key.default[0])
        if not all(_is_of(element, item) for item in value):
            raise ConfigError(key.name, value, f"values of type {element.__name__}, like {key.default!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key.name, value, key.check(value) or "a finite number")
    if expected := key.check(value):
        raise ConfigError(key.name, value, expected)


def _is_of(kind: type, value: object) -> bool:
    """Return whether a value is of a type; whole numbers stand for floats too, and bools for nothing else."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
