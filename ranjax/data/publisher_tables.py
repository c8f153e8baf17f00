"""Publishers' tables and trees: CSV (plain, gzip, zip), JSON, and where an image of a given name lies."""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ranjax.core.errors import ConfigError, DataError, nearest

TEXT_LIMIT = 2 << 30
"""Bytes of a table at most, unpacked: a larger one is no table of these sets."""
csv.field_size_limit(1 << 24)


def find(root: Path, *names: str) -> Path | None:
    """Return the first of `names` (patterns allowed) that exists at or one folder below `root`, or None."""
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist.")
    for place in (root, *sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))):
        for name in names:
            found = sorted(place.glob(name)) if any(c in name for c in "*?[") else [place / name]
            for path in found:
                if path.exists():
                    return path
    return None


def needed(root: Path, *names: str) -> Path:
    """Return what `find` finds.

    Raises:
      DataError: none exists; the message names all of them and what lies there instead.
    """
    path = find(root, *names)
    if path is None:
        present = sorted(path.name for path in root.iterdir())[:12]
        raise DataError(f"None of {', '.join(names)} lies in {root}; it holds {', '.join(present) or 'nothing'}.")
    return path


def rows(path: Path, columns: Sequence[str] = (), delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Return the rows of a CSV as dicts; names and cells without surrounding blanks. Reads .gz, and .zip of one member.

    Raises:
      DataError: it cannot be read as CSV.
      ConfigError: one of `columns` is missing, with those present and the nearest.
    """
    try:
        reader = csv.reader(io.StringIO(text(path), newline=""), delimiter=delimiter)
        header = [name.strip().lstrip("\ufeff") for name in next(reader, [])]
        for name in columns:
            if name not in header:
                raise ConfigError(f"column of {path.name}", name, f"one of {', '.join(header)}", nearest(name, header))
        for cells in reader:
            if any(cells):
                yield dict(zip(header, (cell.strip() for cell in cells + [""] * (len(header) - len(cells)))))
    except csv.Error as error:
        raise DataError(f"The table {path} cannot be read as CSV: {error}") from error


def text(path: Path) -> str:
    """Read a text file, decoded as `decode` does; unpacked where it is .gz, or .zip of one file.

    Raises:
      DataError: it cannot be read, or unpacks beyond the limit.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                data = file.read(TEXT_LIMIT + 1)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                member = next(name for name in archive.namelist() if not name.startswith("__MACOSX"))
                with archive.open(member) as file:
                    data = file.read(TEXT_LIMIT + 1)
        else:
            with path.open("rb") as file:
                data = file.read(TEXT_LIMIT + 1)
    except (OSError, EOFError, zipfile.BadZipFile, StopIteration) as error:
        raise DataError(f"The file {path} cannot be read ({type(error).__name__}: {error}).") from error
    if len(data) > TEXT_LIMIT:
        raise DataError(f"The file {path} unpacks to more than {TEXT_LIMIT >> 30} GiB.")
    return decode(data)


def decode(data: bytes) -> str:
    """Decode UTF-8 with or without a mark, UTF-16 with one (spreadsheets write it), else Windows-1252, else Latin-1,
    which
    reads any bytes."""
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return data.decode("latin-1")


def load_json(path: Path) -> Any:
    """Read a JSON file, or a list of the lines of a .jsonl file. Raises DataError for one that is neither."""
    content = text(path)
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


@functools.lru_cache(maxsize=4)
def files_below(root: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return every file below `root` with one of `suffixes` by its name; hidden ones and __MACOSX left out, sorted."""
    found: dict[str, Path] = {}
    for at, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                found.setdefault(name, Path(at) / name)
    return found


def inside(root: Path, relative: str) -> Path:
    """Return `root / relative`. Raises DataError where that leaves `root`: a table must not name files elsewhere."""
    pure = PurePosixPath(relative.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"the path {relative!r} leaves the folder of the set")
    return root / pure


def safe_member(member: tarfile.TarInfo, limit: int) -> str:
    """Return why a tar member must not be read, or "": links, devices, paths that leave the archive, and bombs."""
    pure = PurePosixPath(member.name)
    if not member.isreg():
        return "the archive member is no regular file"
    if pure.is_absolute() or ".." in pure.parts:
        return "the archive member's path leaves the archive"
    if member.size > limit:
        return f"the archive member has {member.size / 1e6:.0f} MB, over the limit of {limit / 1e6:.0f} MB"
    return ""
