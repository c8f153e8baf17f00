"""Records written as array_record shards by tensorflow-datasets: their features, checks, counts and hash."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import absl.logging
import numpy as np
import tensorflow_datasets as tfds

from ranjax.core.errors import DataError
from ranjax.data.images.reading import encode_png
from ranjax.data.sets.spec import Rejected
from ranjax.data.sources import Record
from ranjax.data.space import no_space, require_space
from ranjax.data.splits import SPLITS

VERSION = "1.0.0"
"""Of the stored layout; another layout is another version folder."""

Progress = Callable[[int, int], object]
"""Called with (rows done, rows in all)."""


class Written(NamedTuple):
    """What `write_records` left: its folder, a hash of all records in any order, records by split, rows left out."""

    folder: Path
    content: str
    counts: dict[str, int]
    exclusions: list[dict[str, str]]


def write_records(
    folder: Path,
    fingerprint: str,
    splits: Mapping[str, Callable[[], Iterator[Record | Rejected]]],
    *,
    total: int,
    class_count: int,
    image_size: int,
    description: str,
    rejected: Sequence[Rejected] = (),
    shared_patients: bool = False,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the records of a set, without TFDS's own output.

    Args:
      folder: where prepared sets are kept.
      fingerprint: of the set; its folder's name.
      splits: per split a function that yields its records, and what cannot be used.
      total: rows that `splits` yields and `rejected` has.
      class_count: length of a record's `labels`.
      image_size: side of its image.
      description: one line on the set.
      rejected: rows that were left out before.
      shared_patients: allow patients in several splits.
      progress: called after each row.

    Raises:
      DataError: nothing is left in a split, or splits share a patient.
      files.DiskFullError: no space is left.
    """
    # Films compress to about half; their shuffle holds them once more.
    require_space(folder, total * image_size**2)
    config = _Config(name=fingerprint, description=description, class_count=class_count, image_size=image_size)
    download = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS wants a folder for downloads, though nothing is downloaded.
    with _quiet_tfds(), no_space(folder), tempfile.TemporaryDirectory() as downloads:
        builder = _Builder(config=config, data_dir=os.fspath(folder), file_format="array_record")
        builder.splits, builder.shared_patients = splits, shared_patients
        builder.progress = lambda done: progress(done, total)
        for row in rejected:
            builder.exclude(row)
        builder.download_and_prepare(download_dir=downloads, download_config=download, file_format="array_record")
    counts = {split: builder.counts[split] for split in SPLITS if split in builder.counts}
    content = hashlib.sha256(b"".join(sorted(builder.digests))).hexdigest()
    return Written(Path(builder.data_dir), content, counts, builder.exclusions)


@dataclasses.dataclass(kw_only=True)
class _Config(tfds.core.BuilderConfig):
    """A builder config whose name is the fingerprint of its settings."""

    class_count: int
    image_size: int


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes `splits`; `counts`, `exclusions` and the hash of each record are there after `download_and_prepare`."""

    name = "ranjax_set"
    VERSION = tfds.core.Version(VERSION)
    # TFDS looks here for the checksums of downloads, and needs a package that it does not install to do so. Nothing is
    # downloaded.
    code_path = None
    splits: Mapping[str, Callable[[], Iterator[Record | Rejected]]]
    shared_patients: bool
    progress: Callable[[int], object]

    def __init__(self, **kwargs: object):
        super().__init__(**kwargs)
        self.exclusions: list[dict[str, str]] = []
        self.counts: dict[str, int] = {}
        self.digests: list[bytes] = []
        self._split_of: dict[str, str] = {}
        self._done = 0

    def exclude(self, row: Rejected) -> None:
        """Note that a row is left out."""
        self.exclusions.append(row._asdict())
        self._advance()

    def _info(self) -> tfds.core.DatasetInfo:
        size, classes = self.builder_config.image_size, self.builder_config.class_count
        features = tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
                "report": tfds.features.Text(),
                "label": tfds.features.Scalar(np.int64),
                "labels": tfds.features.Tensor(shape=(classes,), dtype=np.float32),
                "patient": tfds.features.Text(),
                "group": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=self.builder_config.description or "", features=features)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[str, Record]]]:
        return {split: self._checked(split, make) for split, make in self.splits.items()}

    def _generate_examples(self) -> None:
        raise NotImplementedError("the examples come from splits")

    def _checked(self, split: str, make: Callable[[], Iterator[Record | Rejected]]) -> Iterator[tuple[str, Record]]:
        self.counts[split] = 0
        for record in make():
            if isinstance(record, Rejected):
                self.exclude(record)
                continue
            identity, patient = record["id"], record["patient"]
            other = self._split_of.setdefault(patient, split)
            if other != split and not self.shared_patients:
                raise DataError(
                    f"Patient {patient!r} is in split {other!r} and in split {split!r} (example "
                    f"{identity!r}). Splits must not share patients: correct the split column, or split by shares."
                )
            stored = {
                "id": identity,
                "image": record.get("png") or encode_png(record["image"]),
                "report": record["report"],
                "label": int(record["label"]),
                "labels": np.asarray(record["labels"], np.float32),
                "patient": patient,
                "group": json.dumps(record.get("group", {}), sort_keys=True),
            }
            self.digests.append(_record_digest(split, record, stored["group"]))
            self.counts[split] += 1
            self._advance()
            yield identity, stored
        if not self.counts[split]:
            reasons = [f"{item['id']}: {item['reason']}" for item in self.exclusions if item["split"] == split]
            listed = "; ".join(reasons[:5]) or "the source has no rows for it"
            raise DataError(f"Nothing is left in split {split!r} ({len(reasons)} rows excluded: {listed}).")

    def _advance(self) -> None:
        self._done += 1
        self.progress(self._done)


def _record_digest(split: str, record: Record, group: str) -> bytes:
    head = json.dumps([split, record["id"], record["report"], int(record["label"]), record["patient"], group])
    pixels = np.ascontiguousarray(record["image"]).tobytes()
    labels = np.asarray(record["labels"], np.float32).tobytes()
    return hashlib.blake2b(head.encode() + labels + pixels, digest_size=16).digest()


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silence TFDS's own bars and lines: the caller shows the progress."""
    from tensorflow_datasets.core.utils import tqdm_utils

    shown = tqdm_utils._active
    tfds.disable_progress_bar()
    # It warns that a config is not among the builder's named ones; a fingerprint never is.
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.logging.set_verbosity(level)
        if shown:
            tfds.enable_progress_bar()
