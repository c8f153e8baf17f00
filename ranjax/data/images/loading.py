"""Images of any `locations.Reference` as checked 8-bit grey, with what was stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.core.errors import DataError
from ranjax.data.images import dicom
from ranjax.data.images.locations import (
    MEMBER_LIMIT,
    ArrayRef,
    CellRef,
    FileRef,
    RecordRef,
    Reference,
    SliceRef,
    open_records,
    read_table,
    row_of,
)
from ranjax.data.images.reading import marks_of, open_image, readable, refuse_constant, to_grey
from ranjax.data.prepared_files import readable_records


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A picture as Pillow "L", with what was stored: mode, height, width, least and greatest value.

    marks: what a reader of the set should know of it, in words.
    """

    picture: Image.Image
    mode: str
    size: tuple[int, int]
    low: float
    high: float
    marks: tuple[str, ...] = ()


def load(reference: Reference) -> Loaded:
    """Read an image.

    Raises:
      DataError: absent, empty, unreadable, beyond the limits, or of one constant grey; the message says which.
    """
    if isinstance(reference, ArrayRef):
        array = row_of(reference)
        if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
            raise DataError(f"the array holds {array.dtype}{list(array.shape)}, no picture of uint8")
        return _described(Image.fromarray(np.ascontiguousarray(array)))
    data = _bytes(reference)
    if data[128:132] == b"DICM":
        picture, header = dicom.read_dicom(data)
        refuse_constant(picture)
        low, high = np.asarray(picture.getextrema(), np.float64)
        mode = f"DICOM {header['PhotometricInterpretation'] or 'without photometric interpretation'}"
        return Loaded(picture, mode, (picture.height, picture.width), float(low), float(high), dicom.marks_of(header))
    with open_image(data) as image:
        return _described(image, invert=isinstance(reference, FileRef) and reference.invert)


def _described(image: Image.Image, invert: bool = False) -> Loaded:
    with readable():
        mode, size, marks = image.mode, (image.height, image.width), marks_of(image)
        picture = to_grey(image)
        extrema = image.getextrema() if mode != "P" else picture.getextrema()
    refuse_constant(picture)
    if invert:
        picture = picture.point([255 - value for value in range(256)])
    bounds = np.asarray(extrema, np.float64)
    return Loaded(picture, mode, size, float(bounds.min()), float(bounds.max()), marks)


def _bytes(reference: FileRef | SliceRef | CellRef | RecordRef) -> bytes:
    if isinstance(reference, RecordRef):
        with readable_records(f"record {reference.index} of {reference.split}"):
            return open_records(reference.path, reference.split, reference.name)[reference.index][reference.name]
    path = Path(reference.path)
    if not path.is_file():
        raise DataError("the image file does not exist")
    if isinstance(reference, CellRef):
        return _cell(reference)
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


def _cell(reference: CellRef) -> bytes:
    value: object = read_table(reference.path).column(reference.name)[reference.index].as_py()
    if isinstance(value, dict):
        value = value.get("bytes") or _beside(reference.path, value.get("path"))
    if not isinstance(value, bytes) or not value:
        raise DataError("the table's cell holds no image bytes")
    return value


def _beside(table: str, name: str | None) -> bytes | None:
    """Read a picture that a table names by path, but only one below the table's own folder."""
    if not name:
        return None
    root = Path(table).resolve().parent
    path = (root / name).resolve()
    return path.read_bytes() if path.is_relative_to(root) and path.is_file() else None
