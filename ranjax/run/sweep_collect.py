"""Finished runs of a sweep as one table and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ranjax.core import files
from ranjax.core.buckets import workdirs
from ranjax.core.errors import DataError
from ranjax.run.sweep_file import Run
from ranjax.run.sweep_runs import state_of

COLUMNS = ("condition", "ratio", "method", "task", "split", "attack", "metric", "value", "low", "high", "n")


def collect(runs: Sequence[Run], folder: str, out: Path) -> tuple[list[str], list[str]]:
    """Write out/table.csv (a row per run and pooled result row), and the page where two or more runs are done.

    Args:
      runs: of the sweep.
      folder: of the workdirs, or its URL.
      out: folder of the table.

    Returns:
      (names of the runs in the table, names of those left out because they are not done).

    Raises:
      DataError: no run is done.
    """
    done = [run for run in runs if state_of(run.workdir(folder)) == "done"]
    if not done:
        raise DataError(f"No run of the sweep is done in {folder}.")
    places = {
        run.name: workdirs.fetched(run.workdir(folder), "folder", lambda name: name in ("results.json", "run.json"))
        for run in done
    }
    keys = sorted({key for run in done for key, _ in run.overrides})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", *keys, *COLUMNS])
    for run in done:
        settings = dict(run.overrides)
        for row in files.read_json(places[run.name] / "results.json")["rows"]:
            # Rows over all seeds; a cell that has rows per seed only is left to results.json.
            if row["seed"] is None:
                writer.writerow([run.name, *(settings.get(key, "") for key in keys), *(row[name] for name in COLUMNS)])
    files.write_text(out / "table.csv", text.getvalue())
    if len(done) > 1:
        from ranjax import report

        report.write_comparison(list(places.values()), out)
    return [run.name for run in done], [run.name for run in runs if run not in done]
