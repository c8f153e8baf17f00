"""Configs of runs that earlier versions made: a key added since counts as its default, and the page says so.

`defaults` holds the keys of the version that makes the page, with their defaults, e.g. {"seed": 0, ...}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ranjax.report import wording

PLACES = ("data.dir", "compile_cache", "quick_compile", "devices", "profile", "data.set.patient_key")
"""Keys that say where or on what a run works, not what it finds; they stay out of results.json."""

AS_TODAY = (
    "What the code did that made the run may have been something else: results of keys that came later are to be read "
    "with that in mind."
)
Defaults = Mapping[str, object]


class Column(NamedTuple):
    """A run's config as text by dotted key, and of those keys the ones that it lacks, with the default they took."""

    values: dict[str, str]
    taken: dict[str, str]


def flat(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested config as (dotted key, value as text)."""
    items: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            items += flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", wording.plain(value)))
    return items


def completed(configs: Sequence[Mapping[str, object]], defaults: Defaults) -> list[Column]:
    """Return each config with every key that another one has and this version knows, absent ones at their default.

    A run that left no config at all stays without, and a key that this version does not know stays absent.
    """
    columns = [dict(flat(config)) for config in configs]
    keys = [key for key in dict.fromkeys(key for column in columns for key in column) if key in defaults]
    found = []
    for column in columns:
        taken = {key: wording.plain(defaults[key]) for key in keys if key not in column} if column else {}
        found.append(Column({**column, **taken}, taken))
    return found


def added_since(config: Mapping[str, object], defaults: Defaults) -> dict[str, str]:
    """Return the keys of this version that a run's config lacks, with their defaults; nothing of a run without one."""
    have = dict(flat(config))
    later = [key for key in defaults if key not in have and key not in PLACES] if have else []
    return {key: wording.plain(defaults[key]) for key in later}


def provenance(names: Sequence[str], configs: Sequence[Mapping[str, object]], defaults: Defaults) -> str:
    """Return which keys were taken as their default in which runs, in a sentence each; empty where none was."""
    by_key: dict[str, list[str]] = {}
    for name, column in zip(names, completed(configs, defaults)):
        for key in column.taken:
            by_key.setdefault(key, []).append(name)
    sentences = [
        f"The key {key} is not in the config of {', '.join(lacking)}: taken as its default, "
        f"{wording.plain(defaults[key])}."
        for key, lacking in by_key.items()
    ]
    return " ".join([*sentences, AS_TODAY]) if sentences else ""
