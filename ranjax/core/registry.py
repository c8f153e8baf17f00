"""Tables of named things (methods, attacks, towers, data sources, ...): one entry a thing, everything else derived.

An entry is a frozen dataclass with a `name`. Built-in entries are given to `Table`; anyone's own come by
``module:NAME`` (an object of the same type in an importable module) or by an entry point of the table's group.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from ranjax.core.errors import ConfigError, nearest
from ranjax.core.settings import keys_of


@runtime_checkable
class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Table(Mapping[str, T], Generic[T]):
    """An ordered table from names to entries of one type.

    Args:
      kind: what an entry is, in the singular, e.g. "method"; entry points stand in the group ``ranjax.<kind>s``.
      type_: the entries' class.
      entries: the built-in ones.
      key: the configuration key that names entries, for errors, e.g. "adapt.methods".
      suites: names that stand for several entries where a key takes several.
    """

    def __init__(
        self,
        kind: str,
        type_: type,
        entries: Iterable[T] = (),
        *,
        key: str,
        suites: Mapping[str, tuple[str, ...]] | None = None,
    ):
        self.kind, self.key, self.suites = kind, key, dict(suites or {})
        self.type: type[Any] = type_
        self._entries: dict[str, T] = {}
        self._sources: dict[str, str] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: T) -> T:
        """Add a built-in entry.

        Raises:
          ValueError: the name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"two entries of the table of {self.kind}s are called {entry.name!r}")
        self._entries[entry.name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def resolve(self, name: str, key: str = "") -> T:
        """Return the entry of a name, of ``module:NAME``, or of an entry point; the latter two join the table.

        Args:
          name: as it stands in a config.
          key: the configuration key that it stands in, for errors; by default the table's.

        Raises:
          ConfigError: no such entry, a module that cannot be imported, or an object that is no such entry.
        """
        key = key or self.key
        if name in self._entries:
            return self._entries[name]
        points = () if ":" in name else importlib.metadata.entry_points(group=f"ranjax.{self.kind}s")
        place = next((point.value for point in points if point.name == name), name)
        if ":" not in place:
            raise ConfigError(key, name, self.expected(), nearest(name, self._entries))
        return self._join(name, _load(place, key), key)

    def load_entry_points(self) -> None:
        """Add the entries that installed packages bring by entry points.

        Raises:
          ConfigError: an entry point that cannot be imported, or that is no such entry.
        """
        for point in importlib.metadata.entry_points(group=f"ranjax.{self.kind}s"):
            self.resolve(point.name)

    def names_of(self, names: Iterable[str], key: str = "") -> tuple[str, ...]:
        """Return the entries' own names: ("lp", "my_lab.ridge:RIDGE") -> ("lp", "ridge")."""
        return tuple(self.resolve(name, key).name for name in self.expand(names))

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names with those of suites written out, each once."""
        return tuple(dict.fromkeys(one for name in names for one in self.suites.get(name, (name,))))

    def source_of(self, name: str) -> str | None:
        """Return the SHA-256 of the file that an entry from outside came from, or None for a built-in one."""
        return self._sources.get(name)

    @property
    def _one(self) -> str:
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    def expected(self) -> str:
        """Return words that name what the key takes."""
        suites = "".join(f", {name} ({' + '.join(of)})" for name, of in self.suites.items())
        return f"{self._one} ({', '.join(self._entries)}{suites}), or your own as module:NAME"

    def _join(self, name: str, entry: object, key: str) -> T:
        if not isinstance(entry, self.type):
            expected = f"an object of type {self.type.__module__}.{self.type.__name__}"
            raise ConfigError(key, name, f"{expected}, found {type(entry).__name__}")
        source = _source_hash(name, entry)
        if entry.name in self._entries and self._sources.get(entry.name) != source:
            expected = f"{self._one} whose name is not taken; its .name is {entry.name!r}"
            raise ConfigError(key, name, expected)
        self._entries[entry.name] = entry
        self._sources[entry.name] = source
        return entry


def _load(name: str, key: str) -> object:
    module_name, _, attribute = name.partition(":")
    # A module beside the command's working directory counts, as with `python -m`.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # any: the module is the user's, and its fault is one line, too
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(key, name, f"an importable module before the colon ({reason})") from error
    if not hasattr(module, attribute):
        raise ConfigError(key, name, f"a name that {module_name} defines", nearest(attribute, vars(module)))
    return getattr(module, attribute)


def check_entry(entry: object, *functions: str) -> None:
    """Check what all entries share, for their `__post_init__`: `name`, `label`, `settings` and the named functions.

    Args:
      entry: a dataclass; `settings`, where it has them, are an instance of a settings dataclass, see `core.settings`.
      functions: names of fields that must be callable.

    Raises:
      ConfigError: names the field, e.g. ``Attack.run = None: expected a function``.
    """
    kind, name = type(entry).__name__, getattr(entry, "name", None)
    if not (isinstance(name, str) and re.fullmatch("[a-z][a-z0-9_]*", name)):
        raise ConfigError(f"{kind}.name", name, "lower-case letters, digits and underscores: it is part of keys")
    if not getattr(entry, "label", ""):
        raise ConfigError(f"{kind}.label", getattr(entry, "label", None), "the name that the page shows")
    for field in functions:
        if not callable(getattr(entry, field)):
            raise ConfigError(f"{kind}.{field}", getattr(entry, field), "a function")
    settings = getattr(entry, "settings", None)
    if settings is not None:
        frozen = dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen  # type: ignore[attr-defined, union-attr]
        if not frozen or isinstance(settings, type):
            raise ConfigError(f"{kind}.settings", settings, "an instance of a frozen dataclass of settings, or None")
        keys_of(name, settings)  # refuses a field without a meaning


def _source_hash(name: str, entry: object) -> str:
    """The hash of the file in which ``module:NAME`` stands, or of the entry's text where there is no file."""
    module = sys.modules.get(name.partition(":")[0]) or inspect.getmodule(type(entry))
    file = getattr(module, "__file__", None)
    data = Path(file).read_bytes() if file else repr(entry).encode()
    return hashlib.sha256(data).hexdigest()
