"""Tables: built once as cells, then written as HTML, as CSV or, for the end of a run, as fixed-width text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row

WIDTH = 100
_FIGURE_SPACE = "\N{FIGURE SPACE}"
_LONG = 28
"""Letters of a head cell from which it may break, so that figures stay in sight."""
_LEAD = re.compile(r"-?\d+(?=\.\d)")


@dataclass(frozen=True)
class Table:
    """A table with a header row; the first `heads` columns of each line name it.

    `bold` holds (line, column) of cells to set off, `breaks` the lines before which a group ends, `titles` the words
    that stand over a group, by its first line (on the page alone).
    """

    columns: Sequence[Any]
    lines: Sequence[Sequence[Any]]
    caption: Any = ""
    heads: int = 1
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    breaks: frozenset[int] = field(default_factory=frozenset)
    numeric: bool = True
    titles: Mapping[int, str] = field(default_factory=dict)

    def html(self) -> Markup:
        """Returns the table as an element that scrolls sideways on a narrow screen."""
        lines = _aligned(self.lines, self.heads) if self.numeric else self.lines
        head = tag("tr", [tag("th", _shown(name), scope="col") for name in self.columns])
        body = [part for index, line in enumerate(lines) for part in (*self._title(index), self._line(index, line))]
        table = tag(
            "table",
            tag("caption", self.caption) if self.caption else None,
            tag("thead", head),
            tag("tbody", body),
            class_="numbers" if self.numeric else "words",
        )
        return tag(
            "div",
            table,
            class_="scroll",
            tabindex="0",
            role="group",
            aria_label="Table, scrolls sideways where the screen is narrow",
        )

    def markdown(self) -> str:
        """Returns the table as Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.lines]
        return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)

    def _title(self, index: int) -> list[Markup]:
        if index not in self.titles:
            return []
        words = tag("th", self.titles[index], colspan=str(len(self.columns)), scope="rowgroup")
        return [tag("tr", words, class_="title")]

    def _line(self, index: int, line: Sequence[Any]) -> Markup:
        cells = []
        for column, cell in enumerate(line):
            inside = tag("strong", _shown(cell)) if (index, column) in self.bold else _shown(cell)
            long = "long" if not isinstance(cell, Markup) and len(str(cell)) > _LONG else None
            head = column < self.heads
            cells.append(tag("th", inside, scope="row", class_=long) if head else tag("td", inside))
        return tag("tr", cells, class_="group" if index in self.breaks else None)


def _aligned(lines: Sequence[Sequence[Any]], heads: int) -> list[list[Any]]:
    """Pads numbers with spaces as wide as a figure, so that those of one column stand point under point."""
    aligned = [list(line) for line in lines]
    for column in range(heads, len(lines[0]) if lines else 0):
        leads = [_LEAD.match(line[column]) if type(line[column]) is str else None for line in aligned]
        widest = max((len(lead.group()) for lead in leads if lead), default=0)
        for line, lead in zip(aligned, leads):
            if lead:
                line[column] = _FIGURE_SPACE * (widest - len(lead.group())) + line[column]
    return aligned


def _shown(cell: Any) -> Any:
    return cell if isinstance(cell, Markup) else markup.figures(str(cell))


def to_csv(records: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Returns records as CSV with the given fields; numbers keep every digit, None and what is absent is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(fields), extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: "" if record.get(name) is None else record[name] for name in fields})
    return out.getvalue()


def best(cells: Sequence[Row | None], metric: str) -> int | None:
    """Returns the index of the cell whose whole interval lies beyond every other cell's, or None.

    A single cell has nothing to be better than; a cell without an interval decides that none is best.
    """
    present = [(index, row) for index, row in enumerate(cells) if row is not None]
    if len(present) < 2 or not all(wording.has_interval(row) for _, row in present):
        return None
    for index, row in present:
        others = [other for other_index, other in present if other_index != index]
        if metric in wording.LOWER_IS_BETTER:
            beyond = all(row["high"] < other["low"] for other in others)
        else:
            beyond = all(row["low"] > other["high"] for other in others)
        if beyond:
            return index
    return None


def column_label(column: tuple[str, str], attacks: Sequence[str]) -> str:
    """Returns the header of a (split, attack) column."""
    split, attack = column
    label = f"{wording.split_label(split)}, {wording.attack_label(attack, attacks)}"
    return label[:1].upper() + label[1:]


def main_table(rows: Sequence[Row], metric: str, caption: Any = "") -> Table | None:
    """Returns one line a noise ratio and method, one column a split and attack; None where no row has the metric.

    Args:
      rows: pooled rows of one condition (with its ratio 0) and one task.
      metric: which metric the cells show.
      caption: the words under which the table stands.
    """
    rows = rows_.pick(rows, metric=metric)
    if not rows:
        return None
    columns, attacks = rows_.columns(rows), rows_.attacks(rows)
    lines: list[list[Any]] = []
    bold: set[tuple[int, int]] = set()
    breaks: set[int] = set()
    for ratio in rows_.ratios(rows):
        group = rows_.pick(rows, ratio=ratio)
        names = rows_.methods(group)
        breaks.add(len(lines))
        for position, (split, attack) in enumerate(columns):
            winner = best([rows_.first(group, method=name, split=split, attack=attack) for name in names], metric)
            if winner is not None:
                bold.add((len(lines) + winner, position + 2))
        for name in names:
            cells = [rows_.first(group, method=name, split=split, attack=attack) for split, attack in columns]
            lines.append(
                [wording.percent(ratio), wording.method_label(name), *(wording.estimate(row) for row in cells)]
            )
    header = ["Noise", "Method", *(column_label(column, attacks) for column in columns)]
    return Table(header, lines, caption, heads=2, bold=frozenset(bold), breaks=frozenset(breaks - {0}))


def class_table(rows: Sequence[Row]) -> Table:
    """Returns AUROC of each class, one line a ratio and class, one column a method.

    Args:
      rows: pooled rows of metrics ``"auroc/<class>"``, of one condition, task, split and attack.
    """
    names, metrics = rows_.methods(rows), rows_.distinct(rows, "metric")
    lines: list[list[Any]] = []
    bold: set[tuple[int, int]] = set()
    breaks: set[int] = set()
    for ratio in rows_.ratios(rows):
        breaks.add(len(lines))
        for metric in metrics:
            cells = [rows_.first(rows, ratio=ratio, metric=metric, method=name) for name in names]
            winner = best(cells, metric)
            if winner is not None:
                bold.add((len(lines), winner + 2))
            label = metric.removeprefix(wording.PER_CLASS)
            lines.append([wording.percent(ratio), label, *(wording.estimate(row) for row in cells)])
    header = ["Noise", "Class", *(wording.method_label(name) for name in names)]
    return Table(header, lines, heads=2, bold=frozenset(bold), breaks=frozenset(breaks - {0}))


def without_head_table(rows: Sequence[Row], chance: Mapping[str, Any], task: str = "") -> Table:
    """Returns figures that need no head, one line a ratio, method and kind of images, and a last line of chance.

    Args:
      rows: pooled rows of zero-shot classification, or of retrieval, in one condition.
      chance: what guessing gives, by metric; with `task`, which then has a line of chance a method, by
        ``"task/method/metric"``.
    """
    known = ("accuracy", "balanced_accuracy", "auroc", "macro_auroc", "recall@1", "recall@5", "recall@10")
    metrics = [name for name in known if rows_.pick(rows, metric=name)]
    attacks = rows_.attacks(rows)
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    for ratio in rows_.ratios(rows):
        breaks.add(len(lines))
        group = rows_.pick(rows, ratio=ratio)
        for method in rows_.methods(group):
            for split, attack in rows_.columns(rows_.pick(group, method=method)):
                cells = [rows_.first(group, method=method, split=split, attack=attack, metric=name) for name in metrics]
                shown = [wording.estimate(row) for row in cells]
                where = column_label((split, attack), attacks)
                lines.append([wording.percent(ratio), wording.method_label(method), where, *shown])
    guessed = [("guessing", "")]
    if task:
        guessed = [(wording.method_label(name).lower(), f"{task}/{name}/") for name in rows_.methods(rows)]
    # Where reports of one wording are right for each other, another split has another level.
    levels_of = [f"{start}{name}" for _, start in guessed for name in metrics]
    others = [split for split in rows_.splits(rows) if any(f"{split}/{level}" in chance for level in levels_of)]
    if others:
        places = [("in domain", ""), *((wording.split_label(split), f"{split}/") for split in others)]
        guessed = [(f"{what}, {place}", f"{at}{start}") for place, at in places for what, start in guessed]
    for number, (what, start) in enumerate(guessed):
        levels = [wording.number(wording.chance_level(chance, f"{start}{name}"), name) for name in metrics]
        if any(level != "–" for level in levels):
            breaks |= {len(lines)} if number == 0 else set()
            lines.append(["–", "Chance", what, *levels])
    header = ["Noise", "Method", "Images", *(wording.axis_label(name) for name in metrics)]
    return Table(header, lines, heads=3, breaks=frozenset(breaks - {0}))


def spectra_table(spectra: Sequence[Mapping[str, Any]], caption: Any = "") -> Table | None:
    """Returns SVE and LSVR of the features, one line a ratio and set of features, clean and attacked side by side."""
    spectra = [item for item in spectra if wording.finite(item.get("ratio"))]
    if not spectra:
        return None
    kinds = [kind for kind in ("clean", "attacked") if rows_.pick(spectra, features=kind)]
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    several = len(rows_.distinct([item for item in spectra if item["ratio"] > 0], "condition")) > 1
    for condition in rows_.distinct(spectra, "condition"):
        for ratio in rows_.ratios(rows_.pick(spectra, condition=condition)):
            breaks.add(len(lines))
            group = rows_.pick(spectra, condition=condition, ratio=ratio)
            for method in rows_.methods(group):
                line: list[Any] = [wording.condition_label(condition)] if several else []
                line += [wording.percent(ratio), wording.method_label(method)]
                for kind in kinds:
                    item = rows_.first(group, method=method, features=kind) or {}
                    line += [wording.number(item.get("sve"), "sve"), wording.number(item.get("lsvr"), "lsvr")]
                lines.append(line)
    header = (["Condition"] if several else []) + ["Noise", "Features"]
    header += [f"{name}, {kind}" for kind in kinds for name in ("SVE", "LSVR")]
    return Table(header, lines, caption, heads=len(header) - 2 * len(kinds), breaks=frozenset(breaks - {0}))


def terminal_table(rows: Sequence[Row]) -> str:
    """Returns accuracy with 95 % intervals, and R@1, as fixed-width text of at most 100 columns.

    Args:
      rows: the rows of results.json.
    """
    rows = rows_.pooled([row for row in rows if not rows_.is_ablation(row)])
    accuracy = rows_.pick(rows_.downstream(rows), metric="accuracy")
    recall = rows_.pick(rows, task=rows_.RETRIEVAL, metric="recall@1")
    blocks: list[str] = []
    for condition in rows_.conditions(accuracy):
        for task in rows_.distinct(rows_.of_condition(accuracy, condition), "task"):
            title = f"Accuracy in % [95 % interval], condition {wording.condition_label(condition)}, task {task}"
            blocks += _blocks(title, rows_.pick(rows_.of_condition(accuracy, condition), task=task))
    for condition in rows_.conditions(recall):
        title = f"Retrieval R@1 in % [95 % interval], condition {wording.condition_label(condition)}"
        blocks += _blocks(title, rows_.of_condition(recall, condition))
    return "\n\n".join(blocks) if blocks else "No accuracy or retrieval figures in these results."


def _blocks(title: str, rows: Sequence[Row]) -> list[str]:
    columns, attacks = rows_.columns(rows), rows_.attacks(rows)
    lines = [["noise", "method", *(_short(column, attacks) for column in columns)]]
    for ratio in rows_.ratios(rows):
        group = rows_.pick(rows, ratio=ratio)
        for name in rows_.methods(group):
            cells = [rows_.first(group, method=name, split=split, attack=attack) for split, attack in columns]
            shown = [wording.percent(ratio)[:10], wording.method_label(name)[:16]]
            lines.append(shown + [wording.estimate(row).replace("–", "-") for row in cells])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    blocks, start = [], 2
    while start < len(widths):
        end, used = start + 1, widths[0] + widths[1] + 4 + widths[start]
        while end < len(widths) and used + 2 + widths[end] <= WIDTH:
            used, end = used + 2 + widths[end], end + 1
        chosen = [0, 1, *range(start, end)]
        blocks.append(
            _fixed(title, [[line[index] for index in chosen] for line in lines], [widths[index] for index in chosen])
        )
        start = end
    return blocks


def _short(column: tuple[str, str], attacks: Sequence[str]) -> str:
    split, attack = column
    names = {"test": "test", "ood_test": "ood"}
    return f"{names.get(split, split)} {wording.attack_label(attack, attacks)}"[:28]


def _fixed(title: str, lines: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    written = []
    for line in lines:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths))
        ]
        written.append("  ".join(cells).rstrip())
    rule = "-" * min(WIDTH, max(len(line) for line in written))
    return "\n".join([title[:WIDTH], rule, written[0], rule, *written[1:], rule])
