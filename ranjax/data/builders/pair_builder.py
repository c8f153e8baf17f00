"""The tensorflow-datasets builder that all prepared sets share: its features, its checks, its counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from ranjax.core.errors import DataError
from ranjax.data.images.reading import encode_png
from ranjax.data.sources import Record

VERSION = "1.0.0"
"""Of the stored layout; another layout is another version folder."""


@dataclasses.dataclass(kw_only=True)
class PairsConfig(tfds.core.BuilderConfig):
    """A builder config whose name is the fingerprint of its settings."""

    class_count: int
    image_size: int


class PairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes records of image and report. Subclasses give `splits`.

    `exclusions`, `counts` and `content` (a hash of all records that does not depend on their order) are there
    after `download_and_prepare`.
    """

    VERSION = tfds.core.Version(VERSION)
    # TFDS looks here for the checksums of downloads, and needs a package that it does not install to do so. Nothing is
    # downloaded.
    code_path = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.exclusions: list[dict[str, str]] = []
        self.counts: dict[str, int] = {}
        self.progress: Callable[[int], None] = lambda done: None
        self._digests: list[bytes] = []
        self._patients: dict[str, str] = {}
        self._done = 0

    def splits(self) -> Mapping[str, Callable[[], Iterator[Record]]]:
        """Per split a function that yields its records; what cannot be used is passed to `exclude`."""
        raise NotImplementedError

    def side(self, split: str) -> str:
        """What must not share patients: splits of one side may."""
        return split

    def exclude(self, identity: str, split: str, reason: str) -> None:
        """Notes that a row is left out."""
        self.exclusions.append({"id": identity, "split": split, "reason": reason})
        self._advance()

    @property
    def content(self) -> str:
        """SHA-256 over the records' hashes in sorted order."""
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()

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

    def _split_generators(self, dl_manager):
        return {split: self._checked(split, make) for split, make in self.splits().items()}

    def _generate_examples(self):
        raise NotImplementedError("the examples come from splits()")

    def _checked(self, split: str, make: Callable[[], Iterator[Record]]):
        self.counts[split] = 0
        for record in make():
            identity, patient = record["id"], record["patient"]
            other = self._patients.setdefault(patient, split)
            if self.side(other) != self.side(split):
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
            self._digests.append(_record_digest(split, record, stored["group"]))
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
