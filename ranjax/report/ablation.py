"""What each part of RAN is worth: RAN less RAN without it, on the same test images and head seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report import paper_claims as abstract
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.further_sections import MARKS, verdict, with_holm
from ranjax.report.markup import Markup
from ranjax.report.sections import Book, caption, nothing

_CELL = ("condition", "ratio", "a", "b", "task", "split", "attack", "metric")
FIELDS = ("condition", "ratio", "b", "split", "attack", "metric", "difference", "low", "high", "p", "p_holm", "seeds")


def differences(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what every run compared, with "p_holm"; several runs as one, their intervals over runs.

    Args:
      runs: contents of results.json that differ in their seed alone.
    """
    found = [
        {tuple(item.get(name) for name in _CELL): item for item in _of(results) if wording.has_interval(item)}
        for results in runs
    ]
    return with_holm([abstract.over_runs([t[key] for t in found]) for key in found[0] if all(key in t for t in found)])


def _of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in results.get("comparisons") or [] if rows_.is_ablation(item)]


def table(items: Sequence[Mapping[str, Any]]) -> tables.Table | None:
    """Returns a line for each part and ratio, a column for each kind of images; None where nothing was left out."""
    if not items:
        return None
    several, attacks = len(rows_.conditions(items)) > 1, rows_.attacks(items)
    kinds = list(dict.fromkeys((item["split"], item["attack"]) for item in items))
    places = list(dict.fromkeys((str(item["condition"]), item["ratio"], str(item["b"])) for item in items))
    places.sort(key=lambda place: place[:2])
    found = {(str(i["condition"]), i["ratio"], str(i["b"]), (i["split"], i["attack"])): i for i in items}
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    for condition, ratio, left_out in places:
        line = [wording.condition_label(condition)] if several else []
        line += [wording.percent(ratio), wording.term_label(rows_.left_out(left_out))]
        line += [_estimate(found.get((condition, ratio, left_out, kind))) for kind in kinds]
        if lines and lines[-1][: 1 + several] != line[: 1 + several]:
            breaks.add(len(lines))
        lines.append(line)
    header = [
        *(["Condition"] if several else []),
        "Noise",
        "Part",
        *(tables.column_label(kind, attacks) for kind in kinds),
    ]
    return tables.Table(header, lines, "", heads=2 + several, breaks=frozenset(breaks))


def _estimate(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "–"
    return f"{MARKS[verdict(item)]} {wording.estimate({**item, 'value': item['difference']})}"


def section(book: Book) -> Markup:
    """What each part of RAN is worth in this run."""
    items = with_holm([item for item in book.results.get("ablation") or [] if wording.has_interval(item)])
    shown = table(items)
    if shown is None:
        return nothing("No ablation was made in this run (adapt.methods holds no ran_without_...).")
    return markup.join([caption(captions.ABLATION), shown.html(), book.csv("ablation", items, FIELDS)])
