"""What a set is, for the table of sets: its facts, and a function that goes through its files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.files import read_toml
from ranjax.data.images.locations import Reference
from ranjax.data.table_cells import ABSENT, PRESENT, UNCERTAIN, UNMARKED, mark

__all__ = ["ABSENT", "PRESENT", "UNCERTAIN", "UNMARKED", "Entry", "Options", "Rejected", "Said", "Spec"]

WRITTEN = "written from the labels: it says no more than they do"
"""How reports come to be in sets that have none."""

KINDS = ("image-text", "classification", "questions")


class Entry(NamedTuple):
    """One image as its publisher states it, before any choice of the user.

    id: lasts and is unique in the set. image: where its pixels lie. report: the publisher's text, unprocessed, empty
    where there is none. labels: by class, 1.0 present, 0.0 absent, -1.0 uncertain, -2.0 for an empty cell whose meaning
    is not known; a class that is not mentioned is left out. patient: empty where unknown; where a set knows any, such a
    row is left out. split: the publisher's, in this project's names; empty where the publisher has none. view:
    "frontal", "lateral", "" (not stated), or the publisher's code for another. group: further columns to keep (strings
    and numbers). sections: the report's by name, where the publisher has parsed them, taken in
    place of `report`. source: the cells that it was read from, for the page.
    """

    id: str
    image: Reference
    report: str = ""
    labels: Mapping[str, float] = {}
    patient: str = ""
    split: str = ""
    view: str = ""
    group: Mapping[str, object] = {}
    sections: Mapping[str, str] = {}
    source: Mapping[str, object] = {}


class Rejected(NamedTuple):
    """A row that is left out, and why; `split` is empty where it is not known."""

    id: str
    split: str
    reason: str


class Said(NamedTuple):
    """What a reader understood of its files, a line of the page that `ranjax prepare` prints before it writes.

    topic: what it is about, as "columns". warning: it must not be overlooked. unit: what `Entry.patient` names, where
    that is not `Spec.unit`.
    """

    topic: str
    text: str
    warning: bool = False
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """The choices of a user that a reader of files knows.

    ids: path of a list of ids or of a publisher's table that selects rows (chexpert_5x200). seed: of a selection that
    is made here. values: further options of generic layouts by name (columns, table, pattern).
    """

    ids: str = ""
    seed: int = 0
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A row of the table of sets.

    Args:
      name: what the command line takes.
      title: its full name.
      kind: one of `KINDS`.
      entries: goes through the files below a folder.
      classes: in label order; empty where the files or the user say them.
      normal: the class that says "none of the others"; empty where there is none.
      splits: splits that the publisher defines, in this project's names; those that the files lack are cut from "train"
        by patient.
      reports: how the report of a record came to be.
      licence, citation, homepage: the publisher's.
      instructions: what to download and how it must lie.
      notes: what a reader of figures must know.
      checksums: MD5 or SHA-256 by file name, where the publisher states them.
      options: names of `Options.values` that the reader knows, with their meaning.
      classes_vary: releases use different ones of `classes`: those that occur count.
      unit: what `Entry.patient` names: "patient", or what stands in for one, as "picture". Only of patients is a split
        by patient claimed.
    """

    name: str
    title: str
    kind: str
    entries: Callable[[Path, Options], Iterator[Entry | Rejected | Said]]
    classes: tuple[str, ...] = ()
    normal: str = ""
    splits: tuple[str, ...] = ()
    reports: str = "the publisher's"
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    instructions: str = ""
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classes_vary: bool = False
    unit: str = "patient"

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and " " not in self.name):
            raise ConfigError("Spec.name", self.name, "a name without spaces, which `ranjax prepare` takes")
        if self.kind not in KINDS:
            raise ConfigError("Spec.kind", self.kind, f"one of {', '.join(KINDS)}")
        if not callable(self.entries):
            raise ConfigError("Spec.entries", self.entries, "a function of a folder and `Options` that yields entries")


@functools.cache
def facts(name: str) -> Mapping[str, Any]:
    """Return what sets.toml says of a set, by field of `Spec`."""
    stored = read_toml("ranjax.data.sets", "sets.toml")
    found = dict(stored[name])
    if isinstance(found.get("classes"), str):
        found["classes"] = stored[found["classes"]]["classes"]
    if found.pop("columns", False):
        found["options"] = {**found.get("options", {}), **stored["columns"]}
    return ({"reports": WRITTEN} if found.get("kind") == "classification" else {}) | found


def spec(name: str, entries: Callable[[Path, Options], Iterator[Entry | Rejected | Said]], /, **changes: Any) -> Spec:
    """Return the set that sets.toml describes under `name`, with `changes`; `entries` goes through its files."""
    return Spec(**{"name": name, "entries": entries, **facts(name), **changes})


def marks(row: Mapping[str, object], classes: Iterable[str]) -> dict[str, float]:
    """Return what the cells of a row say of the classes; an empty one says nothing ("not mentioned").

    Raises:
      DataError: a cell that is no mark, with its column.
    """
    found = {}
    for name in classes:
        try:
            value = mark(row.get(name))
        except DataError as error:
            raise DataError(f"column {name!r} {error}") from error
        if value is not None:
            found[name] = value
    return found
