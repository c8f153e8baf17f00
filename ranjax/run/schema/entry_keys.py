"""Keys that name entries of a table, whose own settings are keys as well."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from ranjax.core.checks import Key
from ranjax.core.errors import ConfigError
from ranjax.core.registry import Named, Table
from ranjax.core.settings import keys_of


@dataclasses.dataclass(frozen=True)
class EntryNames:
    """The check of a key that holds names of entries of `table`, each once; whether they exist is seen elsewhere."""

    table: Table

    def __call__(self, value: tuple[str, ...]) -> str:
        return "" if value and len(set(value)) == len(value) else self.stated

    @property
    def stated(self) -> str:
        names = ", ".join(map(repr, self.table))
        return f"a tuple of different names out of {names}, or your own {self.table.kind}s as 'module:NAME'"


@dataclasses.dataclass(frozen=True)
class EntryKeys:
    """The keys `named_by` hold names of entries of `table`; their settings are the keys ``prefix.ENTRY.SETTING``.

    Attributes:
      table: of entries with a field `settings`, an instance of a settings dataclass or None.
      named_by: keys whose value is a name, or a tuple of names; "" names nothing.
      prefix: of the settings' keys, e.g. "evaluate".
      settings: by an entry's name, settings that replace the entry's own as the defaults here.
      reserved: names that no entry may have, e.g. of nested groups of keys below `prefix`.
    """

    table: Table
    named_by: tuple[str, ...]
    prefix: str
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    reserved: tuple[str, ...] = ()

    def named(self, config: ConfigDict) -> Iterator[Named]:
        """Yield the entries that a config names, each once; one from outside joins the table.

        Raises:
          ConfigError: there is no such entry, or it breaks the contract.
        """
        found = {}
        for key in self.named_by:
            *path, last = key.split(".")
            node = config
            for part in path:
                node = node.get(part, {})
            value = node.get(last, ())
            for name in (value,) if isinstance(value, str) else tuple(value):
                if name:
                    entry = self.table.resolve(name, key)
                    found[entry.name] = entry
        return iter(found.values())

    def from_outside(self, config: ConfigDict) -> dict[str, str]:
        """Return {name: SHA-256 of its source} of the entries that a config names and that are not built in."""
        names = [entry.name for entry in self.named(config)]
        return {name: source for name in names if (source := self.table.source_of(name))}

    def keys(self, entry: Named) -> tuple[Key, ...]:
        """Return the keys of an entry's settings: those that its own `keys` names, where it has such a field."""
        settings = self.settings.get(entry.name, getattr(entry, "settings", None))
        found = () if settings is None else keys_of(f"{self.prefix}.{entry.name}", settings)
        chosen = getattr(entry, "keys", None)
        return found if chosen is None else tuple(key for key in found if key.name.rpartition(".")[2] in chosen)

    def built_in_keys(self) -> Iterator[Key]:
        """Yield the keys of all built-in entries' settings."""
        return (key for name in self.table if not self.table.source_of(name) for key in self.keys(self.table[name]))

    def check_name(self, entry: Named, taken: ConfigDict) -> None:
        """Raise ConfigError where `prefix.ENTRY` is a key of its own, e.g. an attack called "batch_size"."""
        is_key = entry.name in taken and not isinstance(taken[entry.name], ConfigDict)
        if is_key or entry.name in self.reserved:
            expected = f"another name: {self.prefix}.{entry.name} is a key"
            raise ConfigError(f"{type(entry).__name__}.name", entry.name, expected)
