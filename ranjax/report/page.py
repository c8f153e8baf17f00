"""The page of a run: one HTML file that opens without a network, and the CSV files of its plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ranjax.core import files
from ranjax.report import ablation, evidence, markup, sections
from ranjax.report import cluster_notes as independent
from ranjax.report import figure_captions as captions
from ranjax.report import fit_sections as fitted
from ranjax.report import further_sections as beyond
from ranjax.report import labels_text as wording
from ranjax.report import old_configs as earlier
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.sections import Book

_NOTICES = ("notice", "statement", "warning", "caution", "clinical_claim", "clinical_use", "limits", "limitations")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(results: Path, run: Path, out_dir: Path) -> Path:
    """Writes the page of a run; the same two files give the same bytes.

    Args:
      results: results.json. Pieces that it lacks are left out with a word.
      run: run.json; the page says so where there is none.
      out_dir: receives index.html and data/*.csv. Other CSV files in its data folder, left by an earlier page, go away.

    Returns:
      The path of index.html.

    Raises:
      DataError: a file is not readable JSON, or results.json is of another schema.
    """
    content = rows_.load_results(Path(results))
    facts = rows_.load(Path(run)) if Path(run).exists() else {}
    html, data = build(content, facts)
    return write_files(Path(out_dir), html, data)


def build(results: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Returns the page's HTML and its CSV files by their relative path."""
    book = Book.of(results)
    book.csv("results", results.get("rows") or [], (*rows_.FIELDS, "group"))
    parts: list[tuple[str, str, Callable[[], Markup]]] = [
        ("claims", "The claims", lambda: evidence.claims(book)),
        ("findings", "Findings", lambda: sections.findings(book)),
        ("run", "What was run", lambda: _run(book, run)),
        ("noise", "Accuracy against noise", lambda: sections.curves(book)),
        ("radius", "Accuracy against the radius", lambda: evidence.robustness(book)),
        ("masking", "Is the attack to be trusted?", lambda: sections.masking(book)),
        ("comparisons", "Methods compared", lambda: sections.comparisons(book)),
        ("effects", "Noise compared", lambda: beyond.effects(book)),
        ("tables", "Main tables", lambda: sections.main_tables(book)),
        ("fitted", "What was fitted", lambda: fitted.section(book)),
        ("ablation", "Ablation", lambda: ablation.section(book)),
        ("zero-shot", "Zero-shot and retrieval", lambda: sections.without_head(book)),
        ("attacked-pairs", "Retrieval under attack", lambda: beyond.attacked_pairs(book)),
        ("groups", "Groups", lambda: beyond.groups(book)),
        ("corruptions", "Corruptions", lambda: beyond.corruptions(book)),
        ("questions", "Questions", lambda: beyond.questions(book)),
        ("confusions", "Which class for which", lambda: evidence.confusions(book)),
        ("reliability", "Confidence", lambda: evidence.reliability(book)),
        ("planes", "Features in a plane", lambda: evidence.planes(book)),
        ("spectra", "Spectra of the features", lambda: sections.spectra(book)),
        ("pairs", "Attacked pairs", lambda: sections.pairs(book)),
        ("card", "Data card", lambda: _card(results.get("card") or {})),
        ("config", "Configuration", lambda: _config(results.get("config") or {})),
        ("versions", "Versions and machine", lambda: _versions(run)),
        ("data", "Figures as files", lambda: files_section(book)),
    ]
    written = [(anchor, title, write()) for anchor, title, write in parts]
    notice = tag("div", [tag("p", line) for line in notices(results.get("card") or {})], class_="notice", role="note")
    html = document("Adversarial noise upstream, rectified downstream", captions.LEAD, notice, written)
    return html, book.files


def document(title: str, lead: str, notice: Markup | None, written: Sequence[tuple[str, str, Markup]]) -> str:
    """Returns a whole HTML document with a table of contents; each section is (anchor, title, content)."""
    style = resources.files("ranjax.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"ranjax: {title}"),
        tag("style", Markup(style)),
    )
    contents = tag(
        "nav",
        tag("h2", "Contents"),
        tag("ol", [tag("li", tag("a", name, href=f"#{anchor}")) for anchor, name, _ in written]),
        aria_label="Contents",
    )
    bodies = [
        tag("section", tag("h2", name, id=f"{anchor}-title"), content, id=anchor, aria_labelledby=f"{anchor}-title")
        for anchor, name, content in written
    ]
    body = tag(
        "div",
        tag("header", tag("h1", title), tag("p", lead, class_="lead"), notice),
        tag("div", contents, tag("main", bodies), class_="columns"),
        tag("footer", tag("p", "Written by ranjax from results.json and run.json alone.")),
        class_="page",
    )
    return "<!doctype html>\n" + tag("html", head, "\n", tag("body", body), lang="en") + "\n"


def write_files(out_dir: Path, html: str, data: Mapping[str, str]) -> Path:
    """Writes the CSV files, then index.html: the page never stands beside figures of another run."""
    folder = out_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.csv"):
        if f"data/{stale.name}" not in data:
            stale.unlink()
    for name, content in {**data, "index.html": html}.items():
        files.write_text(out_dir / name, content)
    return out_dir / "index.html"


def notices(card: Mapping[str, Any]) -> list[str]:
    """Returns what must be said before any figure: that this is a reconstruction, and the data card's own notice."""
    lowered = {str(key).lower().replace(" ", "_"): value for key, value in card.items()}
    said = next((lowered[key] for key in _NOTICES if lowered.get(key)), None)
    if said is None or isinstance(said, Mapping):
        said = "The figures hold for the data of the data card below. No clinical claim is made."
    lines = [str(item) for item in said] if isinstance(said, list) else [wording.plain(said)]
    return [captions.RECONSTRUCTION, *lines]


def _run(book: Book, run: Mapping[str, Any]) -> Markup:
    rows = book.rows
    downstream = rows_.downstream(rows)
    seeds = {row.get("seed") for row in book.results.get("rows") or []} - {None}
    sizes = [
        f"{wording.split_label(split)} "
        + independent.tested(book.results, split, _largest(rows_.pick(downstream, split=split)))
        for split in rows_.splits(downstream)
    ]
    stages = [stage for stage in run.get("stages") or [] if isinstance(stage, Mapping)]
    spent = sum(stage["seconds"] for stage in stages if wording.finite(stage.get("seconds")))
    attacks = [name for name in rows_.attacks(downstream) if name != "none"]
    facts: list[tuple[str, Any]] = [
        ("Command", tag("code", run["command"]) if run.get("command") else None),
        ("Started", run.get("started")),
        ("Took", f"{wording.duration(spent)} in {len(stages)} stages" if stages else None),
        ("Machine", wording.plain(_brief(run.get("machine") or {})) or None),
        ("Classes", wording.plain(book.results.get("classes")) if book.results.get("classes") else None),
        ("Tested, n", ", ".join(sizes) or None),
        ("Noise ratios", ", ".join(wording.percent(ratio) for ratio in rows_.ratios(rows)) or None),
        ("Conditions", ", ".join(wording.condition_label(condition) for condition in rows_.conditions(rows)) or None),
        ("Methods", ", ".join(wording.method_label(name) for name in rows_.methods(downstream)) or None),
        ("Attacks", ", ".join(wording.attack_name(name) for name in attacks) or "none in this run"),
        ("Seeds", f"{len(seeds)} a head" if seeds else None),
    ]
    parts: list[Any] = [definitions([(name, value) for name, value in facts if value is not None])]
    if stages:
        several = len({stage.get("condition") for stage in stages} - {None}) > 0
        lines = []
        for stage in stages:
            took = "taken over from an earlier run" if stage.get("skipped") else wording.duration(stage.get("seconds"))
            lines.append(
                [
                    stage.get("name", "–"),
                    *([wording.plain(stage["condition"]) if stage.get("condition") else "–"] if several else []),
                    took,
                ]
            )
        header = ["Stage", *(["Condition"] if several else []), "Time"]
        parts += [
            tag("h3", "Stages"),
            tables.Table(header, lines, "").html(),
            book.csv("stages", stages, ("name", "condition", "seconds", "skipped")),
        ]
    else:
        parts.append(sections.nothing("No times of this run were left."))
    return markup.join(parts)


def _largest(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = [row["n"] for row in rows if wording.finite(row.get("n"))]
    return f"{max(counts):,}" if counts else "of unknown number"


def _brief(machine: Mapping[str, Any]) -> list[str]:
    return [
        f"{str(key).replace('_', ' ')}: {wording.plain(value)}"
        for key, value in machine.items()
        if not isinstance(value, Mapping)
    ]


def definitions(items: Sequence[tuple[str, Any]]) -> Markup:
    """Returns names and values as a definition list; nested objects and lists become nested lists."""
    return tag("dl", [[tag("dt", name), tag("dd", _value(value))] for name, value in items])


def _value(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    if isinstance(value, Mapping):
        return definitions([(str(key).replace("_", " "), inner) for key, inner in value.items()])
    if isinstance(value, list) and any(isinstance(item, Mapping | list) or len(str(item)) > 40 for item in value):
        return tag("ul", [tag("li", _value(item)) for item in value])
    return markup.figures(wording.plain(value))


def _card(card: Mapping[str, Any]) -> Markup:
    if not card:
        return sections.nothing("This run left no data card.")
    return definitions([(str(key).replace("_", " "), value) for key, value in card.items()])


def _config(config: Mapping[str, Any]) -> Markup:
    if not config:
        return sections.nothing("This run left no configuration.")
    lines = [[tag("code", key), tag("code", value)] for key, value in earlier.flat(config)]
    table = tables.Table(["Key", "Value"], lines, "", numeric=False)
    parts = [tag("details", tag("summary", f"{len(lines)} keys as this run had them"), table.html())]
    if later := earlier.added_since(config):
        words = f"{len(later)} keys that this version has and the run's config lacks, with today's defaults"
        lines = [[tag("code", key), tag("code", value)] for key, value in later.items()]
        table = tables.Table(["Key", "Default today"], lines, "", numeric=False)
        parts.append(tag("details", tag("summary", words), sections.caption(earlier.AS_TODAY), table.html()))
    return markup.join(parts)


def _versions(run: Mapping[str, Any]) -> Markup:
    parts: list[Any] = []
    for name in ("versions", "machine"):
        content = run.get(name)
        if isinstance(content, Mapping) and content:
            lines = [[tag("code", key), value] for key, value in earlier.flat(content)]
            header = ["Package", "Version"] if name == "versions" else ["Machine", "Value"]
            parts.append(tables.Table(header, lines, "", numeric=False).html())
    return markup.join(parts) if parts else sections.nothing("No versions of this run were left.")


def files_section(book: Book) -> Markup:
    """Returns the list of CSV files that the book has kept so far."""
    links = [tag("li", tag("a", name, href=name)) for name in sorted(book.files)]
    words = "Every figure of this page with all its digits. results.csv holds all rows, those of single seeds included."
    return markup.join([sections.caption(words), tag("ul", links)])
