"""The input of a page, and the CSV files of its plots and tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ranjax.evaluation.result_rows import FIELDS
from ranjax.report import blocks, interval_notes
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.stored_results import Results

_LONGEST_NAME = 80


@dataclass
class Book:
    """The input of a page, and the CSV files of its plots and tables.

    Attributes:
      results: the content of results.json; RAN without one of its parts stands in ``results["ablation"]`` alone.
      rows: pooled rows.
      run: the content of run.json.
      defaults: the keys of this version with their defaults.
      files: the CSV files by their relative path.
    """

    results: Results
    rows: pd.DataFrame
    run: Results = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Results, run: Results | None = None, defaults: Mapping[str, object] | None = None) -> Book:
        """Return the book of one run, without files."""
        main: dict[str, object] = {
            name: [item for item in value if not labels.is_ablation(item)] if isinstance(value, list) else value
            for name, value in results.items()
        }
        main["ablation"] = [item for item in results.get("comparisons") or [] if labels.is_ablation(item)]
        rows = frames.rows_frame(item for item in results.get("rows") or [] if not labels.is_ablation(item))
        return cls(main, rows, run or {}, defaults or {})

    def frame(self, name: str, **where: object) -> pd.DataFrame:
        """Return the items of a list of the results that have a noise ratio, and the given values of fields."""
        return frames.where(frames.with_ratio(frames.frame_of(self.results.get(name))), **where)

    @property
    def chance(self) -> Mapping[str, object]:
        """Return the scores of guessing, by metric."""
        return self.results.get("chance") or {}

    def notes(self, clusters: bool = False) -> blocks.Blocks:
        """Yield what intervals hold fixed: the choice of few labels and, with `clusters`, what is drawn whole."""
        for text in (interval_notes.few_labels(self.results), clusters and interval_notes.clusters(self.results)):
            if text:
                yield blocks.Text(text, "strong")

    def csv(
        self, name: str, items: pd.DataFrame | Iterable[Mapping[str, object]], fields: Sequence[str] = FIELDS
    ) -> blocks.File:
        """Keep the items as ``data/NAME.csv`` and return the link to it."""
        file = f"data/{_safe(name)}.csv"
        self.files[file] = tables.to_csv(frames.records(items) if isinstance(items, pd.DataFrame) else items, fields)
        return blocks.File(file)


def _safe(name: str) -> str:
    """Return a file name for `name`; one changed or cut ends in a digest, so that no two become the same."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-.") else "_" for letter in name)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
