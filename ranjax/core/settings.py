"""Settings as frozen dataclasses: each field carries its meaning, unit and check, and is one configuration key.

    @dataclass(frozen=True)
    class RidgeSettings:
        strength: float = setting(1.0, "Weight of the squared norm.", check=above(0))

`keys_of("adapt.ridge", RidgeSettings)` gives the keys ``adapt.ridge.strength``, ...; `read(RidgeSettings, node)` reads
them back from a config. A nested group is a field whose default is such a dataclass: ``group(Radiographs)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload, runtime_checkable

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


@runtime_checkable
class Node(Protocol):
    """Values by name: a dict, a `Group`, or a ConfigDict, which is no Mapping."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> Any: ...

    def __iter__(self) -> Iterator[str]: ...


@dataclasses.dataclass(frozen=True)
class Group(Mapping[str, Any]):
    """A base of settings with tables beside their own fields: reads as attributes, and as a mapping by name.

    Attributes:
      entries: by the name of an entry of a table, the values of its settings; no key itself.
    """

    entries: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict, kw_only=True)

    def __iter__(self) -> Iterator[str]:
        return iter([*(field.name for field in dataclasses.fields(self) if field.name != "entries"), *self.entries])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Any:
        if name not in {*self}:
            raise KeyError(name)
        return self.entries[name] if name in self.entries else getattr(self, name)


def keys_of(prefix: str, settings: DataclassInstance | type[DataclassInstance]) -> tuple[Key, ...]:
    """Return the configuration keys of a settings dataclass, or of an instance, whose values are then the defaults.

    Raises:
      TypeError: a field without a meaning, declared by something other than `setting` or `group`.
    """
    instance = settings() if isinstance(settings, type) else settings
    found: list[Key] = []
    for field in dataclasses.fields(instance):
        if isinstance(instance, Group) and field.name == "entries":
            continue
        name, value = f"{prefix}.{field.name}" if prefix else field.name, getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            found += keys_of(name, value)
        elif "meaning" not in field.metadata:
            raise TypeError(f"{type(instance).__name__}.{field.name}: expected setting(default, meaning, ...)")
        else:
            found.append(Key(name, value, **field.metadata))
    return tuple(found)


@overload
def read(settings: type[T], node: Node | DataclassInstance) -> T: ...


@overload
def read(settings: T, node: Node | DataclassInstance) -> T: ...


def read(settings: Any, node: Any) -> Any:
    """Return a settings dataclass, or a copy of an instance, with the values that `node` holds; nested groups too.

    Args:
      settings: the class or an instance.
      node: values by the names of fields, or another settings dataclass. Fields that it lacks keep their value.
    """
    instance = settings() if isinstance(settings, type) else settings
    node = node if isinstance(node, Node) else vars(node)
    values: dict[str, object] = {}
    for field in dataclasses.fields(instance):
        if field.name in node:
            now, given = getattr(instance, field.name), node[field.name]
            values[field.name] = read(now, given) if dataclasses.is_dataclass(now) else given
    if isinstance(instance, Group):
        others = {name: node[name] for name in node if name not in instance}
        values["entries"] = {name: dict(other.items()) for name, other in others.items() if hasattr(other, "items")}
    return dataclasses.replace(instance, **values)


def value_at(node: Any, name: str, default: object = None) -> Any:
    """Return the value of a dotted name in a tree of settings, ConfigDicts and mappings; `default` where it is
    absent.
    """
    for part in name.split("."):
        node = node.get(part, default) if hasattr(node, "get") else getattr(node, part, default)
        if node is default:
            return default
    return node


def check_settings(prefix: str, config: DataclassInstance) -> None:
    """Check the fields of a dataclass that `setting` declares, with the checks declared there.

    Raises:
      ConfigError: the first field, as ``prefix.field``, whose value is of another type or refused.
    """
    for field in dataclasses.fields(config):
        if "meaning" in field.metadata:
            default: Any = field.default
            check_value(Key(f"{prefix}.{field.name}", default, **field.metadata), getattr(config, field.name))
