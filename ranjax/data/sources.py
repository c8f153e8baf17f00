"""Sources: random access to the records of one split."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Record = dict[str, Any]
"""{"id": str, "image": uint8[H,W,1], "report": str, "label": int, "labels": f32[C], "patient": str, "group": dict}."""

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
    """

    def __init__(self, builder: Any, split: str):
        import tensorflow_datasets as tfds

        self._records: dict[int, Record] | None = None
        # Encoded images come as bytes: Pillow decodes them here, and columns of text skip them altogether.
        self._rows = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        from ranjax.data.images.reading import decode_png  # here, as columns of text need no Pillow

        if self._records is not None and index in self._records:
            return dict(self._records[index])
        raw = self._rows[index]
        record = self._convert(raw) | {"image": decode_png(raw["image"])}
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
        return self._convert(self._rows[index])

    def _convert(self, raw: Mapping[str, Any]) -> Record:
        identity = raw["id"].decode()
        return {
            "id": identity,
            "report": raw["report"].decode(),
            "label": int(raw["label"]),
            "labels": np.asarray(raw["labels"], np.float32),
            # An empty patient is nobody's: such images are not of one.
            "patient": raw["patient"].decode() or identity,
            "group": json.loads(raw["group"].decode()),
        }
