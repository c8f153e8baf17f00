"""The page of an audit, from its results.json alone: what it recommends first, then every figure behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.evaluation.result_rows import FIELDS
from ranjax.models.controls import CONTROLS
from ranjax.report import accuracy_sections, claim_sections, encoder_sections, figures, page, record_sections, wording
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.blocks import Blocks, Definitions, Panels, Text
from ranjax.report.book import Book
from ranjax.report.page import Section
from ranjax.report.report_tables import METHOD, Column, Table
from ranjax.report.stored_results import Row

LEAD = (
    "How fragile a given encoder is on given images, which light-weight repair helps, what it costs, and whether that "
    "answer can be trusted. All repairs are heads on the frozen encoder, fitted on the same labelled images."
)


def write(results: Mapping[str, Any], out: Path) -> Path:
    """Write index.html and data/*.csv of an audit into a folder, and return the page's path."""
    with labels.labels_of([results]):
        book = Book.of(_shown(results))
        title = f"Audit of {results['model']['name']} on {results['data']['name']}"
        html = page.document(title, LEAD, _notices(results), book, SECTIONS, "audit")
    return page.write_files(out, html, book.files)


def _shown(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results with the curve of masked methods withheld."""
    masked = set(results["withheld"])
    rows = [row for row in results["rows"] if row["method"] not in masked or row["attack"] == "none"]
    return {**results, "rows": rows}


def _notices(results: Mapping[str, Any]) -> list[str]:
    notices = list(record_sections.notices(results.get("card") or {}))
    if results["protocol"]["form"] == "quick":
        notices.append("! The quick form: few images and small budgets. Its figures are not those of the full one.")
    return notices


def advice(book: Book) -> Blocks:
    """Yield what is recommended, in words."""
    for number, line in enumerate(book.results["recommendation"]["words"]):
        yield Text(line, "strong" if line.startswith("Recommendation") or not number else "")


def radius(book: Book) -> Blocks:
    """Yield the security curve: accuracy against the radius of the attack."""
    chosen = frames.where(book.rows, task="finding", metric="accuracy", condition="clean")
    frame = accuracy_sections.with_radius(chosen, book)
    if frame.empty:
        return
    chance = wording.chance_level(book.chance, "accuracy")
    for part in accuracy_sections.parts(frame, "radii"):
        yield from part.head
        plots = [
            figures.radius_curve(
                frames.records(cell), part.looks, chance, wording.split_label(split), f"radius-{split}"
            )
            for split, cell in part.rows.groupby("split", sort=False)
        ]
        yield Panels(plots)
    yield book.csv("accuracy_against_radius", frame, (*FIELDS, "radius"))


def encoders(book: Book) -> Blocks:
    """Yield every head on this checkpoint, on raw pixels and on the encoder with random weights."""
    frame = claim_sections.encoders(book)
    chosen = frames.where(frame, split="test")
    if frames.conditions(chosen) == ["clean"] or chosen.empty:
        return

    def encoder(row: Row) -> str:
        control = CONTROLS.get(row["condition"])
        return wording.capitalized(control.label) if control else "This checkpoint"

    yield tables.cross_table(chosen, [METHOD], Column("", encoder, ("condition",)))
    yield book.csv("controls", chosen)


def repairs(book: Book) -> Blocks:
    """Yield every head with its figures and its cost."""
    items = book.results["repairs"]
    radii = book.results["protocol"]["radii"]
    columns = ["Head", "Clean [95 %]", *radii, "Mean over radii [95 %]", "Gain [corrected]", "Masked"]
    lines = []
    for item in items:
        shown = not item["masked"]
        robust = [f"{100 * item['robust'][radius]:.1f}" if shown else "withheld" for radius in radii]
        gain = _estimate(item["gain"], "+") if shown and "gain" in item else "–"
        verdict = {None: "not checked", True: "masked", False: "no"}[item["masked"]]
        score = _estimate(item["score"]) if shown else "withheld"
        lines.append([item["label"], _estimate(item["clean"]), *robust, score, gain, verdict])
    if lines:
        yield Table(columns, lines, heads=1)
        costs = [item for item in items if "parameters" in item]
        cost_lines = [
            [
                item["label"],
                item["reads"] + (", filtered" if item["filtered"] else ""),
                f"{item['parameters']:,}",
                "–" if item["seconds"] is None else f"{item['seconds']:.1f}",
                "–" if item["milliseconds"] is None else f"{item['milliseconds']:.1f}",
            ]
            for item in costs
        ]
        yield Table(["Head", "Reads", "Parameters", "Seconds to fit", "Milliseconds an image"], cost_lines, heads=1)


def notes(book: Book) -> Blocks:
    """Yield what was left out and why."""
    for item in book.results["notes"]:
        yield Text(wording.plain(item["note"]))


def protocol(book: Book) -> Blocks:
    """Yield protocol, model and data with their hashes."""
    yield Definitions(
        {
            "protocol": book.results["protocol"],
            "model": book.results["model"],
            "data": book.results["data"],
            "ranjax": book.results["ranjax"],
        }
    )


def _estimate(figure: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[key]:{sign}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


SECTIONS = (
    Section("advice", "What to do", advice, True),
    Section("radius", "How fragile it is", radius, True),
    Section("repairs", "Repairs and their cost", repairs, True),
    Section("masking", "Is the attack to be trusted?", encoder_sections.masking),
    Section("encoders", "What the encoder is worth", encoders),
    Section("zero-shot", "Zero-shot and retrieval", accuracy_sections.without_head),
    Section("attacked-pairs", "Retrieval under attack", accuracy_sections.attacked_pairs),
    Section("corruptions", "Corruptions", accuracy_sections.corruptions),
    Section("pairs", "Attacked images", record_sections.pairs),
    Section("confusions", "Which class for which", encoder_sections.confusions),
    Section("notes", "Notes", notes),
    Section("card", "Data card", record_sections.card),
    Section("protocol", "Protocol and hashes", protocol),
    Section("data", "Figures as files", record_sections.data),
)
