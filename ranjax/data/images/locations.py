"""Where an image lies, in a form that worker processes can be sent, and how it becomes 8-bit grey.

An image is a file, a DICOM file, a member of a tar or zip archive, a row of an .npz array, or a cell of an Arrow or
Parquet table. `load` reads any of them, checks it and says what it found.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ranjax.core.errors import DataError
from ranjax.data.images import dicom
from ranjax.data.images.reading import UNREADABLE, open_image, refuse_constant, to_grey

MEMBER_LIMIT = 256 << 20
"""Bytes of one archive member at most, unpacked."""
TABLE_LIMIT = 32 << 30
"""Bytes of a table or of all arrays of an .npz file at most, unpacked: the largest public sets have 16 GiB."""


@dataclasses.dataclass(frozen=True)
class FileRef:
    """An image file, or a DICOM file (told by its content). `invert`: the publisher says that black shines."""

    path: str
    invert: bool = False


@dataclasses.dataclass(frozen=True)
class SliceRef:
    """Bytes of a larger file: a member of an uncompressed tar."""

    path: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class ZipRef:
    """A member of a zip archive."""

    path: str
    member: str


@dataclasses.dataclass(frozen=True)
class ArrayRef:
    """Row `index` of array `name` in an .npz file."""

    path: str
    name: str
    index: int


@dataclasses.dataclass(frozen=True)
class CellRef:
    """Row `index` of column `name` in an Arrow stream or Parquet file: bytes, or a struct with "bytes"."""

    path: str
    name: str
    index: int


@dataclasses.dataclass(frozen=True)
class RecordRef:
    """Record `index` of a split of a prepared tensorflow-datasets set; `path` is the folder of its version."""

    path: str
    split: str
    name: str
    index: int


Reference = FileRef | SliceRef | ZipRef | ArrayRef | CellRef | RecordRef


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A picture as Pillow "L", with what was stored: mode, height, width, least and greatest value."""

    picture: Image.Image
    mode: str
    size: tuple[int, int]
    low: float
    high: float


def load(reference: Reference) -> Loaded:
    """Reads an image.

    Raises:
      DataError: absent, empty, unreadable, beyond the limits, or of one constant grey; the message says which.
    """
    if isinstance(reference, ArrayRef):
        array = _arrays(reference.path)[reference.name][reference.index]
        if array.dtype != np.uint8:
            raise DataError(f"the array holds {array.dtype}, not uint8")
        return _described(Image.fromarray(np.ascontiguousarray(array)))
    data = _record(reference) if isinstance(reference, RecordRef) else _bytes(reference)
    if _is_dicom(data):
        picture, header = dicom.read_dicom(data)
        refuse_constant(picture)
        low, high = picture.getextrema()
        mode = f"DICOM {header['PhotometricInterpretation'] or 'without photometric interpretation'}"
        return Loaded(picture, mode, (picture.height, picture.width), low, high)
    with open_image(data) as image:
        return _described(image, invert=isinstance(reference, FileRef) and reference.invert)


def size_of(reference: Reference) -> int:
    """Bytes of the stored image where they are cheap to ask for: they tell a changed file. -1: absent, 0: not asked."""
    if isinstance(reference, FileRef):
        path = Path(reference.path)
        return path.stat().st_size if path.is_file() else -1
    return reference.size if isinstance(reference, SliceRef) else 0


def _described(image: Image.Image, invert: bool = False) -> Loaded:
    try:
        mode, size = image.mode, (image.height, image.width)
        picture = to_grey(image)
        extrema = image.getextrema() if mode != "P" else picture.getextrema()
    except UNREADABLE as error:
        raise DataError(f"the image is unreadable ({type(error).__name__}: {str(error)[:120]})") from error
    refuse_constant(picture)
    if invert:
        picture = picture.point([255 - value for value in range(256)])
    bounds = np.asarray(extrema, np.float64)
    return Loaded(picture, mode, size, float(bounds.min()), float(bounds.max()))


def _bytes(reference: FileRef | SliceRef | ZipRef | CellRef) -> bytes:
    path = Path(reference.path)
    if not path.is_file():
        raise DataError("the image file does not exist")
    if isinstance(reference, CellRef):
        return _cell(reference)
    if isinstance(reference, ZipRef):
        return _zip_member(reference)
    if isinstance(reference, SliceRef):
        with path.open("rb") as file:
            file.seek(reference.offset)
            data = file.read(min(reference.size, MEMBER_LIMIT + 1))
    else:
        if path.stat().st_size > dicom.FILE_LIMIT:
            raise DataError(f"the image file has {path.stat().st_size / 1e6:.0f} MB, over the limit")
        data = path.read_bytes()
    if not data:
        raise DataError("the image file is empty (0 bytes)")
    return data


def _zip_member(reference: ZipRef) -> bytes:
    with zipfile.ZipFile(reference.path) as archive:
        try:
            info = archive.getinfo(reference.member)
        except KeyError as error:
            raise DataError("the archive has no such member") from error
        if info.file_size > MEMBER_LIMIT:
            raise DataError(f"the archive member unpacks to {info.file_size / 1e6:.0f} MB, over the limit")
        # The stated size may lie: no more is unpacked than the limit allows.
        with archive.open(info) as file:
            data = file.read(MEMBER_LIMIT + 1)
    if len(data) > MEMBER_LIMIT:
        raise DataError("the archive member unpacks to more than it states")
    return data


def _cell(reference: CellRef) -> bytes:
    value: Any = read_table(reference.path).column(reference.name)[reference.index].as_py()
    if isinstance(value, dict):
        value = value.get("bytes") or _beside(reference.path, value.get("path"))
    if not isinstance(value, bytes) or not value:
        raise DataError("the table's cell holds no image bytes")
    return value


def _record(reference: RecordRef) -> bytes:
    return open_records(reference.path, reference.split, reference.name)[reference.index][reference.name]


@functools.lru_cache(maxsize=4)
def open_records(path: str, split: str, image: str) -> Any:
    """A split of a prepared TFDS set by position, with encoded images as bytes; without TensorFlow."""
    import tensorflow_datasets as tfds

    from ranjax.data.sources import tfds_builder

    builder = tfds_builder("", path)
    return builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})


def _beside(table: str, name: str | None) -> bytes | None:
    """A picture that a table names by path: only one below the table's own folder is read."""
    if not name:
        return None
    root = Path(table).resolve().parent
    path = (root / name).resolve()
    return path.read_bytes() if path.is_relative_to(root) and path.is_file() else None


@functools.lru_cache(maxsize=2)
def read_table(path: str) -> Any:
    """An Arrow stream, Arrow file or Parquet file as a table; the first two are mapped, not read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        if path.endswith(".parquet"):
            stated = parquet.read_metadata(path)
            _check_size(path, sum(stated.row_group(i).total_byte_size for i in range(stated.num_row_groups)))
            return parquet.read_table(path)
        mapped = pa.memory_map(path)
        try:
            return pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(pa.memory_map(path)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Arrow or Parquet table: {str(error)[:200]}") from error


@functools.lru_cache(maxsize=1)
def _arrays(path: str) -> dict[str, np.ndarray]:
    return load_arrays(path, "_images")


def load_arrays(path: str, ending: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file whose names end so.

    Raises:
      DataError: no such file, arrays of Python objects (which are pickles), or more than `TABLE_LIMIT`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # zipfile unpacks no more than a member states.
            _check_size(path, sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name.endswith(ending)}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no .npz file of arrays: {str(error)[:200]}") from error


def _check_size(path: str, size: int) -> None:
    if size > TABLE_LIMIT:
        raise DataError(f"{path} unpacks to {size / 1e9:.0f} GB, over the limit of {TABLE_LIMIT / 1e9:.0f} GB")


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"
