"""Tables: built once as cells, then written as HTML, as Markdown, as CSV or, at the end of a run, as fixed-width
text.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from ranjax.report import entry_labels as labels
from ranjax.report import result_frame as frames
from ranjax.report import wording
from ranjax.report.stored_results import Row

WIDTH = 100
_FIGURE_SPACE = "\N{FIGURE SPACE}"
_INTERVAL = re.compile(r"\d \[-?[\d.]+, -?[\d.]+\]")
_LEAD = re.compile(r"-?\d+(?=\.\d)")


@dataclass(frozen=True)
class Table:
    """A table with a header row.

    Attributes:
      columns: the header's cells.
      lines: the cells of each line.
      heads: number of columns, counted from the left, that name a line.
      bold: (line, column) of cells to set off.
      breaks: the lines before which a group ends.
      numeric: whether the numbers of a column stand point under point.
      titles: words over a group, by its first line; on the page alone.
      code: columns whose cells are set as code.
      caption: the words above it on the page; empty: those of the heading or summary above it.
    """

    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    heads: int = 1
    bold: frozenset[tuple[int, int]] = frozenset()
    breaks: frozenset[int] = frozenset()
    numeric: bool = True
    titles: Mapping[int, str] = field(default_factory=dict)
    code: frozenset[int] = frozenset()
    caption: str = ""

    @property
    def has_intervals(self) -> bool:
        """Return whether a cell holds a value with its interval."""
        return any(_INTERVAL.search(cell) for line in self.lines for cell in line)

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.lines]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def csv(self) -> str:
        """Return the table as CSV, each cell as it is shown."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.lines])
        return text.getvalue()

    def aligned(self) -> list[list[str]]:
        """Return the lines with numbers padded by spaces as wide as a figure, so that points stand under points."""
        aligned = [list(line) for line in self.lines]
        for column in range(self.heads, len(self.columns) if self.numeric else 0):
            leads = [_LEAD.match(line[column]) for line in aligned]
            widest = max((len(lead.group()) for lead in leads if lead), default=0)
            for line, lead in zip(aligned, leads):
                if lead:
                    line[column] = _FIGURE_SPACE * (widest - len(lead.group())) + line[column]
        return aligned


class Column(NamedTuple):
    """A column of a table of rows.

    Attributes:
      title: the header's cell.
      write: returns the cell of a row. Of the columns of a `cross_table`, the header's cell.
      fields: the fields of a row by which lines or columns of a `cross_table` are ordered.
    """

    title: str
    write: Callable[[Row], str]
    fields: tuple[str, ...] = ()


CONDITION = Column("Condition", lambda row: wording.condition_label(row.get("condition")), ("condition",))
NOISE = Column("Noise", lambda row: wording.percent(row.get("ratio")), ("ratio",))
METHOD = Column("Method", lambda row: labels.method_label(row.get("method")), ("method",))
BY_METRIC = Column("", lambda row: wording.axis_label(row["metric"]), ("metric",))
TASK = Column("Task", lambda row: str(row.get("task")), ("task",))


def condition_and_noise(frame: pd.DataFrame) -> list[Column]:
    """Return the columns of condition, where the rows have several, and noise ratio."""
    return [CONDITION, NOISE] if len(frames.conditions(frame)) > 1 else [NOISE]


def images(frame: pd.DataFrame, title: str = "Images") -> Column:
    """Return the column of the kind of test images: split and attack."""
    attacks = frames.values(frame, "attack")
    return Column(title, lambda row: column_label((row["split"], row["attack"]), attacks), ("split", "attack"))


def listing(rows: Iterable[Row], heads: Sequence[Column], columns: Sequence[Column], numeric: bool = True) -> Table:
    """Return a table with one line a row, with a rule where condition or noise ratio changes."""
    rows = list(rows)
    lines = [[column.write(row) for column in (*heads, *columns)] for row in rows]
    header = [column.title for column in (*heads, *columns)]
    return Table(header, lines, heads=len(heads), breaks=_breaks(rows, heads), numeric=numeric)


def _breaks(rows: Sequence[Row], heads: Sequence[Column]) -> frozenset[int]:
    where = [tuple(head.write(row) for head in heads if head in (CONDITION, NOISE)) for row in rows]
    return frozenset(index for index in range(1, len(where)) if where[index] != where[index - 1])


def cross_table(
    frame: pd.DataFrame,
    heads: Sequence[Column],
    across: Column,
    cell: Callable[[Row | None], str] = wording.estimate,
    best_of: str = "",
    columns: Sequence[Row] = (),
) -> Table:
    """Return a table with one line a value of `heads` and one column a value of `across`.

    Args:
      frame: pooled rows.
      heads: the columns that name a line; lines are ordered by their fields.
      across: writes the header's cell of a row, and names the fields by which columns are ordered.
      cell: writes the row of a line and column, or None where there is none.
      best_of: "line" or "column": among which cells the best one is set off; those of a column are of one noise ratio.
      columns: a row for each column, where there are others than those of `frame`.
    """
    named = [name for head in heads for name in head.fields]
    if not columns:
        columns = frames.records(frames.ordered(frame, across.fields).drop_duplicates(list(across.fields)))
    places = {tuple(row.get(name) for name in across.fields): place for place, row in enumerate(columns)}
    lines: list[list[Row | None]] = []
    firsts: dict[tuple[object, ...], Row] = {}
    for row in frames.records(frames.ordered(frame, named)):
        key = tuple(row.get(name) for name in named)
        if key not in firsts:
            firsts[key] = row
            lines.append([None] * len(places))
        place = places[tuple(row.get(name) for name in across.fields)]
        lines[-1][place] = lines[-1][place] or row
    breaks = _breaks(list(firsts.values()), heads)
    bold: set[tuple[int, int]] = set()
    if best_of == "line":
        bold = {(index, won) for index, line in enumerate(lines) if (won := best(line)) is not None}
    elif best_of == "column":
        for start, end in itertools.pairwise([0, *sorted(breaks), len(lines)]):
            winners = [(column, best([line[column] for line in lines[start:end]])) for column in range(len(columns))]
            bold |= {(start + won, column) for column, won in winners if won is not None}
    return Table(
        [*(head.title for head in heads), *map(across.write, columns)],
        [[*(head.write(row) for head in heads), *map(cell, line)] for row, line in zip(firsts.values(), lines)],
        heads=len(heads),
        bold=frozenset((line, column + len(heads)) for line, column in bold),
        breaks=breaks,
    )


def by_method(
    frame: pd.DataFrame, across: Column, *heads: Column, cell: Callable[[Row | None], str] = wording.estimate
) -> Table:
    """Return a `cross_table` with one line a condition, noise ratio, method and value of `heads`."""
    return cross_table(frame, [*condition_and_noise(frame), METHOD, *heads], across, cell)


def best(cells: Sequence[Row | None]) -> int | None:
    """Return the index of the cell with an interval that lies beyond every other cell's, or None.

    A single cell has nothing to be better than; a cell without an interval decides that none is best.
    """
    present = {index: row for index, row in enumerate(cells) if row is not None}
    if len(present) < 2 or not all(map(wording.has_interval, present.values())):
        return None
    for index, row in present.items():
        others = [other for place, other in present.items() if place != index]
        lower = row["metric"] in wording.LOWER_IS_BETTER
        if all(row["high"] < other["low"] if lower else row["low"] > other["high"] for other in others):
            return index
    return None


def to_csv(items: Iterable[Mapping[str, object]], fields: Sequence[str]) -> str:
    """Return items as CSV with the given fields; numbers keep every digit, None and what is absent is empty."""
    frame = pd.DataFrame([[item.get(name) for name in fields] for item in items], columns=list(fields), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def column_label(column: tuple[str, str], attacks: Sequence[str]) -> str:
    """Return the header of a (split, attack) column."""
    split, attack = column
    return wording.capitalized(f"{wording.split_label(split)}, {labels.attack_label(attack, attacks)}")


def main_table(frame: pd.DataFrame, metric: str) -> Table | None:
    """Return one line a noise ratio and method, one column a split and attack; None where no row has the metric.

    Args:
      frame: pooled rows of one condition (with its ratio 0) and one task.
      metric: the metric that the cells show.
    """
    chosen = frames.where(frame, metric=metric)
    return cross_table(chosen, [NOISE, METHOD], images(chosen), best_of="column") if len(chosen) else None


def class_table(frame: pd.DataFrame) -> Table:
    """Return AUROC of each class, one line a ratio and class, one column a method.

    Args:
      frame: pooled rows of metrics ``"auroc/<class>"``, of one condition, task, split and attack.
    """
    name = Column("Class", lambda row: row["metric"].removeprefix(wording.PER_CLASS), ("metric",))
    return cross_table(frame, [NOISE, name], METHOD, best_of="line")


def without_head_table(frame: pd.DataFrame, chance: Mapping[str, object], task: str = "") -> Table:
    """Return figures that need no head, one line a ratio, method and kind of images, and last lines of chance.

    Args:
      frame: pooled rows of zero-shot classification, or of retrieval, in one condition.
      chance: the score of guessing by metric; with `task`, which has a line of chance a method, by
        ``"task/method/metric"``.
    """
    known = ("accuracy", "balanced_accuracy", "auroc", "macro_auroc", "recall@1", "recall@5", "recall@10")
    chosen = frame[frame["metric"].isin(known)]
    metrics = frames.values(chosen, "metric")
    table = cross_table(chosen, [NOISE, METHOD, images(chosen)], BY_METRIC)
    guessed = [("guessing", "")]
    if task:
        guessed = [(labels.method_label(name).lower(), f"{task}/{name}/") for name in frames.values(chosen, "method")]
    # Where reports of one wording are right for each other, another split has another level.
    levels = [f"{start}{name}" for _, start in guessed for name in metrics]
    splits = frames.values(chosen, "split")
    if others := [split for split in splits if any(f"{split}/{level}" in chance for level in levels)]:
        places = [("in domain", ""), *((wording.split_label(split), f"{split}/") for split in others)]
        guessed = [(f"{what}, {place}", f"{at}{start}") for place, at in places for what, start in guessed]
    added: list[list[str]] = []
    for what, start in guessed:
        shown = [wording.number(wording.chance_level(chance, f"{start}{name}"), name) for name in metrics]
        if any(level != "–" for level in shown):
            added.append(["–", "Chance", what, *shown])
    return replace(table, lines=[*table.lines, *added], breaks=table.breaks | ({len(table.lines)} if added else set()))


def spectra_table(spectra: pd.DataFrame) -> Table | None:
    """Return SVE and LSVR of the features, one line a ratio and set of features, clean and attacked side by side.

    Args:
      spectra: a frame with a row for each item of results["spectra"].
    """
    spectra = frames.with_ratio(spectra)
    if spectra.empty:
        return None
    items = [
        {**item, "metric": name, "value": item.get(name)}
        for item in spectra.to_dict("records")
        for name in ("sve", "lsvr")
    ]
    kinds = Column("", lambda row: f"{row['metric'].upper()}, {row['features']}", ("features", "metric"))
    heads = [*condition_and_noise(spectra), METHOD._replace(title="Features")]
    table = cross_table(frames.frame_of(items), heads, kinds, lambda row: wording.number(row and row["value"], "sve"))
    return replace(table, caption="Entropy of the spectrum (SVE) and weight of its largest value (LSVR)")


def terminal_table(rows: Sequence[Row]) -> str:
    """Return accuracy with 95 % intervals, and R@1, as fixed-width text of at most 100 columns.

    Args:
      rows: the rows of results.json.
    """
    frame = frames.rows_frame(row for row in rows if not labels.is_ablation(row))
    accuracy = frames.where(frames.downstream(frame), metric="accuracy")
    recall = frames.where(frame, task=frames.RETRIEVAL, metric="recall@1")
    blocks: list[str] = []
    for condition in frames.conditions(accuracy):
        for task, chosen in frames.of_condition(accuracy, condition).groupby("task", sort=False):
            title = f"Accuracy in % [95 % interval], condition {wording.condition_label(condition)}, task {task}"
            blocks += _blocks(title, chosen)
    for condition in frames.conditions(recall):
        title = f"Retrieval R@1 in % [95 % interval], condition {wording.condition_label(condition)}"
        blocks += _blocks(title, frames.of_condition(recall, condition))
    return "\n\n".join(blocks) if blocks else "No accuracy or retrieval figures in these results."


def _blocks(title: str, frame: pd.DataFrame) -> list[str]:
    """Return a table as fixed-width text, cut into blocks of at most `WIDTH` columns that repeat the heads."""
    attacks = frames.values(frame, "attack")
    heads = [
        Column("noise", lambda row: wording.percent(row["ratio"])[:10], ("ratio",)),
        Column("method", lambda row: labels.method_label(row["method"]), ("method",)),
    ]
    across = Column(
        "", lambda row: f"{row['split']} {labels.attack_label(row['attack'], attacks)}", ("split", "attack")
    )
    table = cross_table(frame, heads, across)
    lines = [[name.replace("ood_test", "ood")[:28] for name in table.columns]]
    lines += [
        [noise, method[:16], *(cell.replace("–", "-") for cell in cells)] for noise, method, *cells in table.lines
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    blocks, start = [], 2
    while start < len(widths):
        end = start + 1
        while end < len(widths) and sum(widths[:2]) + sum(widths[start : end + 1]) + 2 * (end + 2 - start) <= WIDTH:
            end += 1
        written = []
        for line in lines:
            cells = [line[index].rjust(widths[index]) for index in range(start, end)]
            written.append("  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]), *cells]).rstrip())
        rule = "-" * min(WIDTH, max(map(len, written)))
        blocks.append("\n".join([title[:WIDTH], rule, written[0], rule, *written[1:], rule]))
        start = end
    return blocks
