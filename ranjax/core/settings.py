"""Settings as frozen dataclasses: each field carries its meaning, unit and check, and is one configuration key.

    @dataclass(frozen=True)
    class RidgeSettings:
        strength: float = setting(1.0, "Weight of the squared norm.", check=above(0))

`keys_of("adapt.ridge", RidgeSettings)` gives the keys ``adapt.ridge.strength``, ...; `read(RidgeSettings, node)` reads
them back from a config. A nested group is a field whose default is such a dataclass: ``group(Radiographs)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ranjax.core.checks import Check, Key, anything, check_value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
else:
    DataclassInstance = object

T = TypeVar("T")


def setting(default: T, meaning: str, unit: str = "", check: Check = anything) -> T:
    """Declare one field of a settings dataclass.

    Args:
      default: its value where nobody sets it; its type is the key's type.
      meaning: one sentence that a user reads in ``describe``.
      unit: of the value, e.g. "steps" or "pixel units".
      check: returns words that say what is expected, or "" for a value that is fine.
    """
    field: Any = dataclasses.field(default=default, metadata={"meaning": meaning, "unit": unit, "check": check})
    return field


def group(settings: Callable[[], T]) -> T:
    """Declare a field that holds further settings, ``group(Radiographs)``."""
    field: Any = dataclasses.field(default_factory=settings)
    return field


def keys_of(prefix: str, settings: DataclassInstance | type[DataclassInstance]) -> tuple[Key, ...]:
    """Return the configuration keys of a settings dataclass, or of an instance, whose values are then the defaults.

    Raises:
      TypeError: a field without a meaning, declared by something other than `setting` or `group`.
    """
    instance = settings() if isinstance(settings, type) else settings
    found: list[Key] = []
    for field in dataclasses.fields(instance):
        name, value = f"{prefix}.{field.name}" if prefix else field.name, getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            found += keys_of(name, value)
        elif "meaning" not in field.metadata:
            raise TypeError(f"{type(instance).__name__}.{field.name}: expected setting(default, meaning, ...)")
        else:
            found.append(Key(name, value, **field.metadata))
    return tuple(found)


def read(settings: T | type[T], node: Mapping[str, Any]) -> T:
    """Return a settings dataclass, or a copy of an instance, with the values that `node` holds; nested groups too.

    Args:
      settings: the class or an instance.
      node: a mapping or ConfigDict from the names of fields to values. Fields that it lacks keep their value.
    """
    instance = cast("DataclassInstance", settings() if isinstance(settings, type) else settings)
    values: dict[str, object] = {}
    for field in dataclasses.fields(instance):
        if field.name in node:
            now, given = getattr(instance, field.name), node[field.name]
            values[field.name] = read(now, given) if dataclasses.is_dataclass(now) else given
    return cast(T, dataclasses.replace(instance, **values))


def check_settings(prefix: str, config: DataclassInstance) -> None:
    """Check the fields of a dataclass that `setting` declares, with the checks declared there.

    Raises:
      ConfigError: the first field, as ``prefix.field``, whose value is of another type or refused.
    """
    for field in dataclasses.fields(config):
        if "meaning" in field.metadata:
            default: Any = field.default
            check_value(Key(f"{prefix}.{field.name}", default, **field.metadata), getattr(config, field.name))
