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


def minimal(book: Book) -> Blocks:
    """Yield how far images are from being classified wrongly: quantiles of the least norm found, and every value."""
    found = book.results.get("minimal_norms") or {}
    shown = {name: item for name, item in found.items() if name not in book.results["withheld"]}
    lines = [
        [
            item["label"],
            *("none found" if value is None else f"{value:.2f}" for value in item["quantiles"].values()),
            str(item["wrong_already"]),
            str(item["unbroken"]),
        ]
        for item in shown.values()
    ]
    if not lines:
        return
    shares = [f"{100 * float(q):g} % within (1/255)" for q in next(iter(shown.values()))["quantiles"]]
    yield Text(
        "The least change of any pixel that turns an image wrong, as far as FAB and the attacks of the curve found it; "
        "quantiles of the images that are right unattacked. A true minimum may be smaller.",
        "caption",
    )
    yield Table(["Head", *shares, "Wrong already", "Never broken"], lines, heads=1)
    ids = [{"method": n, "least_norm": v} for n, item in shown.items() for v in item["values"]]
    yield book.csv("minimal_norms", ids, ("method", "least_norm"))


def words(book: Book) -> Blocks:
    """Yield retrieval and zero-shot by how many words of the texts were changed, and whether labels stayed."""
    frame = book.rows[book.rows["task"].isin(("retrieval_words", "zero_shot_words"))]
    if frame.empty:
        return
    clean = {
        "image_to_text": frames.where(book.rows, task="retrieval_attacked", attack="none", method="image_to_text"),
        "text_to_image": frames.where(book.rows, task="retrieval_attacked", attack="none", method="text_to_image"),
        "zero_shot": frames.where(book.rows, task="finding", attack="none", method="zero_shot", split="test"),
    }

    def share(rows: Any, method: str, metric: str) -> str:
        found = frames.records(frames.where(rows, method=method, metric=metric)) if len(rows) else []
        return f"{100 * found[0]['value']:.1f}" if found else "–"

    ways = ("image_to_text", "text_to_image")
    metrics = [(way, f"recall@{k}") for way in ways for k in (1, 5)]
    unchanged = [share(clean[way], way, metric) for way, metric in metrics]
    none = ["none", "0", *unchanged, share(clean["zero_shot"], "zero_shot", "accuracy"), "–", "–"]
    lines = [none]
    for attack in frames.values(frame, "attack"):
        kind, _, count = attack.rpartition("-")
        own = frames.where(frame, attack=attack)
        cells = [share(own, way, metric) for way, metric in metrics]
        others = (("zero_shot", "accuracy"), ("reports", "changed"), ("reports", "label_kept"))
        lines.append([_KINDS.get(kind, kind), count, *cells, *(share(own, *one) for one in others)])
    yield Text(
        "Words of the reports changed by a search against the image that each belongs to; words that carry the medical "
        "statement stay. The gallery is that of the attacked pairs. Labels kept: by rules, before and after, which no "
        "search sees.",
        "caption",
    )
    titles = [f"{'Report of image' if way == ways[0] else 'Image of report'} R@{k}" for way in ways for k in (1, 5)]
    yield Table(["Search", "Words at most", *titles, "Zero-shot", "Reports changed", "Labels kept"], lines, heads=2)
    yield book.csv("words_changed", frame)


_KINDS = {
    "gradient": "By gradient",
    "importance": "By importance, near words",
    "masked_lm": "By importance, masked language model",
    "typos": "Misspelt",
}


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
        yield from _defences([item for item in items if item.get("kind") == "defence"], radii)
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


def _defences(items: list[Mapping[str, Any]], radii: list[str]) -> Blocks:
    """Yield what defences at test time are worth as their papers count, and why one is masked."""
    if not items:
        return
    yield Text(
        "Attacked as published: on the images that attack the model without its defence. The table above is through it."
    )
    columns = ["Defence", *radii, "Milliseconds an image", "Verdict"]
    lines = []
    for item in items:
        published = [f"{100 * item['published'][radius]:.1f}" for radius in radii]
        lines.append([item["label"], *published, f"{item['milliseconds']:.1f}", item["verdict"]])
    yield Table(columns, lines, heads=1)


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
    Section("minimal", "How little is enough", minimal, True),
    Section("repairs", "Repairs and their cost", repairs, True),
    Section("masking", "Is the attack to be trusted?", encoder_sections.masking),
    Section("encoders", "What the encoder is worth", encoders),
    Section("zero-shot", "Zero-shot and retrieval", accuracy_sections.without_head),
    Section("attacked-pairs", "Retrieval under attack", accuracy_sections.attacked_pairs),
    Section("words", "Words changed", words),
    Section("corruptions", "Corruptions", accuracy_sections.corruptions),
    Section("pairs", "Attacked images", record_sections.pairs),
    Section("confusions", "Which class for which", encoder_sections.confusions),
    Section("notes", "Notes", notes),
    Section("card", "Data card", record_sections.card),
    Section("protocol", "Protocol and hashes", protocol),
    Section("data", "Figures as files", record_sections.data),
)
