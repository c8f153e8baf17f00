"""From a row of a table of the user's own to an entry: its cells as the roles of their columns say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ranjax.core.checks import texts_by_name
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data import table_cells
from ranjax.data.images.locations import Reference
from ranjax.data.sets.column_roles import SPLIT_NAMES, columns_of, is_written, places_of
from ranjax.data.sets.spec import ABSENT, PRESENT, UNMARKED, Entry, Rejected
from ranjax.data.sets.views import view_of

BLANKS = {"": UNMARKED, "unknown": UNMARKED, "absent": ABSENT}
"""What the option `blank` makes of an empty cell of a class."""
_Read = TypeVar("_Read")


def from_row(
    row: Mapping[str, object], values: Mapping[str, str], image: Reference, identity: str, split: str = ""
) -> Entry | Rejected:
    """Return the entry of a row, or why it is left out.

    Args:
      row: cells by column; a column that the row lacks is an empty cell.
      values: columns by role, see `column_roles.roles`, and the other options of the set.
      image: where its pixels lie.
      identity: its id where no column holds one.
      split: that it belongs to where no column says so.
    """
    try:
        identity = _name(row, values, "id") or identity
        labels = {name: _mark(row, name, values) for name in filter(None, values.get("labels", "").split(","))}
        if "label" in values:
            labels |= dict.fromkeys(labels_of(row, values), PRESENT)
        if template := values.get("template", ""):
            report = _written(template, row, values)
        else:
            report = _of(row, values.get("report", "report"), table_cells.words)
        patient = _of(row, values["patient"], table_cells.patient) if "patient" in values else ""
        if "patient" in values and not patient:
            raise DataError(f"column {values['patient']!r} is empty")
        stated = _name(row, values, "split").lower()
        view = view_of(_name(row, values, "view"))
    except DataError as error:
        return Rejected(identity, split, str(error))
    # The columns that nothing has read describe the example.
    used = {values[o] for o in ("image", "report", "patient", "split", "id") if o in values} | {
        "image",
        "file",
        "report",
    }
    used |= set(values.get("labels", "").split(","))
    group = {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float | bool)}
    group = {k: "" if table_cells.is_missing(v) else v for k, v in group.items()}
    split = SPLIT_NAMES.get(stated, stated) or split
    return Entry(identity, image, report, labels, patient, split, view, group, source=row)


def _of(row: Mapping[str, object], column: str, read: Callable[[object], _Read]) -> _Read:
    try:
        return read(row.get(column))
    except DataError as error:
        raise DataError(f"column {column!r} {error}") from error


def _name(row: Mapping[str, object], values: Mapping[str, str], role: str) -> str:
    return _of(row, values[role], table_cells.name) if role in values else ""


def _mark(row: Mapping[str, object], column: str, values: Mapping[str, str]) -> float:
    found = _of(row, column, table_cells.mark)
    return BLANKS[values.get("blank", "")] if found is None else found


def check_options(values: Mapping[str, str], columns: tuple[str, ...]) -> None:
    """Refuse a template that is malformed or names an absent column, and unknown words for an empty cell.

    Raises:
      ConfigError: one of them.
    """
    if values.get("blank", "") not in BLANKS:
        raise ConfigError("option blank", values["blank"], "unknown or absent")
    for column in columns_of(values.get("template", ""), "template"):
        if column not in columns:
            raise ConfigError("option template", column, f"one of {', '.join(columns)}", nearest(column, columns))


def labels_of(row: Mapping[str, object], values: Mapping[str, str]) -> list[str]:
    """Return the labels of a cell: those of a list, or of a text with a separator; -1 and "?" are no label. Or the one
    label that is written from several columns.

    Raises:
      DataError: a mapping, or a list of 0 and 1, which may be marks of classes.
    """
    column = values["label"]
    if is_written(column):
        return [" ".join(_written(column, row, {}).split())]
    given = row.get(column)
    if isinstance(given, list) and len(given) > 1 and all(type(part) is not str and part in (0, 1) for part in given):
        raise DataError(
            f"column {column!r} holds a list of 0 and 1, which may be marks or numbers of classes: write names"
        )
    if isinstance(given, str):
        listed = _of({column: given}, column, table_cells.written_list)
        given = listed if listed is not None else given.split(values.get("separator", "|"))
    parts = given if isinstance(given, list) else [given]
    texts = [str(part) if isinstance(part, bool) else _of({column: part}, column, table_cells.name) for part in parts]
    return [text for text in texts if text and text not in ("-1", "-1.0", "?")]


def _written(template: str, row: Mapping[str, object], values: Mapping[str, str]) -> str:
    """Return a text written from columns: each place ``{column:VALUE=words;VALUE=words}`` holds a cell's words.

    Raises:
      DataError: an empty cell.
    """
    report = ""
    for before, column, replaced in places_of(template, "template"):
        report += before
        if column is None:
            continue
        said = {value: texts[-1] for value, texts in texts_by_name((replaced or "").split(";")).items()}
        given = str(row.get(column)).strip()
        value = given if given in said else _of(row, column, table_cells.words)
        if not value:
            raise DataError(f"column {column!r}, from which a text is written, is empty")
        parts = labels_of(row, values) if column == values.get("label") and value not in said else [value]
        if not parts:
            raise DataError(f"column {column!r}, from which a text is written, holds no label")
        report += ", ".join(said.get(part, part.replace("_", " ")) for part in parts)
    return report


class Spellings:
    """The patients and labels of a table with where each stands first, to refuse one value in several spellings."""

    def __init__(self) -> None:
        self._patients: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._kind: tuple[str, str] | None = None

    def add(self, entry: Entry | Rejected, values: Mapping[str, str], place: str) -> None:
        """Note an entry.

        Raises:
          DataError: its labels are of another kind than those before: text, number, truth value.
        """
        if isinstance(entry, Rejected):
            return
        if entry.patient:
            self._patients.setdefault(entry.patient, place)
        if "label" not in values:
            return
        for name in labels_of(entry.source, values):
            self._labels.setdefault(name, place)
        given = entry.source.get(values["label"])
        for part in given if isinstance(given, list) else [given]:
            if table_cells.is_missing(part):
                continue
            kinds = ((bool, "a truth value"), (str, "a text"))
            kind = next((words for cls, words in kinds if isinstance(part, cls)), "a number")
            self._kind = self._kind or (kind, place)
            if kind != self._kind[0]:
                column, (other, there) = values["label"], self._kind
                raise DataError(f"{place}: column {column!r} holds {kind}, that of {there} {other}: write one kind.")

    def check(self) -> None:
        """Raise DataError where two patients, or two labels, look like one, see `table_cells.check_spellings`."""
        table_cells.check_spellings(self._patients.items(), "patients", by_case=False)
        table_cells.check_spellings(self._labels.items(), "labels")
