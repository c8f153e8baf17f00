"""Sets of `ranjax.data.sets`, whose images were decoded in parts before, written as a prepared set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ranjax.data.builders.pair_builder import PairsBuilder, PairsConfig
from ranjax.data.images import decode
from ranjax.data.row_filters import Selection
from ranjax.data.set_settings import SetSettings
from ranjax.data.sources import Record
from ranjax.data.splits import SPLITS


class RanjaxSet(PairsBuilder):
    """Records of a `Selection` and the outcomes of its images."""

    name = "ranjax_set"

    def __init__(
        self, settings: SetSettings, selection: Selection, parts: Path, dropped: Mapping[int, str], fingerprint: str,
        **kwargs,
    ):  # fmt: skip
        self.settings, self._selection, self._parts, self._dropped = settings, selection, parts, dropped
        config = PairsConfig(
            name=fingerprint,
            description=selection.spec.title,
            class_count=len(selection.classes),
            image_size=settings.image_size,
        )
        super().__init__(config=config, **kwargs)

    @property
    def total(self) -> int:
        """Rows that will be gone through."""
        return len(self._selection.rows) + len(self._selection.rejected)

    def side(self, split: str) -> str:
        # Shared patients were refused before, or allowed by the user.
        return "any" if self.settings.allow_shared_patients else split

    def splits(self) -> Mapping[str, Callable[[], Iterator[Record]]]:
        for rejected in self._selection.rejected:
            self.exclude(*rejected)
        used = {row.split for row in self._selection.rows}
        return {split: functools.partial(self._records, split) for split in SPLITS if split in used}

    def _records(self, split: str) -> Iterator[Record]:
        rows = self._selection.rows
        # Rows are sorted by split, so each split reads its own parts and no other.
        places = [place for place, row in enumerate(rows) if row.split == split]
        for place, outcome in zip(places, decode.outcomes(self._parts, places[0], places[-1] + 1)):
            row = rows[place]
            if reason := outcome.reason or self._dropped.get(place, ""):
                self.exclude(row.id, split, reason)
                continue
            record = row._asdict()
            yield {key: record[key] for key in ("id", "report", "label", "labels", "patient", "group")} | {
                "image": decode.pixels(outcome),
                "png": outcome.png,
            }
