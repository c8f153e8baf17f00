"""Whether the files of a prepared set are those that were written: its manifest, its tables of features, its shards.

The manifest holds a mark of each file and a digest of itself. Shards are not read for it: their size and first mebibyte
tell a missing, cut or exchanged one, and array_record's own checksums tell the rest where a record is read. Arrow files
have no checksums, and are hashed whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ranjax.core import files
from ranjax.core.errors import DataError

MARKS, SEAL = "files", "seal"
"""Keys of the manifest: marks of the files beside it, and a digest of all its other keys."""
_HEAD, _WHOLE = 1 << 20, ":whole"
_NOT_MARKED = ("prepared.json", "page.html", "contact_sheet.png")
_TYPES: Mapping[str, type] = {
    "fingerprint": str,
    "content": str,
    "classes": list,
    "prompts": dict,
    "label_words": list,
    "card": dict,
    "counts": dict,
    "exclusions": list,
}
_AGAIN = "prepare the set again, into another folder or after removing this one"


def sealed(folder: Path, manifest: Mapping[str, object]) -> dict[str, object]:
    """Return a manifest with the marks of the files that lie in `folder`, and its seal."""
    # As it will be read: JSON knows neither tuples nor keys that are numbers.
    content = json.loads(files.json_text({**manifest, MARKS: dict(_marks(folder))}))
    return {**content, SEAL: files.digest(content)}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest; those of earlier versions have neither marks nor a seal.

    Raises:
      DataError: it is no manifest, or was changed after it was written.
    """
    stored = files.read_object(path)
    for key, kind in _TYPES.items():
        if not isinstance(stored.get(key), kind):
            found = "absent" if key not in stored else f"a {type(stored[key]).__name__}"
            raise DataError(f"{path}: {key!r} is {found}, not a {kind.__name__}: {_AGAIN}.")
    seal = stored.get(SEAL)
    if seal is not None and seal != files.digest({key: value for key, value in stored.items() if key != SEAL}):
        raise DataError(f"{path} was changed after it was written: {_AGAIN}.")
    return stored


def check(folder: Path, stored: Mapping[str, Any]) -> None:
    """Raise DataError for a file of a set that is missing, cut, exchanged or changed."""
    wanted: Mapping[str, str] = stored.get(MARKS) or {}
    for name, mark in wanted.items():
        path = folder / name
        if not path.is_file() or _mark(path, mark.endswith(_WHOLE)) != mark:
            what = "was changed, cut or exchanged after it was written" if path.is_file() else "is missing"
            raise DataError(f"{path} {what}: {_AGAIN}.")


def check_splits(folder: Path, stored: Mapping[str, Any], splits: Mapping[str, int]) -> None:
    """Raise DataError where the records by split are not as many as the manifest counts."""
    for name, count in stored["counts"].items():
        if splits.get(name) != count:
            held = "no such split" if name not in splits else f"{splits[name]} records"
            raise DataError(
                f"{folder}: the manifest counts {count} records of {name}, its shards hold {held}: {_AGAIN}."
            )


@contextmanager
def readable_records(place: object) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged set into a DataError of one line that names the place."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    # tensorflow-datasets, protobuf, array_record and NumPy raise errors of all kinds for files that are damaged.
    except Exception as error:
        raise DataError(f"{place} cannot be read ({said(error)}): a file is damaged; {_AGAIN}.") from error


def said(error: Exception) -> str:
    """Return an error's kind and first words in one line, without addresses of memory, which differ from run to run."""
    words = re.sub(r"\b0x[0-9a-fA-F]{6,}\b", "an address", f"{type(error).__name__}: {error}")
    return " ".join(words.split())[:160]


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of a set with its mark."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name not in _NOT_MARKED:
            yield path.name, _mark(path, path.suffix == ".arrow")


def _mark(path: Path, whole: bool) -> str:
    """Return a file's size with the SHA-256 of all of it, or of its first mebibyte."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256") if whole else hashlib.sha256(file.read(_HEAD))
    return f"{path.stat().st_size}:{found.hexdigest()[:32]}{_WHOLE if whole else ''}"
