"""One page of several audits: models x repairs x attacks, under one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ranjax.core.errors import DataError
from ranjax.report import page, record_sections, stored_results
from ranjax.report.blocks import Blocks, Heading
from ranjax.report.book import Book
from ranjax.report.page import Section
from ranjax.report.report_tables import Table

SCHEMA = "ranjax audit 1"
LEAD = "Audits of several models under one protocol: how fragile each is, and what its repairs gain."
Audit = Mapping[str, Any]


def load_audit(path: Path) -> Audit:
    """Read the results.json of an audit, or of its folder.

    Raises:
      DataError: it is no JSON, none of an audit, or of another schema.
    """
    path = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    found = stored_results.load(path)
    if found.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {found.get('schema')!r}, {SCHEMA!r} of `ranjax audit` is needed.")
    missing = [
        name
        for name in ("protocol", "model", "data", "repairs", "recommendation", "rows", "withheld")
        if name not in found
    ]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}.")
    return {**found, "file": str(path)}


def check(audits: Sequence[Audit]) -> None:
    """Refuse audits of different protocols.

    Raises:
      DataError: two differ in version, form, attacks or radii; or one is given twice.
    """
    first = audits[0]
    for other in audits[1:]:
        for name in ("name", "radii"):
            if other["protocol"][name] != first["protocol"][name]:
                raise DataError(
                    f"{other['file']} has protocol {name} {other['protocol'][name]!r}, {first['file']} "
                    f"{first['protocol'][name]!r}: figures of different protocols do not compare."
                )
    seen: dict[tuple[object, ...], str] = {}
    for audit in audits:
        key = (audit["model"]["hash"], audit["data"]["content"], audit["protocol"]["seed"])
        if key in seen:
            raise DataError(f"{audit['file']} is the same model, data and seed as {seen[key]}.")
        seen[key] = audit["file"]


def lines(audits: Sequence[Audit]) -> list[list[str]]:
    """Return the table: model, head, clean, accuracy by radius, mean over radii; masked figures withheld."""
    radii = audits[0]["protocol"]["radii"]
    found = []
    for audit in audits:
        for item in audit["repairs"]:
            shown = not item["masked"]
            robust = [f"{100 * item['robust'][radius]:.1f}" if shown else "withheld" for radius in radii]
            score = _estimate(item["score"]) if shown else "withheld"
            name = audit["model"]["name"] if item is audit["repairs"][0] else ""
            chosen = "← recommended" if item["method"] == audit["recommendation"]["method"] else ""
            found.append([name, item["label"], _estimate(item["clean"]), *robust, score, chosen])
    return found


def _titles(audits: Sequence[Audit]) -> list[str]:
    radii = audits[0]["protocol"]["radii"]
    return ["Model", "Head", "Clean [95 %]", *radii, "Mean over radii [95 %]", ""]


def as_text(audits: Sequence[Audit]) -> str:
    """Return the table as text with tabs, for a terminal."""
    return "\n".join("\t".join(line) for line in [_titles(audits), *lines(audits)])


def write(audits: Sequence[Audit], out: Path) -> Path:
    """Write index.html and data/*.csv of audits into a folder, and return the page's path.

    Raises:
      DataError: as `check`.
    """
    check(audits)
    book = Book({"audits": list(audits)}, pd.DataFrame())
    notices = [f"Protocol {audits[0]['protocol']['name']}, radii {', '.join(audits[0]['protocol']['radii'])}."]
    html = page.document("Audits compared", LEAD, notices, book, SECTIONS, "audit")
    return page.write_files(Path(out), html, book.files)


def _by_data(book: Book) -> dict[str, list[Audit]]:
    found: dict[str, list[Audit]] = {}
    for audit in book.results["audits"]:
        found.setdefault(audit["data"]["content"], []).append(audit)
    return found


def overview(book: Book) -> Blocks:
    """Yield one line an audit: model, data, hashes, what is recommended."""
    titles = ["Model", "Layout", "Parameters", "Weights", "Data", "Content", "Test images attacked", "Recommended"]
    rows = []
    for audit in book.results["audits"]:
        model, data = audit["model"], audit["data"]
        method = audit["recommendation"]["method"] or "–"
        row = [model["name"], model["layout"], f"{model['parameters']:,}", model["hash"], data["name"]]
        rows.append([*row, data["content"][:16], str(audit["protocol"]["images"]), method])
    yield Table(titles, rows, heads=1, numeric=False)


def defences(book: Book) -> Blocks:
    """Yield models x repairs x radii, a table a data set."""
    for audits in _by_data(book).values():
        yield Heading(f"On {audits[0]['data']['name']}")
        yield Table(_titles(audits), lines(audits), heads=2)
    fields = ("model", "data", "method", "radius", "accuracy")
    stored = [
        {
            "model": audit["model"]["name"],
            "data": audit["data"]["content"],
            "method": item["method"],
            "radius": radius,
            "accuracy": None if item["masked"] else value,
        }
        for audit in book.results["audits"]
        for item in audit["repairs"]
        for radius, value in {"0": item["clean"]["value"], **item["robust"]}.items()
    ]
    yield book.csv("audits", stored, fields)


def attacks(book: Book) -> Blocks:
    """Yield the accuracy under each attack by itself, and retrieval under attack, where they were measured."""
    rows = []
    for audit in book.results["audits"]:
        for row in audit["rows"]:
            if row["seed"] is None and row["split"] == "test" and row["condition"] == "clean" and _wanted(row):
                masked = row["method"] in audit["withheld"] and row["attack"] != "none"
                value = "withheld" if masked else f"{100 * row['value']:.1f}"
                rows.append([audit["model"]["name"], row["method"], row["task"], row["attack"], row["metric"], value])
    if rows:
        yield Table(["Model", "Head or direction", "Task", "Attack", "Metric", "Value"], rows, heads=2)


def _wanted(row: Mapping[str, Any]) -> bool:
    if row["task"] in ("retrieval", "retrieval_attacked"):
        return bool(row["metric"] == "recall@1")
    return bool(row["task"] == "finding" and row["metric"] == "accuracy" and "@" not in row["attack"])


def _estimate(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


SECTIONS = (
    Section("overview", "What is compared", overview),
    Section("defences", "Models and their repairs", defences),
    Section("retrieval", "Under each attack, and retrieval", attacks),
    Section("data", "Figures as files", record_sections.data),
)
