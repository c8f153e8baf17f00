"""Read the images and reports of `ranjax attack`, and refuse them before anything is attacked."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.text.deidentify import deidentify


class Pair(NamedTuple):
    """An image, by its path below the folder, which is also its id, and its reports, one a line of the CSV."""

    id: str
    reports: tuple[str, ...]


def read_pairs(
    images: Path, table: Path, image_column: str, report_column: str, deidentified: bool = True
) -> list[Pair]:
    """Return images with the reports of their lines, with marks in place of names and numbers, see `deidentify`.

    Raises:
      ConfigError: a column that the table does not have, or has twice. DataError: no table, one that is no CSV in
        UTF-8, nothing in it, an image that is absent or outside the folder, a line that is given twice or has more
        fields than the first one, an empty report; the line is named.
    """
    if not table.is_file():
        raise DataError(f"The table {table} does not exist.")
    if not images.is_dir():
        raise DataError(f"The folder of images {images} does not exist.")
    root, found = images.resolve(), dict[str, list[str]]()
    lines = _lines(table, ("--image_column", image_column), ("--report_column", report_column))
    for number, (name, report) in enumerate(lines, start=2):
        where = f"line {number} of {table}"
        identity = _identity(root, name)
        if identity is None:
            raise DataError(f"{where}: image {name!r} is no file in {images}")
        if not report:
            raise DataError(f"{where}: the report of {name!r} is empty")
        if report in found.setdefault(identity, []):
            raise DataError(f"{where}: image {name!r} is given twice with the same report")
        found[identity].append(report)
    if not found:
        raise DataError(f"The table {table} has no lines.")
    return [
        Pair(name, tuple(deidentify(report)[0] if deidentified else report for report in reports))
        for name, reports in found.items()
    ]


def _lines(table: Path, *columns: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    """The cells of `columns`, each (option, name), line by line."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            for flag, name in columns:
                if names.count(name) != 1:
                    expected = f"a column of {table}, once: {names}"
                    raise ConfigError(flag, name, expected, nearest(name, [n for n in names if n != name]))
            for row in reader:
                if any(row.get(None) or ()):  # type: ignore[call-overload]
                    raise DataError(
                        f"line {reader.line_num} of {table} has more fields than the first line has names; a report "
                        'with commas stands in quotes ("...")'
                    )
                yield tuple((row[name] or "").strip() for _, name in columns)
    except UnicodeDecodeError as error:
        raise DataError(f"The table {table} is not UTF-8 ({error.reason}); save it as a CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"The table {table} is no CSV that can be read: {error}.") from error


def _identity(root: Path, name: str) -> str | None:
    """The path of an image below `root`, in one spelling, or None where it is no file in there."""
    for spelling in (name, name.replace("\\", "/")):
        path = (root / spelling).resolve()
        if spelling and path.is_relative_to(root) and path.is_file():
            inside = path.relative_to(root) if Path(spelling).is_absolute() else Path(os.path.normpath(spelling))
            return inside.as_posix()
    return None


def targets(images: Path, out: Path, pairs: Sequence[Pair]) -> dict[str, Path]:
    """Return the file of each attacked image. It ends as the given one, so that a.jpg and a.png do not meet.

    Raises:
      ConfigError: `out` is no folder, or an image would be written over one that was given, or over another.
    """
    standing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise ConfigError("--out", str(out), "a folder, or a place where one can be made")
    found = {pair.id: out / "images" / (pair.id if pair.id.endswith(".png") else f"{pair.id}.png") for pair in pairs}
    given = {(images / pair.id).resolve() for pair in pairs}
    if any(path.resolve() in given for path in found.values()):
        raise ConfigError("--out", str(out), "another folder: the attacked images would replace the given ones")
    if len(set(found.values())) < len(found):
        written = list(found.values())
        twice = next(path for path in written if written.count(path) > 1)
        raise DataError(f"two of the images would both be written to {twice}; rename one")
    return found


def check_images(pairs: Sequence[Pair], read: Callable[[str], object]) -> None:
    """Raise DataError that names up to five images that cannot be read, before the last of many stops a long run.

    Args:
      pairs: with the images.
      read: reads one by its name.
    """
    faults = []
    for pair in pairs:
        try:
            read(pair.id)
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError("; ".join(faults[:5]) + more)
