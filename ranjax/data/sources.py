"""Sources: random access to the records of one split."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ranjax.data.prepared_files import readable_records

if TYPE_CHECKING:
    import pyarrow as pa

Record = dict[str, Any]
"""{"id": str, "image": uint8[H,W,1], "report": str, "label": int, "labels": f32[C], "patient": str, "group": dict}."""
COLUMNS = ("id", "report", "label", "labels", "patient", "group")
"""What is stored beside the shards, too, so that it is read without pictures."""

KEEP_LIMIT = 128 << 20
"""Bytes of pixels up to which a prepared source keeps the records it has read: parsing them costs more than they do."""


class Source:
    """Random access to records by position. Subclasses give `__len__`, `record` and, where cheaper, `meta`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def record(self, index: int) -> Record:
        """Return the record at `index`, which lies in [0, len)."""
        raise NotImplementedError

    def meta(self, index: int) -> Record:
        """Return the record without its image, for columns and look-ups."""
        record = dict(self.record(index))
        record.pop("image")
        return record

    def __getitem__(self, index: int | np.integer) -> Record:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a source with {len(self)} records")
        return self.record(index % len(self))

    def __iter__(self) -> Iterator[Record]:
        return (self.record(index) for index in range(len(self)))

    @functools.cached_property
    def ids(self) -> list[str]:
        """The ids in order."""
        return self.column("id")

    def column(self, name: str) -> list[Any]:
        """Return the values of one field other than the image, in order."""
        return [self.meta(index)[name] for index in range(len(self))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self[0]["image"].shape)


class PreparedSource(Source):
    """A split of a prepared set: array_record files, read without TensorFlow.

    Args:
      builder: a TFDS builder whose files exist.
      split: name of the split.
      size, mode: of the square that smaller pictures become, see `images.reading.resize`.
    """

    def __init__(self, builder: Any, split: str, size: int, mode: str):
        import tensorflow_datasets as tfds

        self._records: dict[int, Record] | None = None
        self._size, self._mode = size, mode
        self._place = f"{split} of {builder.data_dir}"
        # Encoded images come as bytes: Pillow decodes them here, and columns of text skip them altogether.
        self._rows = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        # Sets of earlier versions have no columns apart from their records.
        self._columns = open_columns(Path(builder.data_dir), split)

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        from ranjax.data.images.codecs import decode  # here, as columns of text need no Pillow

        if self._records is not None and index in self._records:
            return dict(self._records[index])
        with readable_records(f"record {index} of {self._place}"):
            raw = self._rows[index]
            record = self._convert(raw) | {"image": decode(raw["image"], self._size, self._mode)}
        if self._records is None:
            small = len(self) * record["image"].nbytes <= KEEP_LIMIT
            self._records = {} if small else None
        if self._records is not None:
            record["image"].flags.writeable = False
            self._records[index] = record
        return dict(record)

    def meta(self, index: int) -> Record:
        if self._records is not None and index in self._records:
            return super().meta(index)
        with readable_records(f"record {index} of {self._place}"):
            if self._columns is None:
                return self._convert(self._rows[index])
            return _typed({name: self._columns.column(name)[index].as_py() for name in COLUMNS})

    def column(self, name: str) -> list[Any]:
        if self._columns is None or name not in COLUMNS:
            return super().column(name)
        with readable_records(f"column {name} of {self._place}"):
            return self._column(name, self._columns)

    def _column(self, name: str, columns: pa.Table) -> list[Any]:
        if name == "labels":
            values = columns.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return list(values.reshape(len(self), -1))
        if name == "patient":
            return [own or identity for own, identity in zip(columns.column(name).to_pylist(), self.ids)]
        values = columns.column(name).to_pylist()
        return [json.loads(value) for value in values] if name == "group" else values

    def _convert(self, raw: Mapping[str, Any]) -> Record:
        texts = {name: raw[name].decode() for name in ("id", "report", "patient", "group")}
        return _typed({**texts, "label": raw["label"], "labels": raw["labels"]})


def _typed(values: Mapping[str, Any]) -> Record:
    """Return a record without its image from values as they are stored."""
    return {
        "id": values["id"],
        "report": values["report"],
        "label": int(values["label"]),
        "labels": np.asarray(values["labels"], np.float32),
        # An empty patient is nobody's: such images are not of one.
        "patient": values["patient"] or values["id"],
        "group": json.loads(values["group"]),
    }


def open_columns(folder: Path, split: str) -> pa.Table | None:
    """Map the columns of a split's records in their order; None for a set that has none beside its shards."""
    paths = sorted(folder.glob(f"*-{split}.columns-*.arrow"))
    if not paths:
        return None
    import pyarrow as pa

    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all() for path in paths])


class FirstRecords(Source):
    """Some of the records of a source, in its order.

    Args:
      source: the whole.
      places: of its records.
    """

    def __init__(self, source: Source, places: Sequence[int]) -> None:
        self._source, self._places = source, places

    @classmethod
    def of(cls, source: Source, count: int) -> Source:
        """Return at most `count` records of a source, drawn by a hash of their ids; the source itself if it has no
        more.
        """
        if len(source) <= count:
            return source
        drawn = [hashlib.blake2b(f"limit:{name}".encode(), digest_size=8).digest() for name in source.ids]
        return cls(source, sorted(sorted(range(len(source)), key=drawn.__getitem__)[:count]))

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        return self._source.record(self._places[index])

    def meta(self, index: int) -> Record:
        return self._source.meta(self._places[index])

    def column(self, name: str) -> list[Any]:
        whole = self._source.column(name)
        return [whole[place] for place in self._places]
