"""The section on which noise hurts or helps what: differences to the encoder without noise, a line a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import pandas as pd

from ranjax.report import contrast_items, figures, wording
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.blocks import Blocks, Heading, Panels, legend
from ranjax.report.book import Book
from ranjax.report.report_tables import CONDITION, NOISE, Column
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import ABOVE, BELOW, NONE, judged

TITLE = "Which noise hurts or helps what"
METHODS = ("zero_shot", "lp", "ran")
"""The methods whose differences are drawn, where a run has them; without any of them, its first one."""
_SIGNS = {ABOVE: "▲", BELOW: "▼", NONE: "○"}
_CELL = ("condition", "ratio", "method", "task", "split", "attack", "metric")
_FIELDS = (*_CELL, "difference", "low", "high", "p", "p_holm", "effect", "n", "verdict", "runs")


class Panel(NamedTuple):
    """What one panel shows: the fields of its differences, and its title."""

    fields: dict[str, str]
    title: str


def differences(runs: Sequence[Results]) -> list[Row]:
    """Return what each noise changed, paired with the clean encoder, where runs have several recipes; else nothing.

    Args:
      runs: contents of results.json of runs that differ in their seed alone. Of several, the differences that all have
        are one each, with Student's interval over runs.
    """
    by_cell = []
    for results in runs:
        items = (item for item in results.get("effects") or [] if item.get("kind") == "noise")
        by_cell.append({tuple(map(item.get, _CELL)): item for item in items if wording.has_interval(item)})
    common = [key for key in by_cell[0] if all(key in items for items in by_cell)]
    if len({key[0] for key in common}) < 2:
        return []
    pooled = [contrast_items.pooled([items[key] for items in by_cell]) for key in common]
    return [cast(Row, {**item, "runs": len(runs)}) for item in pooled]


def panels(frame: pd.DataFrame) -> Iterator[Panel]:
    """Yield the panels that differences have rows for: classification of each method, then retrieval both ways."""
    finding = frames.where(frame, task="finding")
    names = frames.values(finding, "method")
    main = labels.main_attack(finding["attack"])
    for method in [name for name in METHODS if name in names] or names[:1]:
        for attack in ("none", main):
            for split in frames.values(finding, "split"):
                fields = {"task": "finding", "method": method, "split": split, "attack": attack, "metric": "accuracy"}
                title = figures.panel_title(split, attack, ["none", main])
                yield Panel(fields, f"{labels.method_label(method)}: {title.lower()}")
    recall = frames.where(frame, task=frames.RETRIEVAL, metric="recall@1", attack="none")
    for split in frames.values(recall, "split"):
        for method in frames.values(recall, "method"):
            fields = {"task": frames.RETRIEVAL, "method": method, "split": split, "attack": "none"}
            title = f"{labels.method_label(method)}, {wording.split_label(split)}"
            yield Panel({**fields, "metric": "recall@1"}, title)


def doses(book: Book) -> Blocks:
    """Yield dose-response by recipe of this run."""
    yield from dose_response([book.results], book, "doses")


def dose_response(runs: Sequence[Results], book: Book, name: str, level: int = 3) -> Blocks:
    """Yield a panel a figure, a line a recipe against the noise ratio, and every difference with its verdict.

    Args:
      runs: as of `differences`.
      book: keeps the CSV file.
      name: of the file, and makes ids unique.
      level: of the headings.
    """
    frame = frames.frame_of(differences(runs))
    if frame.empty:
        return
    looks = figures.series_styles(map(wording.condition_label, frames.conditions(frame)))
    yield legend(looks, name, str)
    shown = _shown(frame)
    for metric in dict.fromkeys(panel.fields["metric"] for panel, _ in shown):
        of_metric = [(panel, _lines(chosen)) for panel, chosen in shown if panel.fields["metric"] == metric]
        shared = pd.concat([lines for _, lines in of_metric], ignore_index=True)
        axis = f"Points of {wording.metric_label(metric)}"
        yield Heading(f"Difference to the encoder without noise, {wording.metric_label(metric)}", level)
        yield Panels(
            [
                figures.curve(
                    lines, shared, looks, 0.0, panel.title, f"{name}-{metric}-{i}", axis=axis, level="no noise"
                )
                for i, (panel, lines) in enumerate(of_metric)
            ]
        )
    every = _judged(shown)
    yield _table(every, [panel for panel, _ in shown])
    yield book.csv(name, every, _FIELDS)


def dose_table(runs: Sequence[Results]) -> tables.Table | None:
    """Return every difference that `dose_response` draws, with its verdict; None where it draws nothing."""
    frame = frames.frame_of(differences(runs))
    if frame.empty or not (shown := _shown(frame)):
        return None
    return _table(_judged(shown), [panel for panel, _ in shown])


def _shown(frame: pd.DataFrame) -> list[tuple[Panel, pd.DataFrame]]:
    return [(panel, chosen) for panel in panels(frame) if len(chosen := frames.where(frame, **panel.fields))]


def _judged(shown: Sequence[tuple[Panel, pd.DataFrame]]) -> pd.DataFrame:
    """Return the differences of all panels with their verdicts; p is corrected over what is shown."""
    return frames.frame_of(judged(row for _, chosen in shown for row in frames.records(chosen)))


def _lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Return differences as points of lines that begin at no difference without noise."""
    points = frame.assign(method=frame["condition"].map(wording.condition_label), value=frame["difference"])
    starts = points.drop_duplicates("method").assign(ratio=0.0, value=0.0, low=None, high=None)
    return pd.concat([starts, points], ignore_index=True)


def _table(frame: pd.DataFrame, shown: Sequence[Panel]) -> tables.Table:
    """Return a line a panel and ratio, a column a recipe."""
    titles: dict[tuple[object, ...], str] = {tuple(panel.fields.values()): panel.title for panel in shown}
    fields = tuple(shown[0].fields)

    def cell(row: Row | None) -> str:
        if row is None:
            return "–"
        return f"{_SIGNS[row['verdict']]} {wording.estimate({**row, 'value': row['difference']})}"

    figure = Column("Figure", lambda row: titles[tuple(row.get(name) for name in fields)], fields)
    return tables.cross_table(frame, [figure, NOISE], CONDITION, cell)
