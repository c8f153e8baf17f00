"""Finished runs of a sweep as one table and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.batch.states import DONE, state_of
from experiments.batch.sweep import Run
from ranjax.core import files
from ranjax.core.errors import DataError

COLUMNS = ("condition", "ratio", "method", "task", "split", "attack", "metric", "value", "low", "high", "n")


def collect(runs: Sequence[Run], folder: Path, out: Path) -> tuple[list[str], list[str]]:
    """Writes out/table.csv (a row per run and pooled result row), and the page where two or more runs are done.

    Returns:
      (names of the runs in the table, names of those left out because they are not done).

    Raises:
      DataError: no run is done.
    """
    done = [run for run in runs if state_of(folder / run.name) == DONE]
    if not done:
        raise DataError(f"No run of the sweep is done in {folder}.")
    keys = sorted({key for run in done for key, _ in run.overrides})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", *keys, *COLUMNS])
    for run in done:
        settings = dict(run.overrides)
        for row in _pooled(files.read_json(folder / run.name / "results.json")["rows"]):
            writer.writerow([run.name, *(settings.get(key, "") for key in keys), *(row[name] for name in COLUMNS)])
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / "table.csv", text.getvalue())
    if len(done) > 1:
        from ranjax import report

        report.write_comparison([folder / run.name for run in done], out)
    return [run.name for run in done], [run.name for run in runs if run not in done]


def _pooled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows over all seeds; a cell that has rows per seed only is left to results.json."""
    return [row for row in rows if row["seed"] is None]
