"""The page of a run: one HTML file that opens without a network, and the CSV files of its plots and tables.

The words above each section stand in templates/, and how each kind of block looks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from ranjax.core import files
from ranjax.evaluation.result_rows import FIELDS
from ranjax.report import (
    abbreviations,
    accuracy_sections,
    answer,
    caption_sections,
    claim_sections,
    dose_sections,
    encoder_sections,
    record_sections,
    wording,
)
from ranjax.report import entry_labels as labels
from ranjax.report.blocks import Blocks, captioned
from ranjax.report.book import Book
from ranjax.report.stored_results import Results, load, load_results

TITLE = "Adversarial noise upstream, rectified downstream"
LEAD = (
    "An encoder of medical images and reports was pre-trained on data in which a part of the pairs was replaced by "
    "misleading ones (noise). It was then frozen, and small classifiers (heads) were trained on its features. What "
    "does the noise cost, and does the method RAN repair it?"
)


class Section(NamedTuple):
    """One section of a page, folded until a reader opens it.

    Attributes:
      anchor: by which templates/words.html.jinja has its words.
      title: the words that open it.
      blocks: its content; a section without any is left out, and named at the end of the page.
      is_open: whether it is not folded.
    """

    anchor: str
    title: str
    blocks: Callable[[Book], Blocks]
    is_open: bool = False


SECTIONS = (
    Section("verdict", "What this bed can tell", claim_sections.verdict),
    Section("claims", "The claims", claim_sections.claims),
    Section("findings", "Findings", accuracy_sections.findings),
    Section("run", "What was run", record_sections.run),
    Section("noise", "Accuracy against noise", accuracy_sections.noise),
    Section("doses", dose_sections.TITLE, dose_sections.doses),
    Section("radius", "Accuracy against the radius", accuracy_sections.radius),
    Section("masking", "Is the attack to be trusted?", encoder_sections.masking),
    Section("comparisons", "Methods compared", accuracy_sections.comparisons),
    Section("effects", "Noise compared", accuracy_sections.effects),
    Section("tables", "Main tables", accuracy_sections.main_tables),
    Section("fitted", "What was fitted", record_sections.fitted),
    Section("ablation", "Ablation", accuracy_sections.ablation),
    Section("zero-shot", "Zero-shot and retrieval", accuracy_sections.without_head),
    Section("attacked-pairs", "Retrieval under attack", accuracy_sections.attacked_pairs),
    Section("groups", "Groups", accuracy_sections.groups),
    Section("corruptions", "Corruptions", accuracy_sections.corruptions),
    Section("questions", "Questions", accuracy_sections.questions),
    Section("confusions", "Which class for which", encoder_sections.confusions),
    Section("reliability", "Confidence", encoder_sections.reliability),
    Section("planes", "Features in a plane", encoder_sections.planes),
    Section("spectra", "Spectra of the features", encoder_sections.spectra),
    Section("captions", "How plausible the noisy captions are", caption_sections.captions),
    Section("pairs", "Attacked pairs", record_sections.pairs),
    Section("card", "Data card", record_sections.card),
    Section("config", "Configuration", record_sections.config),
    Section("versions", "Versions and machine", record_sections.versions),
    Section("data", "Figures as files", record_sections.data),
)


def write_report(results: Path, run: Path, out_dir: Path, defaults: Mapping[str, object] | None = None) -> Path:
    """Write the page of a run; the same two files give the same bytes.

    Args:
      results: results.json. Pieces that it lacks are left out with a word.
      run: run.json; the page says so where there is none.
      out_dir: receives index.html and data/*.csv. Other CSV files in its data folder, left by an earlier page, go away.
      defaults: the configuration keys of this version with their defaults, for runs of earlier versions.

    Returns:
      The path of index.html.

    Raises:
      DataError: a file is not readable JSON, or results.json is of another schema.
    """
    content = load_results(Path(results))
    facts = load(Path(run)) if Path(run).exists() else {}
    html, data = build(content, facts, defaults)
    return write_files(Path(out_dir), html, data)


def build(results: Results, run: Results, defaults: Mapping[str, object] | None = None) -> tuple[str, dict[str, str]]:
    """Return the page's HTML and its CSV files by their relative path."""
    with labels.labels_of([results]):
        book = Book.of(results, run, defaults)
        book.csv("results", results.get("rows") or [], (*FIELDS, "group"))
        notices = record_sections.notices(results.get("card") or {})
        found = answer.answer([results])
        return document(TITLE, LEAD, notices, book, SECTIONS, "sections", found), book.files


def document(
    title: str,
    lead: str,
    notices: Sequence[str],
    book: Book,
    sections: Sequence[Section],
    words: str,
    found: answer.Answer | None = None,
) -> str:
    """Return a whole HTML document: the answer, then every section that has content, folded.

    Args:
      title: its heading.
      lead: the paragraph below it.
      notices: the lines that stand before any figure.
      book: the content, which keeps the CSV files.
      sections: in their order.
      words: "sections", "comparison" or "audit": those of templates/words.html.jinja that stand above the sections.
      found: what the page says first; without one, its first section is open.
    """
    numbers = itertools.count(1)
    written = [(one, captioned(one.blocks(book), one.title, numbers)) for one in sections]
    filled = [(one, blocks) for one, blocks in written if blocks]
    if found is None and not any(one.is_open for one, _ in filled):
        filled = [(one._replace(is_open=not index), blocks) for index, (one, blocks) in enumerate(filled)]
    html = (
        environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            lead=lead,
            # An audit is of a user's own model: it reconstructs nobody's study.
            notices=[*([] if words == "audit" else [wording.RECONSTRUCTION]), *notices],
            answer=found,
            sections=filled,
            empty=[one for one, blocks in written if not blocks],
            kind_of_page=words,
        )
    )
    return abbreviations.spelled_out(html)


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates: every name and number that enters one is escaped, and an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"typeset": _typeset, "plain": wording.plain, "kind": lambda block: type(block).__name__}
    environment.tests["long_list"] = _is_long_list
    return environment


def _typeset(value: object) -> str:
    return wording.typeset(value if isinstance(value, Markup) else str(value))


def _is_long_list(value: object) -> bool:
    """Return whether a value of a data card is a list to set one item a line."""
    return isinstance(value, list) and any(isinstance(one, Mapping | list) or len(str(one)) > 40 for one in value)


def write_files(out_dir: Path, html: str, data: Mapping[str, str]) -> Path:
    """Write the CSV files, then index.html, so that the page never stands with figures of another run."""
    folder = out_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.csv"):
        if f"data/{stale.name}" not in data:
            stale.unlink()
    for name, content in {**data, "index.html": html}.items():
        files.write_text(out_dir / name, content)
    return out_dir / "index.html"
