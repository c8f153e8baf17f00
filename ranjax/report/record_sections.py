"""Sections on the run itself: what was run and fitted, attacked pairs, data card, configuration, versions, files.

Each function takes a `Book` and returns the data of the template of the same section.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ranjax.report import entry_labels as labels
from ranjax.report import interval_notes, old_configs, pictures, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.book import Book, Fold
from ranjax.report.report_tables import METHOD, Column, Table
from ranjax.report.stored_results import Results, Row

_NOTICES = ("notice", "statement", "warning", "caution", "clinical_claim", "clinical_use", "limits", "limitations")


def notices(card: Results) -> list[str]:
    """Return the lines of the data card's own notice, which stand before any figure."""
    lowered = {str(key).lower().replace(" ", "_"): value for key, value in card.items()}
    found = next((lowered[key] for key in _NOTICES if lowered.get(key)), None)
    if found is None or isinstance(found, Mapping):
        return ["The figures hold for the data of the data card below. No clinical claim is made."]
    return [str(item) for item in found] if isinstance(found, list) else [wording.plain(found)]


def run(book: Book) -> dict[str, object]:
    """Return the size of the run: data, conditions, methods, attacks, seeds, and the time of each stage."""
    facts, frame = book.run, frames.downstream(book.rows)
    seeds = {row.get("seed") for row in book.results.get("rows") or []} - {None}
    sizes = [
        f"{wording.split_label(split)} "
        + interval_notes.tested(book.results, split, _largest(frames.where(frame, split=split)))
        for split in frames.splits(frame)
    ]
    stages = [stage for stage in facts.get("stages") or [] if isinstance(stage, Mapping)]
    spent = sum(stage["seconds"] for stage in stages if wording.finite(stage.get("seconds")))
    machine = {key: value for key, value in (facts.get("machine") or {}).items() if not isinstance(value, Mapping)}
    brief = [f"{str(key).replace('_', ' ')}: {wording.plain(value)}" for key, value in machine.items()]
    attacks = [labels.attack_name(name) for name in frames.attacks(frame) if name != "none"]
    items = {
        "Started": facts.get("started"),
        "Took": f"{wording.duration(spent)} in {len(stages)} stages" if stages else None,
        "Machine": ", ".join(brief),
        "Classes": wording.plain(book.results.get("classes") or []),
        "Tested, n": ", ".join(sizes),
        "Noise ratios": ", ".join(map(wording.percent, frames.ratios(book.rows))),
        "Conditions": ", ".join(map(wording.condition_label, frames.conditions(book.rows))),
        "Methods": ", ".join(map(labels.method_label, frames.methods(frame))),
        "Attacks": ", ".join(attacks) or "none in this run",
        "Seeds": f"{len(seeds)} a head" if seeds else None,
    }
    fields = ("name", "condition", "seconds", "skipped")
    return {
        "command": facts.get("command"),
        "facts": {name: value for name, value in items.items() if value},
        "stages": _stages_table(stages) if stages else None,
        "file": book.csv("stages", stages, fields) if stages else "",
    }


def _stages_table(stages: list[Mapping[str, object]]) -> Table:
    several = any(stage.get("condition") for stage in stages)
    lines = []
    for stage in stages:
        took = "taken over from an earlier run" if stage.get("skipped") else wording.duration(stage.get("seconds"))
        condition = [wording.plain(stage.get("condition") or "–")] if several else []
        lines.append([str(stage.get("name", "–")), *condition, took])
    return Table(["Stage", *(["Condition"] if several else []), "Time"], lines)


def _largest(frame: pd.DataFrame) -> str:
    counts = [count for count in frame["n"] if wording.finite(count)]
    return f"{max(counts):,}" if counts else "of unknown number"


def fitted(book: Book) -> dict[str, object]:
    """Return what was fitted, a line a condition, ratio and method, and what the run noted along the way.

    Of each fit: the share trained, learning rate and strength chosen, validation score, epochs.
    """
    frame = book.frame("methods")
    rows = [{**item, **_fit(item)} for item in frame.to_dict("records")]
    columns = [
        Column("Trained", _trained),
        *(
            _fit_column(title, name)
            for title, name in (("Rate ×", "rate"), ("Strength ×", "strength"), ("Tried", "tried"))
        ),
        Column("Validation (%)", lambda row: wording.number(row.get("validation"), "accuracy")),
        _fit_column("Epochs chosen", "epochs"),
    ]
    table = tables.listing(rows, [*tables.condition_and_noise(frame), METHOD], columns, numeric=False)
    fields = ("condition", "ratio", "method", "trained", "rate", "strength", "tried", "validation", "epochs")
    notes: dict[str, list[str]] = {}
    for item in book.results.get("notes") or []:
        places = notes.setdefault(str(item.get("note")), [])
        if "condition" in item:  # others are of the data, and so of every condition
            places.append(f"{wording.condition_label(item['condition'])}, {wording.percent(item.get('ratio'))}")
    fold = Fold(f"{len(rows)} fits", table, book.csv("fitted", rows, fields)) if rows else None
    return {"fits": fold, "notes": notes}


def _fit(item: Mapping[str, object]) -> dict[str, object]:
    search = _mapping(item.get("search"))
    chosen, tried, epochs = _mapping(search.get("chosen")), search.get("tried"), item.get("chosen_epochs")
    validation = item.get("validation")
    scores = [score for score in validation if wording.finite(score)] if isinstance(validation, list) else []
    trained = item.get("share")
    return {
        "trained": item.get("trained") if trained is None else trained,
        "rate": chosen.get("rate"),
        "strength": chosen.get("strength"),
        "tried": len(tried) if isinstance(tried, list) and tried else None,
        "validation": sum(scores) / len(scores) if scores else None,
        "epochs": ", ".join(map(str, epochs)) if isinstance(epochs, list) and epochs else None,
    }


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _fit_column(title: str, name: str) -> Column:
    def write(row: Row) -> str:
        value = row.get(name)
        return "–" if value is None else wording.plain(value)

    return Column(title, write)


def _trained(row: Row) -> str:
    share = row.get("trained")
    if not wording.finite(share):
        return "head alone"
    return f"{100 * share:.2g} % of the encoder" if share else "nothing"


def pairs(book: Book) -> dict[str, object]:
    """Return attacked pairs as pictures."""
    examples = book.results.get("examples") or []
    fields = ("id", "kind", "condition", "label", "norm", "loss_before", "loss_after", "report", "attacked_report")
    return {
        "pairs": [pictures.pair(example, book.results.get("classes") or []) for example in examples],
        "file": book.csv("attacked_examples", examples, fields) if examples else "",
    }


def card(book: Book) -> dict[str, object]:
    """Return the data card."""
    return {"card": book.results.get("card") or {}}


def config(book: Book) -> dict[str, object]:
    """Return the configuration, and the keys that came after it."""
    keys = old_configs.flat(book.results.get("config") or {})
    later = old_configs.added_since(book.results.get("config") or {}, book.defaults)
    code = frozenset({0, 1})
    return {
        "keys": Table(["Key", "Value"], keys, numeric=False, code=code),
        "later": Table(["Key", "Default today"], list(later.items()), numeric=False, code=code),
        "as_today": old_configs.AS_TODAY,
    }


def versions(book: Book) -> dict[str, object]:
    """Return versions of packages, and the machine."""
    kinds = (("versions", ["Package", "Version"]), ("machine", ["Machine", "Value"]))
    found = [(header, book.run.get(name)) for name, header in kinds]
    shown = [
        Table(header, old_configs.flat(content), numeric=False, code=frozenset({0}))
        for header, content in found
        if isinstance(content, Mapping) and content
    ]
    return {"tables": shown}


def data(book: Book) -> dict[str, object]:
    """Return the CSV files that the book has kept so far."""
    return {"files": sorted(book.files)}
