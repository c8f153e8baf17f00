"""The one reader of tables: CSV, TSV, JSON and JSON lines, each row with its place, or why it cannot be read.

Rows of CSV are cut by Python's own parser in its strict mode. pyarrow and the parser of pandas were tried: of a quote
that is not closed they make one row of two without a word where a later cell has quotes, and pandas fills short rows.

    table = read(Path("index.csv"), ("file", "report"))
    for row in table.rows:
        row.cells["report"]
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.publisher_tables import encoding_of, unpacked

Cells = dict[str, object]
"""The cells of a row by column: texts of CSV, any value of JSON."""

csv.field_size_limit(1 << 24)
_FILE = re.compile(r"\S+\.(png|jpe?g|dcm|dicom|tiff?|bmp|webp|jp2)", re.IGNORECASE)


class Line(NamedTuple):
    """A row of a table.

    line: of the file, where the row begins (of JSON, the row's number). place: as "row 3 of index.csv". cells: by
    column. fault: why the row cannot be read; there are no cells then.
    """

    line: int
    place: str
    cells: Cells
    fault: str = ""


class Table(NamedTuple):
    """A table that was opened: its columns, its encoding, and its rows, which are read as they are gone through."""

    path: Path
    columns: tuple[str, ...]
    encoding: str
    rows: Iterator[Line]


def read(path: Path, columns: Sequence[str] = (), flag: str = "", utf8: bool = False, lines: bool = False) -> Table:
    """Open a table: .json, .jsonl, else text with commas, semicolons or tabs; also packed as .gz or .zip.

    Args:
      path: of the table.
      columns: names that it must have.
      flag: key that an error names where one is missing; default "column of NAME".
      utf8: refuse other encodings.
      lines: read JSON lines, whatever the ending.

    Raises:
      DataError: it cannot be read, names a column twice, or is malformed beyond one row. Going through the rows raises
        it, too: for a quote that is never closed, which takes all rows behind it.
      ConfigError: one of `columns` is missing, with those present and the nearest.
    """
    if not path.is_file():
        raise DataError(f"The table {path} does not exist.")
    data = unpacked(path)
    encoding = encoding_of(data)
    if utf8 and encoding != "utf-8-sig":
        raise DataError(f"The table {path} is not UTF-8; save it as a CSV in UTF-8.")
    content = data.decode(encoding)
    if "\0" in content:
        raise DataError(f"The table {path} holds NUL characters: is it UTF-16 without a mark, or damaged?")
    name = path.name.lower().removesuffix(".gz").removesuffix(".zip")
    if lines or name.endswith((".json", ".jsonl", ".ndjson")):
        present, found = _json_rows(path, content, whole=name.endswith(".json") and not lines)
    else:
        present, found = _text_rows(path, content)
    for name in columns:
        if name not in present:
            expected = f"one of {', '.join(filter(None, present))}"
            raise ConfigError(flag or f"column of {path.name}", name, expected, nearest(name, present))
    return Table(path, present, encoding, found)


def rows(path: Path, columns: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a publisher's CSV as texts; rows that are wholly empty are left out.

    Raises:
      ConfigError, DataError: as `read`, and for the first row that cannot be read.
    """
    for line in read(path, columns).rows:
        if line.fault == EMPTY:
            continue
        if line.fault:
            raise DataError(f"{line.place}: {line.fault}.")
        yield {name: str(value) for name, value in line.cells.items()}


def objects(path: Path, columns: Sequence[str] = (), lines: bool = False) -> list[Cells]:
    """Return the objects of a publisher's JSON file, each of which has all of `columns`.

    With `lines` they stand one a line, whatever the ending of the file.

    Raises:
      ConfigError, DataError: as `read`, and for the first row that cannot be read or lacks a column.
    """
    found = []
    for line in read(path, columns, lines=lines).rows:
        absent = [name for name in columns if name not in line.cells]
        if line.fault or absent:
            raise DataError(f"{line.place}: {line.fault or f'the key {absent[0]!r} is absent'}.")
        found.append(line.cells)
    return found


def keyed(path: Path, key: str, columns: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Return the rows of a publisher's CSV by the column `key`; a row that stands twice is one.

    Raises:
      ConfigError, DataError: as `rows`, and for a key whose rows differ in one of `columns` (none: in any).
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows(path, (key, *columns)):
        other = found.setdefault(row[key], row)
        if differing := next((name for name in columns or row if other[name] != row[name]), ""):
            both = f"{other[differing]!r} and {row[differing]!r}"
            raise DataError(f"{path.name}: {key} {row[key]!r} stands twice, with {differing} {both}.")
    return found


EMPTY = "the row is empty"


def _text_rows(path: Path, content: str) -> tuple[tuple[str, ...], Iterator[Line]]:
    # Excel says so in a line of its own.
    stated = re.match(r'"?sep=([,;\t])"?(?:\r\n|\r|\n)', content)
    content = content[stated.end() :] if stated else content
    delimiter = stated.group(1) if stated else "\t" if ".tsv" in path.name.lower() else _delimiter(content)
    reader = csv.reader(_lines_of(content), delimiter=delimiter, strict=True)
    header: tuple[str, ...] = ()
    while not header:
        cells = _next(reader, path)
        if cells is None:
            raise DataError(f"The table {path} is empty.")
        header = tuple(cell.strip() for cell in cells)
    _check_header(path, header)
    return header, _cut(reader, path, header, delimiter)


def _cut(reader: Iterator[list[str]], path: Path, header: tuple[str, ...], delimiter: str) -> Iterator[Line]:
    number = 0
    while True:
        begin = reader.line_num + 1  # type: ignore[attr-defined]
        cells = _next(reader, path)
        if cells is None:
            return
        if not cells:
            continue
        number += 1
        place = f"row {number} of {path.name}"
        for at, cell in enumerate(cells):
            if "\n" in cell or "\r" in cell:
                _check_lines(cell, at, len(cells), len(header), delimiter, f"line {begin} of {path}")
        # Spreadsheets write empty cells behind the last column.
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if not any(cell.strip() for cell in cells):
            yield Line(begin, place, {}, EMPTY)
        elif len(cells) != len(header):
            kind = "more" if len(cells) > len(header) else "fewer"
            counted = f"{kind} fields than the first line has names ({len(cells)}, not {len(header)})"
            hint = "; a text with separators stands in quotes" if kind == "more" else ""
            yield Line(begin, place, {}, f"line {begin} of {path.name} has {counted}{hint}")
        else:
            yield Line(begin, place, {name: cell.strip() for name, cell in zip(header, cells) if name})


def _next(reader: Iterator[list[str]], path: Path) -> list[str] | None:
    """Return the next row of a CSV, or None at its end. Raises DataError that names the line where the row begins."""
    begin = reader.line_num + 1  # type: ignore[attr-defined]
    try:
        return next(reader, None)
    except csv.Error as error:
        said = str(error)
        if "unexpected end" in said or "field larger" in said:
            said = "a quote is opened and never closed, so that no row behind it can be told"
        elif "expected after" in said:
            said = f"a quote is not closed, or stands inside a quoted cell ({said}); inside a cell it is written twice"
        raise DataError(f"line {begin} of {path}: {said}.") from error


def _check_lines(cell: str, at: int, cells: int, columns: int, delimiter: str, where: str) -> None:
    """Refuse a cell that runs over what look like further rows: its quote was meant to end before.

    Prose has a blank behind a comma, separators of cells have none.
    """
    parts = [line.split(delimiter) for line in re.split(r"\r\n|\r|\n", cell)]
    tight = [not any(part[:1].isspace() for part in found[1:]) for found in parts]
    whole = [columns > 2 and len(found) == columns and close for found, close in zip(parts, tight)]
    whole = [row or bool(len(found) > 1 and _FILE.fullmatch(found[0].strip('" '))) for row, found in zip(whole, parts)]
    # Opened within one row and closed within another: both are whole with the cells before and behind.
    ends = columns > 2 and at + len(parts[0]) == columns == len(parts[-1]) + cells - 1 - at
    if any(whole[1:]) or (ends and tight[0] and tight[-1] and len(parts[0]) > 1 and len(parts[-1]) > 1):
        line = delimiter.join(next((found for found, row in zip(parts[1:], whole[1:]) if row), parts[-1]))
        raise DataError(f"{where}: a quoted cell runs over what looks like a further row ({line[:40]!r}).")


def _lines_of(content: str) -> Iterator[str]:
    """Yield lines with their ends, as `io.StringIO` does with newline="", which takes four bytes a character."""
    return (found.group() for found in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", content))


def _delimiter(content: str) -> str:
    """Return what separates the columns of the header: spreadsheets of many countries write semicolons."""
    found = re.search(r"[^\r\n]+", content)
    header = found.group() if found else ""
    return max((",", ";", "\t"), key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_header(path: Path, header: Sequence[str]) -> None:
    # Columns without a name are those of an index, or behind the last one.
    named = [name for name in header if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"The table {path} names the column {twice!r} twice: each name must stand once.")


def _json_rows(path: Path, content: str, whole: bool) -> tuple[tuple[str, ...], Iterator[Line]]:
    """Return the union of the keys, and the rows; a row need not have every key."""
    if whole:
        try:
            given = _load(content)
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(given, list):
            raise DataError(f"{path} must hold a list of objects, one a row; it holds a {type(given).__name__}.")
    # Lines are read twice, for the keys and for the rows, so that they need not be held.
    keys = dict.fromkeys(
        key for row in (given if whole else _json_texts(content)) if isinstance(row, dict) for key in row
    )
    return tuple(keys), _json_lines(path, given if whole else _json_texts(content))


def _json_texts(content: str) -> Iterator[object]:
    """Yield the value of each line that is not blank, or a text that says why there is none."""
    # Not by splitlines, which cuts at marks that may stand inside a JSON text.
    for number, found in enumerate(re.finditer(r"[^\n]*(?:\n|\Z)", content), start=1):
        if (text := found.group()).strip():
            try:
                yield _load(text)
            except ValueError as error:
                yield f"line {number} is not valid JSON ({error})"


def _json_lines(path: Path, given: Iterable[object]) -> Iterator[Line]:
    for number, row in enumerate(given, start=1):
        place = f"row {number} of {path.name}"
        if isinstance(row, dict):
            yield Line(number, place, row)
        else:
            yield Line(number, place, {}, row if isinstance(row, str) else "the row is no JSON object")


def _load(text: str) -> object:
    """Parse JSON; NaN is an empty cell, and a key that comes twice in an object is an error."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def _constant(text: str) -> float:
    return float(text.replace("Infinity", "inf"))


def _unique(pairs: list[tuple[str, object]]) -> Cells:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} comes twice")
    return found


def parse_object(text: str) -> Cells:
    """Parse one JSON object, as a sample of a tar holds it.

    Raises:
      ValueError: it is no JSON, no object, or has a key twice.
    """
    found = _load(text)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
