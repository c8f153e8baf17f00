"""Configs of runs that earlier versions made: a key added since counts as its default, and the page says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ranjax.report import labels_text as wording
from ranjax.run import config as configs_

PLACES = ("data.dir", "compile_cache", "quick_compile", "devices", "profile", "data.set.patient_key")
"""Keys that say where or on what a run works, not what it finds; they stay out of results.json."""

AS_TODAY = (
    "What the code did that made the run may have been something else: results of keys that came later are to be read "
    "with that in mind."
)


class Column(NamedTuple):
    """A run's config as text by dotted key, and of those keys the ones that it lacks, with the default they took."""

    values: dict[str, str]
    taken: dict[str, str]


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns a nested config as (dotted key, value as text)."""
    items: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            items += flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", wording.plain(value)))
    return items


def completed(configs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Returns each config with every key that another one has and this version knows, absent ones at their default.

    A run that left no config at all stays without, and a key that this version does not know stays absent.
    """
    columns = [dict(flat(config)) for config in configs]
    keys = [key for key in dict.fromkeys(key for column in columns for key in column) if key in configs_.BY_NAME]
    found = []
    for column in columns:
        taken = {key: default(key) for key in keys if key not in column} if column else {}
        found.append(Column({**column, **taken}, taken))
    return found


def added_since(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the keys of this version that a run's config lacks, with their defaults; nothing of a run without one."""
    have = dict(flat(config))
    return {key: default(key) for key in configs_.BY_NAME if key not in have and key not in PLACES} if have else {}


def default(key: str) -> str:
    """Returns the default of a key of this version as a page shows it."""
    return wording.plain(configs_.BY_NAME[key].default)


def provenance(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> str:
    """Returns which keys were taken as their default in which runs, in a sentence each; empty where none was."""
    by_key: dict[str, list[str]] = {}
    for name, column in zip(names, completed(configs)):
        for key in column.taken:
            by_key.setdefault(key, []).append(name)
    said = [
        f"The key {key} is not in the config of {', '.join(lacking)}: taken as its default, {default(key)}."
        for key, lacking in by_key.items()
    ]
    return " ".join([*said, AS_TODAY]) if said else ""
