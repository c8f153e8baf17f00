"""What was fitted: each method's scope, what the validation search chose, and what the run noted along the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.sections import Book, caption, nothing


def section(book: Book) -> Markup:
    """One line a condition, ratio and method: learning rate and strength chosen, validation score, epochs, share trained."""
    items = [item for item in book.results.get("methods") or [] if wording.finite(item.get("ratio"))]
    if not items:
        return nothing("This run says nothing of how its methods were fitted.")
    lines: list[list[Any]] = []
    records: list[dict[str, Any]] = []
    breaks: set[int] = set()
    several = len(rows_.conditions(items)) > 1
    for item in items:
        start = [wording.condition_label(item["condition"])] if several else []
        start.append(wording.percent(item["ratio"]))
        if lines and lines[-1][: len(start)] != start:
            breaks.add(len(lines))
        facts = _facts(item)
        records.append({**item, **facts})
        lines.append(
            [*start, wording.method_label(item["method"]), *(_shown(name, value) for name, value in facts.items())]
        )
    header = [*(["Condition"] if several else []), "Noise", "Method", "Trained", "Rate ×", "Strength ×", "Tried"]
    header += ["Validation (%)", "Epochs chosen"]
    table = tables.Table(header, lines, "", heads=len(header) - 6, breaks=frozenset(breaks), numeric=False)
    fields = ("condition", "ratio", "method", "trained", "rate", "strength", "tried", "validation", "epochs")
    parts = [caption(captions.FITTED), tag("details", tag("summary", f"{len(lines)} fits"), table.html())]
    return markup.join([*parts, book.csv("fitted", records, fields), _notes(book)])


def _facts(item: Mapping[str, Any]) -> dict[str, Any]:
    search = item.get("search") or {}
    chosen = search.get("chosen") or {}
    scores = [score for score in item.get("validation") or [] if wording.finite(score)]
    return {
        "trained": item.get("share", item.get("trained")),
        "rate": chosen.get("rate"),
        "strength": chosen.get("strength"),
        "tried": len(search.get("tried") or []) or None,
        "validation": sum(scores) / len(scores) if scores else None,
        "epochs": ", ".join(str(epoch) for epoch in item.get("chosen_epochs") or []) or None,
    }


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "head alone" if name == "trained" else "–"
    if value == 0 and name == "trained":
        return "nothing"
    if name == "trained":
        return f"{100 * value:.2g} % of the encoder"
    if name == "validation":
        return wording.number(value, "accuracy")
    return wording.plain(value)


def _notes(book: Book) -> Markup:
    """What a figure could not be had for, and why."""
    words: dict[str, list[str]] = {}
    for item in book.results.get("notes") or []:
        places = words.setdefault(str(item.get("note")), [])
        if "condition" in item:  # others are of the data, and so of every condition
            places.append(f"{wording.condition_label(item['condition'])}, {wording.percent(item.get('ratio'))}")
    if not words:
        return markup.join([])
    lines = [
        tag("li", markup.figures(f"{note} ({'; '.join(places)})" if places else note)) for note, places in words.items()
    ]
    return markup.join([tag("h3", "Notes of the run"), tag("ul", lines)])
