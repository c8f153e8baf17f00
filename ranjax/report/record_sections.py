"""Sections on the run itself: what was run and fitted, attacked pairs, data card, configuration, versions, files.

Each function yields the blocks of one section; a section that yields none shows the words for that instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ranjax.models.controls import CONTROLS
from ranjax.report import entry_labels as labels
from ranjax.report import old_configs, pictures, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.blocks import Blocks, Definitions, Details, Files, Heading, Pairs, Text, missing
from ranjax.report.book import Book
from ranjax.report.report_tables import CONDITION, METHOD, NOISE, Column, Table
from ranjax.report.stored_results import Results, Row

_NOTICES = ("notice", "statement", "warning", "caution", "clinical_claim", "clinical_use", "limits", "limitations")


def notices(card: Results) -> list[str]:
    """Return what the data card warns of and its own notice, which stand before any figure."""
    warned = [str(line) for line in card.get("warnings") or ()]
    lowered = {str(key).lower().replace(" ", "_"): value for key, value in card.items()}
    found = next((lowered[key] for key in _NOTICES if lowered.get(key)), None)
    if found is None or isinstance(found, Mapping):
        return [*warned, "The figures hold for the data of the data card below. No clinical claim is made."]
    return [*warned, *([str(item) for item in found] if isinstance(found, list) else [wording.plain(found)])]


def run(book: Book) -> Blocks:
    """Yield the size of the run: data, conditions, methods, attacks, seeds, and the time of each stage."""
    facts, frame = book.run, frames.downstream(book.rows)
    seeds = {row.get("seed") for row in book.results.get("rows") or []} - {None}
    sizes = []
    for split in frames.values(frame, "split"):
        counts = [count for count in frames.where(frame, split=split)["n"] if wording.finite(count)]
        size = (book.results.get("independent") or {}).get(split, f"{max(counts):,}" if counts else "of unknown number")
        sizes.append(f"{wording.split_label(split)} {size}")
    stages = [stage for stage in facts.get("stages") or [] if isinstance(stage, Mapping)]
    machine = {key: value for key, value in (facts.get("machine") or {}).items() if not isinstance(value, Mapping)}
    attacks = [labels.attack_name(name) for name in frames.values(frame, "attack") if name != "none"]
    items = {
        "Command": facts.get("command"),
        "Started": facts.get("started"),
        "Took": f"{wording.duration(seconds_of(stages))} in {len(stages)} stages" if stages else None,
        "Machine": ", ".join(f"{key.replace('_', ' ')}: {wording.plain(value)}" for key, value in machine.items()),
        "Classes": wording.plain(book.results.get("classes") or []),
        "Tested, n": ", ".join(sizes),
        "Noise ratios": ", ".join(map(wording.percent, frames.values(book.rows, "ratio"))),
        "Conditions": ", ".join(map(wording.condition_label, frames.conditions(book.rows))),
        "Methods": ", ".join(map(labels.method_label, frames.values(frame, "method"))),
        "Attacks": ", ".join(attacks) or "none in this run",
        "Seeds": f"{len(seeds)} a head" if seeds else None,
    }
    yield Definitions({name: value for name, value in items.items() if value}, code=("Command",))
    if stages:
        yield Heading("Stages")
        yield _stages_table(stages)
        yield book.csv("stages", stages, ("name", "condition", "seconds", "skipped"))
    else:
        yield missing("No times of this run were left.")


def seconds_of(stages: list[Mapping[str, object]]) -> float:
    """Return the time that all stages took."""
    return sum(seconds for stage in stages if wording.finite(seconds := stage.get("seconds")))


def _stages_table(stages: list[Mapping[str, object]]) -> Table:
    several = any(stage.get("condition") for stage in stages)
    lines = []
    for stage in stages:
        took = "taken over from an earlier run" if stage.get("skipped") else wording.duration(stage.get("seconds"))
        condition = [wording.plain(stage.get("condition") or "–")] if several else []
        lines.append([str(stage.get("name", "–")), *condition, took])
    return Table(["Stage", *(["Condition"] if several else []), "Time"], lines)


def fitted(book: Book) -> Blocks:
    """Yield the fits, a line a condition, ratio and method, and what the run noted along the way.

    Of each fit: the share trained, learning rate and strength chosen, validation score, epochs.
    """
    frame = book.frame("methods")
    if frame.empty:
        return
    rows = [cast(Row, {**item, **_fit(item)}) for item in frame.to_dict("records")]
    columns = [
        Column("Trained", _trained),
        _fact("Rate ×", "rate"),
        _fact("Strength ×", "strength"),
        _fact("Tried", "tried"),
        Column("Validation (%)", lambda row: wording.number(row.get("validation"), "accuracy")),
        _fact("Epochs chosen", "epochs"),
    ]
    where = [CONDITION, NOISE] if {*frame["condition"]} & {*CONTROLS} else tables.condition_and_noise(frame)
    table = tables.listing(rows, [*where, METHOD], columns, numeric=False)
    yield Details(f"{len(rows)} fits", [table])
    fields = ("condition", "ratio", "method", "trained", "rate", "strength", "tried", "validation", "epochs")
    yield book.csv("fitted", rows, fields)
    notes: dict[str, list[str]] = {}
    for item in book.results.get("notes") or []:
        places = notes.setdefault(str(item.get("note")), [])
        if "condition" in item:  # others are of the data, and so of every condition
            places.append(f"{wording.condition_label(item['condition'])}, {wording.percent(item.get('ratio'))}")
    if notes:
        yield Heading("Notes of the run")
    for note, places in notes.items():
        yield Text(f"{note} ({'; '.join(places)})" if places else note)


def _fit(item: Results) -> dict[str, object]:
    search = item.get("search") or {}
    chosen = search.get("chosen") or {}
    scores = [score for score in item.get("validation") or [] if wording.finite(score)]
    share = item.get("share")
    return {
        "trained": item.get("trained") if share is None else share,
        "rate": chosen.get("rate"),
        "strength": chosen.get("strength"),
        "tried": len(search.get("tried") or []) or None,
        "validation": sum(scores) / len(scores) if scores else None,
        "epochs": ", ".join(map(str, item.get("chosen_epochs") or [])) or None,
    }


def _fact(title: str, name: str) -> Column:
    return Column(title, lambda row: "–" if row.get(name) is None else wording.plain(row.get(name)))


def _trained(row: Row) -> str:
    share = row.get("trained")
    if not wording.finite(share):
        return "head alone"
    return f"{100 * share:.2g} % of the encoder" if share else "nothing"


def pairs(book: Book) -> Blocks:
    """Yield attacked pairs as pictures."""
    examples = book.results.get("examples") or []
    fields = ("id", "kind", "condition", "label", "norm", "loss_before", "loss_after", "report", "attacked_report")
    if examples:
        yield Pairs([pictures.pair(example, book.results.get("classes") or []) for example in examples])
        yield book.csv("attacked_examples", examples, fields)


def card(book: Book) -> Blocks:
    """Yield the data card."""
    if content := book.results.get("card"):
        yield Definitions(content)


def config(book: Book) -> Blocks:
    """Yield the configuration, and the keys that came after it."""
    content, both = book.results.get("config") or {}, frozenset({0, 1})
    if keys := old_configs.flat(content):
        table = Table(["Key", "Value"], keys, numeric=False, code=both)
        yield Details(f"{len(keys)} keys as this run had them", [table])
    if later := list(old_configs.added_since(content, book.defaults).items()):
        words = f"{len(later)} keys that this version has and the run's config lacks, with today's defaults"
        table = Table(["Key", "Default today"], later, numeric=False, code=both)
        yield Details(words, [Text(old_configs.AS_TODAY, "caption"), table])


def versions(book: Book) -> Blocks:
    """Yield versions of packages, and the machine."""
    kinds = {"versions": ("Package", "Version", "Versions of packages"), "machine": ("Machine", "Value", "The machine")}
    for name, (*header, caption) in kinds.items():
        content = book.run.get(name)
        if isinstance(content, Mapping) and content:
            yield Table(header, old_configs.flat(content), numeric=False, code=frozenset({0}), caption=caption)


def data(book: Book) -> Blocks:
    """Yield the CSV files of the sections above."""
    yield Files(sorted(book.files))
