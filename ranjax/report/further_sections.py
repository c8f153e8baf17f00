"""Sections beyond test accuracy: groups, corruptions, questions, attacked pairs, noise effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import few_label_notes as few_labels
from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.claims import holm_by_metric
from ranjax.report.evidence import p_words
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row
from ranjax.report.sections import Book, caption, nothing


def wide(rows: Sequence[Row], column: str, label: Any, heads: Sequence[tuple[str, str]] = ()) -> tables.Table:
    """Returns one line a condition, ratio and method, one column a value of the field `column`.

    Args:
      rows: pooled rows of figures that belong in one table.
      column: the field whose values are the columns.
      label: words for such a value.
      heads: further (field, title) that name a line.
    """
    values = rows_.distinct(rows, column)
    several = len(rows_.conditions(rows)) > 1
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    keys = [(row["condition"], row["ratio"], row["method"], *(row.get(field) for field, _ in heads)) for row in rows]
    # Answers come back from their file by name: methods stand in their usual order here, as everywhere.
    cells_of, order = list(dict.fromkeys(key[:2] for key in keys)), rows_.methods(rows)
    for key in sorted(dict.fromkeys(keys), key=lambda key: (cells_of.index(key[:2]), order.index(key[2]))):
        condition, ratio, method, *rest = key
        where = {"condition": condition, "ratio": ratio, "method": method, **dict(zip((f for f, _ in heads), rest))}
        cells = [_named(rows_.first(rows, **where, **{column: value})) for value in values]
        line = ([wording.condition_label(condition)] if several else []) + [
            wording.percent(ratio),
            wording.method_label(method),
        ]
        line += [
            wording.split_label(value) if field == "split" else str(value) for (field, _), value in zip(heads, rest)
        ]
        if lines and lines[-1][: 1 + several] != line[: 1 + several]:
            breaks.add(len(lines))
        lines.append([*line, *cells])
    header = ["Condition"] * several + [
        "Noise",
        "Method",
        *(title for _, title in heads),
        *(label(value) for value in values),
    ]
    return tables.Table(header, lines, "", heads=len(header) - len(values), breaks=frozenset(breaks))


def _named(row: Row | None) -> str:
    """Returns the estimate, followed by the group where a row is that of the worst one."""
    shown = wording.estimate(row)
    return f"{shown} {row['group']}" if row is not None and row.get("group") else shown


def groups(book: Book) -> Markup:
    """Accuracy of the worst group of each kind, and of every group."""
    rows = rows_.pick(book.rows, task="groups")
    if not rows:
        return nothing("No groups: the records of this data carry none, or none has enough images.")
    parts: list[Any] = [caption(captions.GROUPS)]
    worst = [row for row in rows if str(row["metric"]).startswith("worst_group/")]
    for split in rows_.splits(worst):
        table = wide(
            rows_.pick(worst, split=split), "metric", lambda name: f"Worst by {name.removeprefix('worst_group/')} (%)"
        )
        parts += [tag("h3", f"Accuracy of the worst group, {wording.split_label(split)}"), table.html()]
    every = [row for row in rows if str(row["metric"]).startswith("accuracy/")]
    columns = dict.fromkeys(str(row["metric"]).removeprefix("accuracy/").partition("=")[0] for row in every)
    for column in columns:
        chosen = [row for row in every if str(row["metric"]).startswith(f"accuracy/{column}=")]
        table = wide(chosen, "metric", lambda name: name.partition("=")[2], (("split", "Images"),))
        parts.append(tag("details", tag("summary", f"Accuracy by {column} (%)"), table.html()))
    return markup.join([*parts, book.csv("groups", rows, (*rows_.FIELDS, "group"))])


def corruptions(book: Book) -> Markup:
    """Mean corruption error, and accuracy by kind and strength."""
    rows = rows_.pick(book.rows, task="corrupted")
    if not rows:
        return nothing("Images were not corrupted in this run (evaluate.corruption_examples is 0).")
    parts: list[Any] = [caption(captions.CORRUPTIONS)]
    errors = rows_.pick(rows, metric="mce")
    if errors:
        parts.append(wide(errors, "metric", lambda _: "mCE (%)").html())
    else:
        parts.append(nothing("No mCE: it needs a baseline on the clean encoder that errs under every kind."))
    accuracy = [{**row, **_kind(row)} for row in rows_.pick(rows, metric="accuracy")]
    for kind in rows_.distinct(accuracy, "kind"):
        table = wide(rows_.pick(accuracy, kind=kind), "strength", lambda strength: f"Strength {strength}")
        parts.append(tag("details", tag("summary", f"Accuracy (%) under {kind}"), table.html()))
    return markup.join([*parts, book.csv("corruptions", rows)])


def _kind(row: Row) -> dict[str, str]:
    kind, _, strength = str(row.get("attack")).rpartition("-")
    return {"kind": kind, "strength": strength}


def questions(book: Book) -> Markup:
    """Open and closed questions, beside what the most frequent answer gives."""
    rows = [row for row in book.rows if str(row.get("task")).startswith("questions_")]
    if not rows:
        return nothing("No questions were asked in this run (evaluate.question_seeds is 0).")
    chance = book.results.get("chance") or {}
    parts: list[Any] = [caption(captions.QUESTIONS)]
    marked = [{**row, "what": f"{row['task']}/{row['split']}"} for row in rows_.pick(rows, metric="accuracy")]

    def label(what: str) -> str:
        task, _, split = what.partition("/")
        level = chance.get(what)
        guessed = f"; most frequent answer {wording.number(level, 'accuracy')}" if wording.finite(level) else ""
        return f"{task.removeprefix('questions_').capitalize()}, {wording.split_label(split)} (%{guessed})"

    parts.append(wide(marked, "what", label).html())
    return markup.join([*parts, book.csv("questions", rows)])


def attacked_pairs(book: Book) -> Markup:
    """Retrieval under attacks on images, reports or both, with the attacks' success by both definitions."""
    rows = rows_.pick(book.rows, task="retrieval_attacked")
    if not rows:
        return nothing("Pairs were not attacked at test time in this run (evaluate.pair_attacks is empty).")
    parts: list[Any] = [caption(captions.ATTACKED_PAIRS)]
    for ends, title in ((("recall@",), "Recall"), (("recall_drop@", "turned_wrong@"), "Success of the attack")):
        chosen = [{**row, "by": _by(row)} for row in rows if str(row["metric"]).startswith(ends)]
        if chosen:
            table = wide(chosen, "metric", wording.axis_label, (("by", "Attacked"),))
            parts += [tag("h3", title), table.html()]
    return markup.join([*parts, book.csv("attacked_pairs", rows)])


def _by(row: Row) -> str:
    attack = row.get("attack")
    return "nothing" if attack == "none" else wording.attack_name(attack)


def effects(book: Book) -> Markup:
    """What the noise did to each method, paired by test image with the clean encoder; and how the recipes differ."""
    items = [item for item in book.results.get("effects") or [] if wording.has_interval(item)]
    if not items:
        return nothing("This run has no noisy condition to hold against the clean one.")
    parts: list[Any] = [caption(captions.EFFECTS), few_labels.said(book.results)]
    records: list[dict[str, Any]] = []
    titles = {
        "noise": "A method on the noisy encoder less the same on the clean one",
        "recipe": "Another recipe less the first one, at the same noise ratio",
        "restored": "RAN on the noisy encoder less LP on the clean one",
    }
    for kind, title in titles.items():
        chosen = rows_.pick(items, kind=kind)
        corrected = with_holm(chosen)
        if not corrected:
            continue
        records += [{**item, "verdict": verdict(item)} for item in corrected]
        lines: list[list[Any]] = []
        breaks: set[int] = set()
        attacks, tasks = rows_.attacks(corrected), rows_.distinct(corrected, "task")
        for item in corrected:
            line = [
                wording.condition_label(item["condition"]),
                wording.percent(item["ratio"]),
                wording.method_label(item["method"]),
            ]
            line += [str(item["task"]).replace("_", " ")] if len(tasks) > 1 else []
            line += [tables.column_label((item["split"], item["attack"]), attacks)]
            line += [f"{MARKS[verdict(item)]} {verdict(item)}", wording.estimate({**item, "value": item["difference"]})]
            line += [p_words(item["p_holm"]), f"{item['effect']:.2f}" if wording.finite(item.get("effect")) else "–"]
            if lines and lines[-1][:2] != line[:2]:
                breaks.add(len(lines))
            lines.append(line)
        header = ["Condition", "Noise", "Method", *(["Task"] if len(tasks) > 1 else []), "Images", "Verdict"]
        header += ["Difference [95 %]", "p (Holm)", "Effect"]
        table = tables.Table(header, lines, "", heads=len(header) - 4, breaks=frozenset(breaks))
        stand = sum(verdict(item) != "not shown" for item in corrected)
        words = f"{title}: {stand} of {len(corrected)} differences are shown"
        parts.append(tag("details", tag("summary", words), table.html()))
    fields: tuple[str, ...] = ("kind", "condition", "ratio", "method", "task", "split", "attack", "metric")
    fields += ("difference", "low", "high", "p", "p_holm", "effect", "n", "seeds", "verdict")
    return markup.join([*parts, book.csv("effects", records, fields)])


MARKS = {"higher": "▲", "lower": "▼", "not shown": "○"}


def with_holm(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The differences whose p is known with "p_holm", metric by metric (`claims.holm_by_metric`)."""
    found = [item for item in holm_by_metric(items) if "p_holm" in item]
    return [item for metric in rows_.distinct(found, "metric") for item in rows_.pick(found, metric=metric)]


def verdict(item: Mapping[str, Any]) -> str:
    """Returns "higher" or "lower" where the difference is shown after correction, else "not shown"."""
    if item["p_holm"] >= 0.05 or item["low"] <= 0 <= item["high"]:
        return "not shown"
    return "higher" if item["low"] > 0 else "lower"
