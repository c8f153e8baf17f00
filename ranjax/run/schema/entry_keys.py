"""Keys that name entries of a table, whose own settings are keys as well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ml_collections import ConfigDict

from ranjax.core.checks import Key, anything
from ranjax.core.errors import ConfigError
from ranjax.core.registry import Named, Table
from ranjax.core.settings import DataclassInstance, Group, keys_of, read, value_at

T = TypeVar("T", bound=Named)
if TYPE_CHECKING:
    Config = Any
else:
    Config = ConfigDict | Group
"""A whole config, as a file gives it or as stages read it: both have the same attributes and items."""


@dataclasses.dataclass(frozen=True)
class EntryNames:
    """The check of a key that holds names of entries of `table`, each once; `EntryKeys.named` finds whether they
    exist.
    """

    table: Table[Any]

    def __call__(self, value: tuple[str, ...]) -> str:
        return "" if value and len(set(value)) == len(value) else self.stated

    @property
    def stated(self) -> str:
        names = ", ".join(map(repr, (*self.table, *self.table.suites)))
        return f"a tuple of different names out of {names}, or your own {self.table.kind}s as 'module:NAME'"


@dataclasses.dataclass(frozen=True)
class EntryKeys(Generic[T]):
    """The keys `named_by` hold names of entries of `table`; their settings are the keys `prefix.ENTRY.SETTING`.

    Attributes:
      table: of entries with a field `settings`, an instance of a settings dataclass or None.
      named_by: keys whose value is a name, or a tuple of names; "" names nothing.
      prefix: of the settings' keys, e.g. "evaluate".
      settings: by an entry's name, settings that replace the entry's own as the defaults here.
      reserved: names that no entry may have, e.g. of nested groups of keys below `prefix`.
      accepts: gives "" for an entry that may be named, or words that say what is expected in its place.
    """

    table: Table[T]
    named_by: tuple[str, ...]
    prefix: str
    settings: Mapping[str, DataclassInstance] = dataclasses.field(default_factory=dict)
    reserved: tuple[str, ...] = ()
    accepts: Callable[[T], str] = anything

    def named(self, config: Config, *keys: str) -> dict[str, T]:
        """Return the entries that a config names, by their own names; one from outside joins the table.

        Args:
          config: of the run.
          keys: some of `named_by`; by default all.

        Raises:
          ConfigError: there is no such entry, it breaks the contract, or it does not fit here.
        """
        found = {}
        for key in keys or self.named_by:
            value = value_at(config, key, ())
            for name in (value,) if isinstance(value, str) else self.table.expand(value):
                if name:
                    entry = self.table.resolve(name, key)
                    if expected := self.accepts(entry):
                        raise ConfigError(key, name, expected)
                    found[entry.name] = entry
        return found

    def one(self, config: Config, key: str = "") -> T:
        """Return the entry that a config names under `key`, by default the only one of `named_by`.

        Raises:
          ConfigError: nothing is named there, or as `named` raises it.
        """
        key = key or self.named_by[0]
        value = value_at(config, key)
        # "" names nothing, which `named` allows.
        return self.named(config, key)[self.table.resolve(value, key).name]

    def from_outside(self, config: Config) -> dict[str, str]:
        """Return {name: SHA-256 of its source} of the entries that a config names and that are not built in."""
        return {name: source for name in self.named(config) if (source := self.table.source_of(name))}

    def keys(self, entry: T) -> tuple[Key, ...]:
        """Return the keys of an entry's settings: those that its own `keys` names, where it has such a field."""
        settings = self._defaults(entry)
        found = () if settings is None else keys_of(f"{self.prefix}.{entry.name}", settings)
        chosen = getattr(entry, "keys", None)
        return found if chosen is None else tuple(key for key in found if key.name.rpartition(".")[2] in chosen)

    def built_in_keys(self) -> Iterator[Key]:
        """Yield the keys of the settings of all built-in entries that may be named."""
        built_in = (entry for name, entry in self.table.items() if not self.table.source_of(name))
        return (key for entry in built_in if not self.accepts(entry) for key in self.keys(entry))

    def settings_of(self, config: Config, entry: T) -> Any:
        """Return an entry's settings with the values of a config; None where it has none."""
        settings = self._defaults(entry)
        return None if settings is None else read(settings, config[self.prefix][entry.name])

    def options_of(self, config: Config, entry: T) -> dict[str, Any]:
        """Return an entry's settings as keywords."""
        settings = self.settings_of(config, entry)
        return {} if settings is None else vars(settings)

    def recorded(self, config: Config, *keys: str) -> dict[str, object]:
        """Return the settings of the entries that a config names, and the SHA-256 of their sources from outside."""
        named = self.named(config, *keys)
        found: dict[str, object] = {
            name: dict(options) for name in named if (options := self.options_of(config, named[name]))
        }
        return found | {f"source of {name}": sha for name in named if (sha := self.table.source_of(name))}

    def check_name(self, entry: T, taken: ConfigDict) -> None:
        """Raise ConfigError where `prefix.ENTRY` is a key of its own, e.g. an attack called "batch_size"."""
        is_key = entry.name in taken and not isinstance(taken[entry.name], ConfigDict)
        if is_key or entry.name in self.reserved:
            expected = f"another name: {self.prefix}.{entry.name} is a key"
            raise ConfigError(f"{type(entry).__name__}.name", entry.name, expected)

    def unused(self, config: Config, *others: str) -> Iterator[str]:
        """Yield a note on each setting that a config changes of a built-in entry that it and `others` do not name."""
        named = {*self.named(config), *others}
        for key in self.built_in_keys():
            group, entry, setting = key.name.split(".")
            value = config[group][entry][setting]
            if entry not in named and value != key.default:
                yield f"{key.name} = {value!r} is not used: {self.named_by[0]} does not name {entry!r}"

    def _defaults(self, entry: T) -> DataclassInstance | None:
        return self.settings.get(entry.name, getattr(entry, "settings", None))
