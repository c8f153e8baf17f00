"""Over upstream runs: runs that differ in their seed alone as one, with intervals over runs.

The interval of one run is over test images and heads. What another upstream run would give is shown by nothing but
other upstream runs, so here each run counts as one observation, and intervals are Student's over runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pandas as pd

from ranjax.core.errors import DataError
from ranjax.evaluation import statistics
from ranjax.evaluation.result_rows import FIELDS
from ranjax.models.controls import CONTROLS
from ranjax.report import accuracy_sections as sections
from ranjax.report import (
    bed_verdict,
    claim_sections,
    dose_sections,
    figures,
    interval_notes,
    old_configs,
    paper_claims,
    wording,
)
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.blocks import Blocks, Details, File, Heading, Panels, Text, missing
from ranjax.report.book import Book
from ranjax.report.report_tables import Table
from ranjax.report.stored_results import CELL, Results, Row

_RANGE = {"mce": (0.0, math.inf), "recall_drop@1": (-1.0, 1.0)}
"""The values that a metric can take, where that is not 0 to 1: an interval of Student's ends there."""
_NOT_COMPARED = ("seed", "noise.ratios", "noise.controls", "noise.control_ratios", "adapt.controls")
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


def _frame(runs: Sequence[Results]) -> pd.DataFrame:
    """Return the rows of runs over runs; those of one run as they are."""
    frames_ = [Book.of(results).rows for results in runs]
    return frames_[0] if len(runs) == 1 else frames.frame_of(rows_over_runs([frames.records(one) for one in frames_]))


def _tables(runs: Sequence[Results]) -> Iterator[tuple[str, Table]]:
    """Yield (title, table) of heads on all encoders, accuracy of every condition, retrieval and ablation."""
    frame = _frame(runs)
    encoders = [frames.records(claim_sections.encoders(Book.of(results))) for results in runs]
    together = frames.frame_of(encoders[0] if len(runs) == 1 else rows_over_runs(encoders))
    for split, chosen in together.groupby("split", sort=False):
        if set(chosen["condition"]) & {*CONTROLS}:
            yield claim_sections.encoders_title(split), claim_sections.encoder_table(chosen)
    classified = frames.downstream(frame)
    single = len(runs) == 1
    for metric in ("accuracy",) if single else wording.PLOTTED:
        for condition in frames.conditions(classified):
            chosen = frames.where(frames.of_condition(classified, condition), task="finding")
            of_condition = f", condition {wording.condition_label(condition)}"
            if not single:
                of_condition = sections.condition_heading(classified, condition)
            if (table := tables.main_table(chosen, metric)) is not None:
                yield wording.axis_label(metric) + of_condition, table
    recall = frames.where(frame, task=frames.RETRIEVAL)
    if len(recall) and not single:
        yield "Retrieval", tables.without_head_table(recall, runs[0].get("chance") or {})
    if table := sections.ablation_table(sections.ablation_differences(runs)):
        yield "What each part of RAN is worth", table


def not_pooled(configs: Configs, defaults: old_configs.Defaults) -> str:
    """Return why runs of these configs are not pooled; empty where they are."""
    if keys := differing(configs, defaults):
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        return f"Not pooled: these runs differ in more than their seed ({shown})."
    if len({str(config.get("seed")) for config in configs}) < len(configs):
        return "Not pooled: two of these runs have the same seed, so they are the same run twice."
    return ""


def over_runs(runs: Sequence[Results], names: Sequence[str], book: Book) -> Blocks:
    """Yield claims, curves and tables over runs of these names, or why these runs are not pooled.

    Args:
      runs: contents of results.json.
      names: of the runs, on the page.
      book: keeps the CSV files, and knows the defaults of this version's keys.
    """
    configs = [results.get("config") or {} for results in runs]
    if reason := not_pooled(configs, book.defaults):
        yield missing(reason)
        return
    yield Text(_OVER_RUNS.format(runs=len(runs)), "caption")
    if words := old_configs.provenance(names, configs, book.defaults):
        yield Text(words, "caption")
    if (verdict := bed_verdict.judge(runs)) is not None:
        yield Heading("What this bed can tell")
        yield from claim_sections.verdict_over_lines(verdict, book, "verdict_over_runs")
    yield Heading("The claims")
    if judged := paper_claims.claims(runs):
        yield from claim_sections.claims_over_lines(judged, book, "claims_over_runs")
    else:
        yield missing("These runs hold no contrasts: an earlier version made one of them. Run their commands again.")
    frame = _frame(runs)
    accuracy = frames.where(frames.downstream(frame), task="finding", metric="accuracy")
    for condition in frames.conditions(accuracy):
        chosen, key = frames.of_condition(accuracy, condition), f"pooled-{condition}"
        yield Heading(f"Accuracy against noise, condition {wording.condition_label(condition)}")
        for part in sections.parts(chosen, key, level=4):
            level = wording.chance_level(runs[0].get("chance") or {}, "accuracy")
            yield from part.head
            yield Panels(figures.curves(part.rows, "accuracy", level, f"{key}-{part.number}"))
    if doses := list(dose_sections.dose_response(runs, book, "doses_over_runs", level=4)):
        yield Heading(dose_sections.TITLE)
        yield from doses
    for title, table in _tables(runs):
        yield Details(title, [table])
    yield book.csv("over_runs", frame, (*FIELDS, "group", "runs"))
    yield from (block for block in sections.ablation(book, "ablation_over_runs", runs) if isinstance(block, File))


_OVER_RUNS = (
    "These {runs} runs differ in their seed alone: another set of generated or split data, other initial weights, "
    "another order, other noisy pairs and, where labels are few, another choice of them. Each run counts as "
    "one observation; "
    "intervals and p are Student's over runs, so they say what another upstream run would give. Runs are taken to vary "
    "by their own sampling error at least. With two or three runs only large effects can be shown. The effect here is "
    "the mean over the standard deviation of runs, not of images."
)


def named_tables(
    runs: Sequence[Results], defaults: old_configs.Defaults | None = None, caller: str = "--markdown"
) -> list[tuple[str, Table]]:
    """Return the bed's verdict, the claims and the main tables of runs by their titles; of one run, its own intervals.

    Args:
      runs: contents of results.json, of runs that differ in their seed alone.
      defaults: the configuration keys of this version with their defaults.
      caller: what pools, named where it cannot.

    Raises:
      DataError: the runs differ in more than their seed.
    """
    if keys := differing([results.get("config") or {} for results in runs], defaults):
        raise DataError(f"{caller} pools runs that differ in their seed alone; these differ in {keys[0]}.")
    with labels.labels_of(runs):
        verdict, judged = bed_verdict.judge(runs), paper_claims.claims(runs)
        head = [] if verdict is None else [("What this bed can tell", claim_sections.figures_table(verdict))]
        head += [("The claims", claim_sections.claims_table(judged))] if judged else []
        doses = dose_sections.dose_table(runs)
        return [*head, *_tables(runs), *([] if doses is None else [(dose_sections.TITLE, doses)])]


def markdown(runs: Sequence[Results], names: Sequence[str], defaults: old_configs.Defaults | None = None) -> str:
    """Return the tables of `named_tables` as Markdown.

    Args:
      runs: contents of results.json, of runs that differ in their seed alone.
      names: of the runs; keys that were taken as their default in a run are named below the tables.
      defaults: the configuration keys of this version with their defaults.

    Raises:
      DataError: the runs differ in more than their seed.
    """
    shown = [f"**{title}**\n\n{table.markdown()}" for title, table in named_tables(runs, defaults)]
    below = [old_configs.provenance(names, [results.get("config") or {} for results in runs], defaults or {})]
    with labels.labels_of(runs):
        below += [interval_notes.few_labels(runs[0]), interval_notes.clusters(runs[0])] if len(runs) == 1 else []
    return "\n\n".join([*shown, *(words for words in below if words)])
