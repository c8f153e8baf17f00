"""Folders of images with tables, and sets that TFDS prepared before, written as the same kind of prepared set."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ranjax.core.errors import DataError
from ranjax.data.builders.pair_builder import PairsBuilder, PairsConfig
from ranjax.data.folder import read_rows
from ranjax.data.images.reading import read_image
from ranjax.data.set_settings import SPLITS, FolderSettings, ImportSettings
from ranjax.data.sources import Record, TfdsSource, open_tfds
from ranjax.data.text import deidentify


class RanjaxFolder(PairsBuilder):
    """Image-report pairs of `FolderSettings`."""

    name = "ranjax_folder"

    def __init__(self, settings: FolderSettings, fingerprint: str, **kwargs):
        self.settings = settings
        self._privacy = deidentify.Privacy(deidentify.key_of(settings.patient_key), settings.deidentify)
        self._rows, self._rejected = read_rows(settings)
        config = PairsConfig(
            name=fingerprint,
            description="Image-report pairs of a folder with its table.",
            class_count=len(settings.classes),
            image_size=settings.image_size,
        )
        super().__init__(config=config, **kwargs)

    @property
    def total(self) -> int:
        """Rows that will be gone through."""
        return len(self._rows) + len(self._rejected)

    def splits(self) -> Mapping[str, Callable[[], Iterator[Record]]]:
        for rejected in self._rejected:
            self.exclude(self._privacy.identity(rejected.id), rejected.split, rejected.reason)
        wanted = {row.split for row in self._rows} | {item.split for item in self._rejected if item.split}
        wanted |= {split for source in self.settings.sources for split in source.shares}
        if not wanted:
            reasons = "; ".join(f"{item.id}: {item.reason}" for item in self._rejected[:5])
            raise DataError(f"No usable row is left ({len(self._rejected)} excluded: {reasons}).")
        return {split: functools.partial(self._records, split) for split in SPLITS if split in wanted}

    def _records(self, split: str) -> Iterator[Record]:
        for row in self._rows:
            if row.split != split:
                continue
            try:
                image = read_image(row.file, self.settings.image_size, self.settings.resize)
            except DataError as error:
                self.exclude(self._privacy.identity(row.id), split, str(error))
                continue
            yield {
                "id": self._privacy.identity(row.id),
                "report": self._privacy.report(row.report),
                "label": row.label,
                "labels": row.labels,
                "patient": self._privacy.patient(row.patient),
                "group": self._privacy.group(row.group),
                "image": image,
            }


class RanjaxImported(PairsBuilder):
    """Image-report pairs of an array_record set that TFDS prepared before."""

    name = "ranjax_imported"

    def __init__(self, settings: ImportSettings, classes: Sequence[str], fingerprint: str, **kwargs):
        self.settings = settings
        self._privacy = deidentify.Privacy(deidentify.key_of(settings.patient_key), settings.deidentify)
        self._sources: dict[str, TfdsSource] = {
            split: open_tfds(
                settings.name,
                settings.data_dir,
                expression,
                settings.fields,
                settings.image_size,
                settings.resize,
                class_count=len(classes),
            )
            for split, expression in settings.splits.items()
        }
        config = PairsConfig(
            name=fingerprint,
            description=f"Image-report pairs of {settings.name}.",
            class_count=len(classes),
            image_size=settings.image_size,
        )
        super().__init__(config=config, **kwargs)

    @property
    def total(self) -> int:
        """Rows that will be gone through."""
        return sum(map(len, self._sources.values()))

    def side(self, split: str) -> str:
        # One split of the set may serve both as upstream and as downstream training data: nothing leaks to a test.
        return "training" if split in ("train", "adapt") else split

    def splits(self) -> Mapping[str, Callable[[], Iterator[Record]]]:
        return {split: functools.partial(self._records, split) for split in self._sources}

    def _records(self, split: str) -> Iterator[Record]:
        source = self._sources[split]
        for index in range(len(source)):
            try:
                record = source[index]
            except DataError as error:
                self.exclude(f"{split}:{index}", split, str(error))
                continue
            if not re.search(r"[^\W\d_]", record["report"]):
                self.exclude(self._privacy.identity(record["id"]), split, "the report has no words")
                continue
            hidden = {
                "id": self._privacy.identity(record["id"]),
                "report": self._privacy.report(record["report"]),
                "patient": self._privacy.patient(record["patient"]),
                "group": self._privacy.group(record.get("group", {})),
            }
            yield {**record, **hidden}
