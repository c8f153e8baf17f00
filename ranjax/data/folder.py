"""Rows of a CSV beside a folder of images: columns, labels, reports and splits, and why a row cannot be used."""

from __future__ import annotations

import csv
import hashlib
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.set_settings import SPLITS, FolderSettings, FolderSource


class Row(NamedTuple):
    """A usable row: everything but its pixels."""

    id: str
    file: Path
    report: str
    label: int
    labels: np.ndarray
    patient: str
    split: str
    group: dict[str, str]


class Rejected(NamedTuple):
    """A row that is left out, and why."""

    id: str
    split: str
    reason: str


def read_rows(settings: FolderSettings) -> tuple[list[Row], list[Rejected]]:
    """Goes through the tables of all sources; images are not opened.

    Raises:
      ConfigError: a column that a table does not have (with those present and the nearest), or a template that cannot
        be filled.
      DataError: no table, an empty table, a split value that no split is named for, a patient in two splits.
    """
    rows: list[Row] = []
    rejected: list[Rejected] = []
    seen: set[str] = set()
    for source in settings.sources:
        for number, cells in enumerate(read_table(source), start=2):
            row = _row(source, settings, cells, number)
            if isinstance(row, Row) and row.id in seen:
                row = Rejected(row.id, row.split, f"the id is given twice (line {number} of {source.csv})")
            if isinstance(row, Row):
                seen.add(row.id)
                rows.append(row)
            else:
                rejected.append(row)
    _refuse_shared_patients(rows)
    return rows, rejected


def read_table(source: FolderSource) -> list[dict[str, str]]:
    """The table's rows as dicts, after a check of every column that the source names."""
    path = Path(source.root).expanduser() / source.csv
    if not path.is_file():
        raise DataError(f"The table {path} does not exist.")
    try:
        # utf-8-sig: spreadsheets write a byte-order mark that would otherwise stick to the first column's name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            present = [name for name in (reader.fieldnames or []) if name is not None]
            table = [{name: (row.get(name) or "").strip() for name in present} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The table {path} cannot be read as CSV in UTF-8: {error}") from error
    named = {
        key: getattr(source, key)
        for key in ("file_column", "id_column", "report_column", "label_column", "patient_column", "split_column")
    }
    named |= {f"label_columns[{i}]": name for i, name in enumerate(source.label_columns)}
    named |= {f"report_template ({{{name}}})": name for name in template_columns(source.report_template)}
    for key, name in named.items():
        if name and name not in present:
            allowed = f"columns of {path.name} are {', '.join(present) or 'none'}"
            raise ConfigError(f"data.sources.{source.name}.{key}", name, allowed, nearest(name, present))
    if not table:
        raise DataError(f"The table {path} has no rows.")
    return table


def template_columns(template: str | None) -> list[str]:
    """The columns that a report template names. Raises ConfigError for a template that is malformed."""
    if not template:
        return []
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigError("report_template", template, f"text with {{column}} places ({error})") from error
    if not all(names):
        raise ConfigError("report_template", template, "text with named {column} places")
    return names


def hash_split(patient: str, shares: dict[str, float], seed: int) -> str:
    """The split of a patient: a keyed hash in [0, 1) against the cumulated shares.

    A patient's split depends on nothing else, so that rows that are added later move nobody.
    """
    key = hashlib.blake2b(f"split:{seed}:{patient}".encode(), digest_size=8).digest()
    place, edge = int.from_bytes(key, "little") / 2**64, 0.0
    for split, share in shares.items():
        edge += share
        if place < edge:
            return split
    return list(shares)[-1]


def _row(source: FolderSource, settings: FolderSettings, cells: dict[str, str], number: int) -> Row | Rejected:
    file = cells[source.file_column]
    identity = f"{source.name}/{cells[source.id_column] if source.id_column else file}"
    patient = f"{source.name}/{cells[source.patient_column]}" if source.patient_column else identity
    if not file:
        return Rejected(f"{source.name}/line {number}", "", f"column {source.file_column!r} is empty")
    if source.patient_column and not cells[source.patient_column]:
        return Rejected(identity, "", f"column {source.patient_column!r} is empty: no patient to split by")
    split = _split(source, cells, patient, settings.seed)
    if not split:
        return Rejected(identity, "", f"column {source.split_column!r} is empty")
    labels, reason = _labels(source, settings.classes, cells)
    if reason:
        return Rejected(identity, split, reason)
    report, reason = _report(source, cells)
    if reason:
        return Rejected(identity, split, reason)
    present = np.flatnonzero(labels)
    label = int(present[0]) if len(present) == 1 else -1
    used = {source.file_column, source.id_column, source.report_column, source.patient_column, source.split_column}
    group = {name: value for name, value in cells.items() if name not in used}
    path = Path(source.root).expanduser() / source.images / file
    return Row(identity, path, report, label, labels, patient, split, group)


def _split(source: FolderSource, cells: dict[str, str], patient: str, seed: int) -> str:
    if source.split:
        return source.split
    if not source.split_column:
        return hash_split(patient, dict(source.shares), seed)
    value = cells[source.split_column]
    split = source.split_map.get(value, value)
    if split and split not in SPLITS:
        raise DataError(
            f"Column {source.split_column!r} of {source.csv} holds {value!r}; allowed are {', '.join(SPLITS)}, or "
            f"values named in split_map ({nearest(value, SPLITS)})".replace(" ()", "").strip()
        )
    return split


def _labels(source: FolderSource, classes: Sequence[str], cells: dict[str, str]) -> tuple[np.ndarray, str]:
    """Multi-hot f32[C], or the reason why the row has none."""
    if source.label_columns:
        given = [name for name in source.label_columns if cells[name] in ("1", "1.0", "True", "true")]
    else:
        cell = cells[source.label_column or ""]
        parts = cell.split(source.label_separator) if source.label_separator else [cell]
        given = [part.strip() for part in parts if part.strip()]
    if not given:
        return np.zeros(len(classes), np.float32), "the row has no label"
    names = [source.label_map.get(name, name) for name in given]
    known = [name for name in names if name in classes]
    unknown = [name for name in given if source.label_map.get(name, name) not in classes]
    if not known or (unknown and source.unknown_labels == "exclude"):
        return np.zeros(len(classes), np.float32), f"label {unknown[0]!r} is outside the classes {', '.join(classes)}"
    return np.array([name in known for name in classes], np.float32), ""


def _report(source: FolderSource, cells: dict[str, str]) -> tuple[str, str]:
    """The report, or the reason why the row has none."""
    if source.report_template is None:
        report = cells[source.report_column or ""]
    else:
        words = {}
        for name in template_columns(source.report_template):
            if not cells[name]:
                return "", f"column {name!r}, which the report is written from, is empty"
            words[name] = _words(source, name, cells[name])
        report = source.report_template.format_map(words)
    if not re.search(r"[^\W\d_]", report):
        return "", "the report has no words" if report else "the report is empty"
    return report, ""


def _words(source: FolderSource, column: str, value: str) -> str:
    """A cell as words: each of several labels through the column's map, joined by commas."""
    replace = source.value_maps.get(column, {})
    if value in replace:
        return replace[value]
    parts = [value]
    if column == source.label_column and source.label_separator:
        parts = [part.strip() for part in value.split(source.label_separator) if part.strip()]
    return ", ".join(replace.get(part, part.replace("_", " ")) for part in parts)


def _refuse_shared_patients(rows: Sequence[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.patient, row)
        if other.split != row.split:
            raise DataError(
                f"Patient {row.patient!r} is in split {other.split!r} ({other.id}) and in split {row.split!r} "
                f"({row.id}). Splits must not share patients: correct the split column, or split by shares."
            )
