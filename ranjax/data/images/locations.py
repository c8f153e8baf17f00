"""Where an image lies, in a form that worker processes can be sent; `loading.load` reads it.

An image is a file, a DICOM file, a member of a tar archive, a row of an .npz array, or a cell of an Arrow or
Parquet table.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.errors import DataError
from ranjax.data.prepared_files import readable_records, said

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


Reference = FileRef | SliceRef | ArrayRef | CellRef | RecordRef
_KINDS = {kind.__name__: kind for kind in (FileRef, SliceRef, ArrayRef, CellRef, RecordRef)}


def pack(reference: Reference) -> list[object]:
    """Return a reference as a list that JSON can say."""
    return [type(reference).__name__, *(getattr(reference, field.name) for field in dataclasses.fields(reference))]


def unpack(values: Sequence[Any]) -> Reference:
    """Return the reference that `pack` made a list of."""
    return _KINDS[values[0]](*values[1:])


def size_of(reference: Reference) -> int:
    """Return the bytes of the stored image, which tell a changed file; -1 where it is absent, 0 where asking is not
    cheap."""
    if isinstance(reference, FileRef):
        path = Path(reference.path)
        return path.stat().st_size if path.is_file() else -1
    return reference.size if isinstance(reference, SliceRef) else 0


@functools.lru_cache(maxsize=4)
def open_records(path: str, split: str, image: str) -> Any:
    """Open a split of a prepared TFDS set by position, with encoded images as bytes; without TensorFlow."""
    import tensorflow_datasets as tfds

    builder = tfds_builder("", path)
    with readable_records(f"{split} of {path}"):
        return builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})


def tfds_builder(name: str, data_dir: str | os.PathLike[str]) -> Any:
    """Return a read-only TFDS builder from files alone; no dataset code is imported.

    Args:
      name: "name", "name/config" or "name/config:version"; or "" where `data_dir` is the folder of one version.
      data_dir: the TFDS data folder.

    Raises:
      DataError: no such prepared set, or one that was not written as array_record.
    """
    import tensorflow_datasets as tfds

    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(f"The data folder {folder} does not exist.")
    try:
        if (folder / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(os.fspath(folder))
        else:
            builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=os.fspath(folder))
    except (tfds.core.DatasetNotFoundError, FileNotFoundError) as error:
        present = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise DataError(f"No prepared set {name!r} in {folder}; it holds {present or 'nothing'}.") from error
    # For files that are damaged it raises errors of all kinds.
    except Exception as error:
        raise DataError(f"The prepared set in {folder} cannot be read: {said(error)}.") from error
    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        raise DataError(
            f"The set in {builder.data_dir} is stored as {getattr(file_format, 'value', None)}; only array_record can "
            "be read at random without TensorFlow. Prepare it with file_format='array_record'."
        )
    return builder


@functools.lru_cache(maxsize=2)
def read_table(path: str) -> Any:
    """Open an Arrow stream, Arrow file or Parquet file as a table; the first two are mapped, not read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        if path.endswith(".parquet"):
            stated = parquet.read_metadata(path)
            _check_size(path, sum(stated.row_group(i).total_byte_size for i in range(stated.num_row_groups)))
            return _whole(path, parquet.read_table(path))
        mapped = pa.memory_map(path)
        try:
            return _whole(path, pa.ipc.open_stream(mapped).read_all())
        except pa.ArrowInvalid:
            return _whole(path, pa.ipc.open_file(pa.memory_map(path)).read_all())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is no Arrow or Parquet table: {said(error)}") from error


def _whole(path: str, table: Any) -> Any:
    """Return a table whose offsets and lengths fit its buffers: a damaged file would be read beyond them."""
    table.validate()
    return table


@functools.lru_cache(maxsize=2)
def load_arrays(path: str, ending: str) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file whose names end with `ending`.

    Raises:
      DataError: no such file, arrays of Python objects (which are pickles), or more than `TABLE_LIMIT`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # zipfile unpacks no more than a member states.
            _check_size(path, sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name.endswith(ending)}
    # zlib, zipfile and NumPy raise errors of all kinds for bytes that are damaged.
    except Exception as error:
        raise DataError(f"{path} is no .npz file of arrays: {said(error)}") from error


def row_of(reference: ArrayRef) -> np.ndarray:
    """Return the row of an array. Raises DataError where the file has no such array or row."""
    arrays = load_arrays(reference.path, "_images")
    if reference.name not in arrays or reference.index >= len(arrays[reference.name]):
        raise DataError(f"the file has no {reference.name} of number {reference.index}")
    return arrays[reference.name][reference.index]


def array_length(path: str, name: str) -> int:
    """Return the rows of an array of an .npz file, read from its header alone; 0 where there is no such array."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                return 0
            with archive.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                return int((read(file)[0] or (0,))[0])
    except Exception as error:  # as of `load_arrays`
        raise DataError(f"{path} is no .npz file of arrays: {said(error)}") from error


def _check_size(path: str, size: int) -> None:
    if size > TABLE_LIMIT:
        raise DataError(f"{path} unpacks to {size / 1e9:.0f} GB, over the limit of {TABLE_LIMIT / 1e9:.0f} GB")
