"""What a configuration key is, and the checks that its value passes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ranjax.core.errors import ConfigError, nearest
from ranjax.core.pixels import pixel_units

Check = Callable[[Any], str]
"""Returns an empty string for an allowed value, else words that say what is allowed."""


def at_least(low: float) -> Check:
    return lambda v: "" if v >= low else f"a number of at least {low}"


def above(low: float) -> Check:
    return lambda v: "" if v > low else f"a number above {low}"


def between(low: float, high: float) -> Check:
    return lambda v: "" if low <= v <= high else f"a number from {low} to {high}"


def share_of(value: float) -> str:
    """A share of something that leaves some of it."""
    return "" if 0 < value <= 1 else "above 0 and at most 1"


@dataclass(frozen=True)
class OneOf:
    """The check of a value out of `choices`."""

    choices: tuple[Any, ...]

    def __call__(self, value: Any) -> str:
        return "" if value in self.choices else self.stated + _nearest_choice(value, self.choices)

    @property
    def stated(self) -> str:
        return "one of " + ", ".join(map(repr, self.choices))


@dataclass(frozen=True)
class SomeOf:
    """The check of a tuple of different names out of `choices`, `needed` among them where it is given."""

    choices: tuple[str, ...]
    needed: str = ""

    def __call__(self, value: tuple[str, ...]) -> str:
        if not (len(value) > 0 and all(x in self.choices for x in value) and len(set(value)) == len(value)):
            return self.stated
        return "" if not self.needed or self.needed in value else f"a tuple that holds {self.needed!r}"

    @property
    def stated(self) -> str:
        return "a tuple of different names out of " + ", ".join(map(repr, self.choices))


def one_of(*choices: Any) -> Check:
    return OneOf(choices)


def some_of(*choices: str, needed: str = "") -> Check:
    return SomeOf(choices, needed)


def patterns(value: tuple[str, ...]) -> str:
    """Regular expressions, at least one."""
    try:
        compiled = [re.compile(v) for v in value if v]
    except re.error as error:
        return f"regular expressions ({error})"
    return "" if compiled else "at least one regular expression on parameters' paths, e.g. ('^vision/', 'projection')"


def epsilon(value: Any) -> str:
    """Pixel units, 0 to 1, as a number or as text such as "8/255"."""
    try:
        good = 0.0 <= pixel_units(value) <= 1.0
    except ValueError:
        good = False
    return "" if good else 'pixel units from 0 to 1, e.g. "8/255" or "0.03" (not 0 to 255)'


def pixel_step(value: Any) -> str:
    """Like `epsilon`, above 0: an attack with a step of 0 stays where it starts."""
    return epsilon(value) or ("" if pixel_units(value) > 0 else 'pixel units above 0, e.g. "2/255"')


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


def anything(value: Any) -> str:
    return ""


@dataclass(frozen=True)
class Key:
    """One configuration key. `check` looks at a value of the default's type."""

    name: str
    default: Any
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
    if isinstance(value, tuple) and not all(_is_of(type(key.default[0]), element) for element in value):
        raise ConfigError(key.name, value, f"values of type {type(key.default[0]).__name__}, like {key.default!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key.name, value, key.check(value) or "a finite number")
    if expected := key.check(value):
        raise ConfigError(key.name, value, expected)


def _is_of(kind: type, value: object) -> bool:
    """Return whether a value is of a type; whole numbers stand for floats too, and bools for nothing else."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def _nearest_choice(value: Any, choices: tuple[Any, ...]) -> str:
    if not isinstance(value, str):
        return ""
    hint = nearest(value, [c for c in choices if isinstance(c, str)])
    return f" ({hint})" if hint else ""
