"""Sources: random access to the records of one split, whatever they are stored in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.images.reading import decode_png, read_image

Record = dict[str, Any]
"""{"id": str, "image": uint8[H,W,1], "report": str, "label": int, "labels": f32[C], "patient": str, "group": dict}."""

FIELDS = ("id", "image", "report", "label", "labels", "patient", "group")


KEEP_LIMIT = 128 << 20
"""Bytes of pixels up to which a prepared source keeps the records it has read: parsing them costs more than they do."""


class Source(Sequence[Record]):
    """Random access to records by position. Subclasses give `__len__`, `record` and, where cheaper, `meta`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def record(self, index: int) -> Record:
        """The record at `index`, which lies in [0, len)."""
        raise NotImplementedError

    def meta(self, index: int) -> Record:
        """The record without its image, for columns and look-ups."""
        record = dict(self.record(index))
        record.pop("image")
        return record

    def __getitem__(self, index):  # type: ignore[override]
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a source with {len(self)} records")
        return self.record(index % len(self))

    def __iter__(self) -> Iterator[Record]:
        return (self.record(index) for index in range(len(self)))

    @property
    def ids(self) -> list[str]:
        """The ids in order; read once, then kept."""
        if "_ids" not in self.__dict__:
            self.__dict__["_ids"] = [self.meta(index)["id"] for index in range(len(self))]
        return list(self.__dict__["_ids"])

    def column(self, name: str) -> list[Any]:
        """The values of one field other than the image, in order."""
        return [self.meta(index)[name] for index in range(len(self))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self[0]["image"].shape)


class ListSource(Source):
    """Records in memory."""

    def __init__(self, records: Sequence[Record]):
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return dict(self._records[index])


class TfdsSource(Source):
    """A split of a prepared tensorflow-datasets set in the array_record format, read without TensorFlow.

    Args:
      builder: a TFDS builder whose files exist.
      split: a split name or expression, e.g. "train" or "train[:80%]".
      fields: from record fields to feature names; absent fields get defaults (id "split:index", label -1, no labels).
      image_size: resizes to this square where given; else images come as they are stored.
      resize: how to make them square.
      class_count: length of `labels` where it is made from `label`.
    """

    def __init__(
        self,
        builder: Any,
        split: str,
        fields: Mapping[str, str],
        image_size: int | None = None,
        resize: str = "pad",
        class_count: int = 0,
    ):
        import tensorflow_datasets as tfds

        self.split, self.fields, self.image_size, self.resize = split, dict(fields), image_size, resize
        self.class_count = class_count
        self._kept: dict[int, Record] | None = None
        # Encoded images come as bytes: Pillow decodes them here, and columns of text skip them altogether.
        self._rows = builder.as_data_source(split=split, decoders={fields["image"]: tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        if self._kept is not None and index in self._kept:
            return dict(self._kept[index])
        raw = self._rows[index]
        record = self._convert(index, raw) | {"image": self._image(raw[self.fields["image"]])}
        if self._kept is None:
            small = len(self) * record["image"].nbytes <= KEEP_LIMIT
            self._kept = {} if small else None
        if self._kept is not None:
            record["image"].flags.writeable = False
            self._kept[index] = record
        return dict(record)

    def meta(self, index: int) -> Record:
        if self._kept is not None and index in self._kept:
            return super().meta(index)
        return self._convert(index, self._rows[index])

    def _image(self, data: bytes) -> np.ndarray:
        return decode_png(data) if self.image_size is None else read_image(data, self.image_size, self.resize)

    def _convert(self, index: int, raw: Mapping[str, Any]) -> Record:
        values = {field: raw[name] for field, name in self.fields.items() if field != "image"}
        label, labels = _labels(values, self.class_count)
        identity = _text(values["id"]) if "id" in values else f"{self.split}:{index}"
        return {
            "id": identity,
            "report": _text(values.get("report", b"")),
            "label": label,
            "labels": labels,
            # An empty patient is nobody's: such images are not of one.
            "patient": _text(values.get("patient", "")) or identity,
            "group": json.loads(_text(values["group"])) if "group" in values else {},
        }


def open_tfds(
    name: str,
    data_dir: str | os.PathLike[str],
    split: str,
    fields: Mapping[str, str] | None = None,
    image_size: int | None = None,
    resize: str = "pad",
    class_count: int = 0,
) -> TfdsSource:
    """Opens one split of a prepared TFDS set.

    Args:
      name: "name", "name/config" or "name/config:version"; or "" where `data_dir` is the folder of one version.
      data_dir: the TFDS data folder.
      split: split name or expression.
      fields: from record fields to feature names, e.g. {"image": "image", "report": "caption", "label": "label"}.
      image_size, resize, class_count: see `TfdsSource`.

    Raises:
      DataError: no such prepared set, or one that was not written as array_record.
      ConfigError: a field that the set does not have, or a split that it does not have.
    """
    builder = tfds_builder(name, data_dir)
    features = builder.info.features
    fields = dict(fields) if fields is not None else {field: field for field in FIELDS if field in features}
    for field, feature in fields.items():
        if field not in FIELDS:
            raise ConfigError(
                f"data.fields.{field}", feature, f"fields are {', '.join(FIELDS)}", nearest(field, FIELDS)
            )
        if feature not in features:
            raise ConfigError(
                f"data.fields.{field}", feature, f"features are {', '.join(features)}", nearest(feature, list(features))
            )
    for field in ("image", "report"):
        if field not in fields:
            raise ConfigError(f"data.fields.{field}", None, f"one of the set's features: {', '.join(features)}")
    base = split.split("[")[0].split("+")[0].strip()
    if base not in builder.info.splits:
        raise ConfigError("data.split", split, f"splits are {', '.join(builder.info.splits)}")
    return TfdsSource(builder, split, fields, image_size, resize, class_count)


def tfds_builder(name: str, data_dir: str | os.PathLike[str]) -> Any:
    """A read-only TFDS builder from files alone (no dataset code is imported). Raises DataError as `open_tfds`."""
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
    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        raise DataError(
            f"The set in {builder.data_dir} is stored as {getattr(file_format, 'value', None)}; only array_record can "
            "be read at random without TensorFlow. Prepare it with file_format='array_record'."
        )
    return builder


def _labels(values: Mapping[str, Any], class_count: int) -> tuple[int, np.ndarray]:
    if "labels" in values:
        labels = np.asarray(values["labels"], np.float32)
        on = np.flatnonzero(labels > 0)
        return int(values.get("label", on[0] if len(on) == 1 else -1)), labels
    label = values.get("label", -1)
    several = [int(item) for item in np.atleast_1d(np.asarray(label)).ravel() if int(item) >= 0]
    outside = [item for item in several if item >= class_count]
    if class_count and outside:
        raise DataError(f"label {outside[0]} is outside the {class_count} classes")
    labels = np.zeros(class_count, np.float32)
    if class_count:
        labels[several] = 1.0
    return (several[0] if len(several) == 1 else -1), labels


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
