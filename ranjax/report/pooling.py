"""Over upstream runs: runs that differ in their seed alone as one, with intervals over runs.

The interval of one run is over test images and heads. What another upstream run would give is shown by nothing but
other upstream runs, so here each run counts as one observation, and intervals are Student's over runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from ranjax.core.errors import DataError
from ranjax.evaluation import statistics
from ranjax.report import accuracy_sections as sections
from ranjax.report import entry_labels as labels
from ranjax.report import figures, interval_notes, old_configs, paper_claims, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import Family, Panels
from ranjax.report.book import Book, Fold
from ranjax.report.stored_results import CELL, FIELDS, Results, Row

_RANGE = {"mce": (0.0, math.inf), "recall_drop@1": (-1.0, 1.0)}
"""The values that a metric can take, where that is not 0 to 1: an interval of Student's ends there."""
_NOT_COMPARED = ("seed", "noise.ratios", "noise.controls", "noise.control_ratios")
"""The seed, and which conditions a run has, which decides no figure of another condition."""
Configs = Sequence[Mapping[str, object]]


def differing(configs: Configs, defaults: old_configs.Defaults | None = None) -> list[str]:
    """Return the keys in which configs differ, except the seed, the conditions, and what a report shows.

    A key that a run's config lacks, as an earlier version wrote it, counts as its default.
    """
    columns = [column.values for column in old_configs.completed(configs, defaults or {})]
    keys = dict.fromkeys(key for column in columns for key in column)
    varied = [key for key in keys if len({column.get(key) for column in columns}) > 1]
    return [key for key in varied if key not in _NOT_COMPARED and not key.startswith("report.")]


def rows_over_runs(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Return one row for each cell that every run has: mean, Student's 95 % interval over runs, n and "runs" of them.

    Args:
      runs: pooled rows of each run, two or more.
    """
    by_cell = [{tuple(row.get(name) for name in CELL): row for row in rows} for rows in runs]
    found = []
    for key, row in by_cell[0].items():
        same = [rows[key] for rows in by_cell if key in rows]
        values = [one["value"] for one in same if wording.finite(one.get("value"))]
        if len(values) < len(runs):
            continue
        own = statistics.sampling_error([(one["low"], one["high"]) for one in same if wording.has_interval(one)])
        mean, low, high, _, _ = statistics.student(values, least=own)
        least, most = _RANGE.get(row["metric"], (0.0, 1.0))
        interval = {"value": mean, "low": max(low, least), "high": min(high, most)}
        pooled = cast(Row, {**row, "seed": None, **interval, "runs": len(values)})
        if row.get("group"):  # Each run's own worst group.
            pooled["group"] = " or ".join(dict.fromkeys(str(one.get("group")) for one in same))
        found.append(pooled)
    return found


def _rows(runs: Sequence[Results]) -> list[Row]:
    return rows_over_runs([frames.records(Book.of(results).rows) for results in runs])


def pooled_tables(runs: Sequence[Results]) -> list[Fold]:
    """Return claims, accuracy of every condition, retrieval and ablation, over runs that differ in their seed alone."""
    frame = frames.frame_of([dict(row) for row in _rows(runs)])
    found = [Fold("The claims", sections.claims_table(paper_claims.claims(runs)))]
    classified = frames.downstream(frame)
    for metric in wording.PLOTTED:
        for condition in frames.conditions(classified):
            chosen = frames.where(frames.of_condition(classified, condition), task="finding")
            title = wording.axis_label(metric) + sections.condition_heading(classified, condition)
            if (table := tables.main_table(chosen, metric)) is not None:
                found.append(Fold(title, table))
    recall = frames.where(frame, task=frames.RETRIEVAL)
    if len(recall):
        found.append(Fold("Retrieval", tables.without_head_table(recall, runs[0].get("chance") or {})))
    return [*found, *_parts_of_ran(runs)]


def _parts_of_ran(runs: Sequence[Results]) -> list[Fold]:
    table = sections.ablation_table(sections.ablation_differences(runs))
    return [] if table is None else [Fold("What each part of RAN is worth", table)]


def _not_pooled(configs: Configs, defaults: old_configs.Defaults) -> str:
    """Return why runs of these configs are not pooled; empty where they are."""
    if keys := differing(configs, defaults):
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        return f"Not pooled: these runs differ in more than their seed ({shown})."
    if len({str(config.get("seed")) for config in configs}) < len(configs):
        return "Not pooled: two of these runs have the same seed, so they are the same run twice."
    return ""


def over_runs(runs: Sequence[Results], book: Book, names: Sequence[str]) -> dict[str, object]:
    """Return claims, curves and tables over runs of these names, or why these runs are not pooled.

    Args:
      runs: contents of results.json.
      book: keeps the CSV files, and knows the defaults of this version's keys.
      names: of the runs, on the page.
    """
    configs = [results.get("config") or {} for results in runs]
    if reason := _not_pooled(configs, book.defaults):
        return {"reason": reason}
    rows = [dict(row) for row in _rows(runs)]
    claimed = paper_claims.claims(runs)
    accuracy = frames.where(frames.downstream(frames.frame_of(rows)), task="finding", metric="accuracy")
    level = wording.chance_level(runs[0].get("chance") or {}, "accuracy")
    shown = []
    for condition in frames.conditions(accuracy):
        chosen = frames.of_condition(accuracy, condition)
        families = []
        for number, (family, members) in enumerate(frames.families(frames.methods(chosen))):
            name = f"pooled-{condition}-{number}"
            plots = figures.curves(chosen[chosen["method"].isin(members)], "accuracy", level, name)
            families.append(Family(family, figures.legend(figures.styles(members), name), [Panels("", plots)]))
        shown.append((f"Accuracy against noise, condition {wording.condition_label(condition)}", families))
    files = [book.csv("over_runs", rows, (*FIELDS, "group", "runs"))]
    if worth := sections.ablation_differences(runs):
        files.append(book.csv("ablation_over_runs", [dict(row) for row in worth], sections.ABLATION_FIELDS))
    return {
        "reason": "",
        "count": len(runs),
        "provenance": old_configs.provenance(names, configs, book.defaults),
        "claims": sections.claims_table(claimed, over_lines=True),
        "claims_file": book.csv(
            "claims_over_runs", [dict(row) for row in sections.claim_rows(claimed)], sections.CLAIM_FIELDS
        ),
        "conditions": shown,
        "folds": pooled_tables(runs)[1:],
        "files": files,
    }


def markdown(runs: Sequence[Results], names: Sequence[str], defaults: old_configs.Defaults | None = None) -> str:
    """Return the claims and main tables of runs as Markdown; of one run, the same tables with the run's own intervals.

    Args:
      runs: contents of results.json, of runs that differ in their seed alone.
      names: of the runs; keys that were taken as their default in a run are named below the tables.
      defaults: the configuration keys of this version with their defaults.

    Raises:
      DataError: the runs differ in more than their seed.
    """
    configs = [results.get("config") or {} for results in runs]
    if keys := differing(configs, defaults):
        raise DataError(f"--markdown pools runs that differ in their seed alone; these differ in {keys[0]}.")
    with labels.labels_of(runs):
        if len(runs) > 1:
            found = pooled_tables(runs)
        else:
            frame = frames.downstream(Book.of(runs[0]).rows)
            found = [Fold("The claims", sections.claims_table(paper_claims.claims(runs)))]
            for condition in frames.conditions(frame):
                chosen = frames.where(frames.of_condition(frame, condition), task="finding")
                if (table := tables.main_table(chosen, "accuracy")) is not None:
                    found.append(Fold(f"Accuracy (%), condition {wording.condition_label(condition)}", table))
            found += _parts_of_ran(runs)
        below = [old_configs.provenance(names, configs, defaults or {})]
        below += [interval_notes.few_labels(runs[0]), interval_notes.clusters(runs[0])] if len(runs) == 1 else []
        shown = [f"**{fold.summary}**\n\n{fold.table.markdown()}" for fold in found]
        return "\n\n".join([*shown, *(words for words in below if words)])
