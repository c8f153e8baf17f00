"""Files that are either whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.errors import DataError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or no file as large as that."""


class DiskFullError(OSError):
    """No space (or quota) is left for a file; nothing half-written stays behind."""


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the whole new one.

    Raises:
      DiskFullError: if the disk or quota is full; names the file and the bytes needed.
    """
    with beside(path, len(data)) as place, place.open("wb") as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: object, indent: int | None = 2) -> None:
    """Write JSON as `write_bytes` does. NaN and infinity raise ValueError: no other reader would accept them."""
    write_text(path, json_text(value, indent))


def json_text(value: object, indent: int | None = 2) -> str:
    """Return JSON as `write_json` writes it."""
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Write NumPy arrays to `path` as safetensors, atomically like `write_bytes`.

    Raises:
      DiskFullError: as `write_bytes`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with beside(path, sum(value.nbytes for value in tensors.values())) as place:
        try:
            save_file(dict(tensors), place, metadata=metadata)
        except SafetensorError as error:
            # The library passes on the words of the system, without its number.
            number = next((n for n in (*FULL, errno.EROFS) if os.strerror(n) in str(error)), None)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(path)) from error


def read_toml(package: str, name: str) -> dict[str, Any]:
    """Read a TOML file that a package ships, as constants: tables as dicts, lists as tuples."""

    def constant(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: constant(item) for key, item in value.items()}
        return tuple(map(constant, value)) if isinstance(value, list) else value

    found: dict[str, Any] = constant(tomllib.loads((resources.files(package) / name).read_text("utf-8")))
    return found


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raise DataError, naming the file, if it is not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise DataError(f"{path} is not valid JSON: it nests too deep") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds an object; an empty one where there is no file.

    Raises:
      DataError: any other content, a folder in its place, or a link to nothing, as a cut download leaves it.
    """
    place = Path(path)
    if (place.exists() or place.is_symlink()) and not place.is_file():
        raise DataError(f"{path} is no file, but {'a folder' if place.is_dir() else 'a link to nothing'}.")
    content = read_json(path) if place.is_file() else {}
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object; it holds a {type(content).__name__}.")
    return content


def digest(value: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: str | os.PathLike[str], skip: Collection[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` by its relative path, in order.

    Hidden files are left out, and files and subfolders whose relative path is in `skip`.
    """
    folder, found = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not {parts[0], "/".join(parts)} & {*skip} and not path.name.startswith("."):
            found["/".join(parts)] = sha256(path)
    return found


def remove_leftovers(folder: str | os.PathLike[str]) -> int:
    """Remove the half-written files of a killed process below `folder`, and return their number.

    Call it only while this process holds the folder alone: files that another process is writing would go as well.
    """
    found = [path for path in Path(folder).rglob(".*.tmp") if path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


@contextmanager
def no_space(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[None]:
    """Turn "no space left" inside the block into a DiskFullError that names the file and what it needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        size = "" if needed is None else f" ({needed / 1e6:.1f} MB needed)"
        raise DiskFullError(error.errno, f"no space left to write {path}{size}; free some and run again") from error


@contextmanager
def beside(path: str | os.PathLike[str], size: int) -> Iterator[Path]:
    """Yield a place beside `path` to write to; at the end it is flushed to the disk and takes the name of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with no_space(path, size):
        try:
            yield place
            with place.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(place, path)
            # The rename itself is safe on the disk only once the folder is.
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            place.unlink(missing_ok=True)
