"""Publishers' files and trees: texts (plain, gzip, zip), and where an image of a given name lies."""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ranjax.core.errors import DataError

TEXT_LIMIT = 2 << 30
"""Bytes of a table at most, unpacked: a larger one is no table of these sets."""


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


def unpacked(path: Path) -> bytes:
    """Read a file; unpacked where it is .gz, or .zip of one file.

    Raises:
      DataError: it cannot be read, unpacks beyond the limit, or is an archive of several files.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                data = file.read(TEXT_LIMIT + 1)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if not name.startswith("__MACOSX") and name[-1:] != "/"]
                if len(members) != 1:
                    raise DataError(f"The archive {path} must hold one file; it holds {len(members)}.")
                with archive.open(members[0]) as file:
                    data = file.read(TEXT_LIMIT + 1)
        else:
            with path.open("rb") as file:
                data = file.read(TEXT_LIMIT + 1)
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"The file {path} cannot be read ({type(error).__name__}: {error}).") from error
    if len(data) > TEXT_LIMIT:
        raise DataError(f"The file {path} unpacks to more than {TEXT_LIMIT >> 30} GiB.")
    return data


def text(path: Path) -> str:
    """Read a text file, decoded as `decode` does, unpacked as `unpacked` does, whose errors it raises."""
    return decode(unpacked(path))


def encoding_of(data: bytes) -> str:
    """Return UTF-8 with or without a mark, UTF-16 with one (spreadsheets write it), else Windows-1252, else Latin-1."""
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError):
            data.decode(encoding)
            return encoding
    return "latin-1"


def decode(data: bytes) -> str:
    """Decode bytes of any encoding that `encoding_of` knows."""
    return data.decode(encoding_of(data))


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
