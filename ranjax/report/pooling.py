"""Over upstream runs: runs that differ in their seed alone as one, with intervals over runs.

The interval of one run is over test images and heads. What another upstream run would give is shown by nothing but
other upstream runs, so here each run counts as one observation, and intervals are Student's over runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.evaluation import statistics
from ranjax.report import ablation, evidence, figures, markup, sections
from ranjax.report import cluster_notes as independent
from ranjax.report import few_label_notes as few_labels
from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import old_configs as earlier
from ranjax.report import paper_claims as abstract
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row
from ranjax.report.sections import Book

_CELL = ("condition", "ratio", "method", "task", "split", "attack", "metric")
_FIELDS = (*rows_.FIELDS, "group", "runs")


_RANGE = {"mce": (0.0, math.inf), "recall_drop@1": (-1.0, 1.0)}
"""What a metric can be, where that is not from 0 to 1: an interval of Student's ends there."""


_OF_NO_WEIGHT = ("seed", "noise.ratios", "noise.controls", "noise.control_ratios")
"""The seed, and which conditions a run has, which decides no figure of another condition."""


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys in which configs differ, but for the seed, which conditions there are, and what a report shows.

    A key that a run's config lacks, as an earlier version wrote it, counts as its default.
    """
    columns = [column.values for column in earlier.completed(configs)]
    keys = dict.fromkeys(key for column in columns for key in column)
    varied = [key for key in keys if len({column.get(key) for column in columns}) > 1]
    return [key for key in varied if key not in _OF_NO_WEIGHT and not key.startswith("report.")]


def rows_over_runs(runs: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """Returns one row for each cell that every run has: mean, Student's 95 % interval over runs, n and "runs" of them.

    Args:
      runs: pooled rows of each run, two or more.
    """
    tables_ = [{tuple(row.get(name) for name in _CELL): row for row in rows} for rows in runs]
    found = []
    for key, row in tables_[0].items():
        same = [table[key] for table in tables_ if key in table]
        values = [one["value"] for one in same if wording.finite(one.get("value"))]
        own = statistics.sampling_error([(one["low"], one["high"]) for one in same if wording.has_interval(one)])
        if len(values) < len(runs):
            continue
        mean, low, high, _, _ = statistics.student(values, least=own)
        metric = str(row["metric"])
        least, most = _RANGE.get(metric, (0.0, 1.0))
        low, high = max(low, least), min(high, most)
        made = {**row, "seed": None, "value": mean, "low": low, "high": high, "n": row["n"], "runs": len(values)}
        if "group" in row:  # Each run's own worst group.
            made["group"] = " or ".join(dict.fromkeys(str(one.get("group")) for one in same))
        found.append(made)
    return found


def parts(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, tables.Table]]:
    """Returns (title, table): the claims, accuracy of every condition and retrieval, over runs that differ in seed alone."""
    rows = rows_over_runs([Book.of(results).rows for results in runs])
    found = [("The claims", evidence.claims_table(abstract.claims(runs)))]
    classified = rows_.downstream(rows)
    several = len(rows_.conditions(classified)) > 1
    for metric in wording.PLOTTED:
        for condition in rows_.conditions(classified):
            table = tables.main_table(rows_.pick(rows_.of_condition(classified, condition), task="finding"), metric)
            if table is not None:
                of_condition = f", condition {wording.condition_label(condition)}" if several else ""
                found.append((f"{wording.axis_label(metric)}{of_condition}", table))
    recall = [row for row in rows if row["task"] == rows_.RETRIEVAL]
    if recall:
        found.append(("Retrieval", tables.without_head_table(recall, runs[0].get("chance") or {})))
    return [*found, *_parts_of_ran(runs)]


def _parts_of_ran(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, tables.Table]]:
    table = ablation.table(ablation.differences(runs))
    return [] if table is None else [("What each part of RAN is worth", table)]


def section(runs: Sequence[Mapping[str, Any]], book: Book, names: Sequence[str]) -> Markup:
    """Claims, curves and tables over runs of these names, or why these runs are not pooled."""
    configs = [results.get("config") or {} for results in runs]
    keys = differing(configs)
    if keys:
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        return sections.nothing(f"Not pooled: these runs differ in more than their seed ({shown}).")
    if len({str((results.get("config") or {}).get("seed")) for results in runs}) < len(runs):
        return sections.nothing("Not pooled: two of these runs have the same seed, so they are the same run twice.")
    rows = rows_over_runs([Book.of(results).rows for results in runs])
    claimed = abstract.claims(runs)
    inside: list[Any] = [sections.caption(captions.OVER_RUNS.format(runs=len(runs)))]
    if said := earlier.provenance(names, configs):
        inside.append(sections.caption(said))
    inside += [
        tag("h3", "The claims"),
        evidence.claims_html(claimed),
        evidence.claims_data(book, claimed, "claims_over_runs"),
    ]
    classified = rows_.downstream(rows)
    chance = runs[0].get("chance") or {}
    for condition in rows_.conditions(classified):
        chosen = rows_.pick(rows_.of_condition(classified, condition), task="finding", metric="accuracy")
        if not chosen:
            continue
        inside.append(tag("h3", f"Accuracy against noise, condition {wording.condition_label(condition)}"))
        for number, (family, members) in enumerate(rows_.families(rows_.methods(chosen))):
            name = f"pooled-{condition}-{number}"
            inside += [tag("h4", family)] if family else []
            inside.append(figures.legend(figures.styles(members), name))
            drawn = [row for row in chosen if row["method"] in members]
            panels = figures.curves(drawn, "accuracy", wording.chance_level(chance, "accuracy"), name)
            inside.append(tag("div", panels, class_="panels"))
    for title, table in parts(runs)[1:]:
        inside.append(tag("details", tag("summary", title), table.html()))
    inside.append(book.csv("over_runs", rows, _FIELDS))
    if worth := ablation.differences(runs):
        inside.append(book.csv("ablation_over_runs", worth, ablation.FIELDS))
    return markup.join(inside)


def markdown(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Returns the tables of `parts` as Markdown; of one run, the same tables with the run's own intervals.

    Keys that were taken as their default in a run (`names`) are named below the tables.
    """
    if len(runs) > 1:
        found = parts(runs)
    else:
        rows = Book.of(runs[0]).rows
        found = [("The claims", evidence.claims_table(abstract.claims(runs)))]
        for condition in rows_.conditions(rows_.downstream(rows)):
            table = tables.main_table(
                rows_.pick(rows_.of_condition(rows_.downstream(rows), condition), task="finding"), "accuracy"
            )
            found += (
                [(f"Accuracy (%), condition {wording.condition_label(condition)}", table)] if table is not None else []
            )
        found += _parts_of_ran(runs)
    below = [earlier.provenance(names, [results.get("config") or {} for results in runs])]
    below += [few_labels.words(runs[0]), independent.words(runs[0])] if len(runs) == 1 else []
    shown = [f"**{title}**\n\n{table.markdown()}" for title, table in found]
    return "\n\n".join([*shown, *(words for words in below if words)])
