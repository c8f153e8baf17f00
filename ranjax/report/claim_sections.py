"""The head of a page: what the bed can tell, and each claim as one sentence with its mark and interval."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ranjax.models.controls import CONTROLS
from ranjax.report import bed_verdict, paper_claims, wording
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import DIFFERENCE, EFFECT, TESTED, least_shown, p_value
from ranjax.report.blocks import Blocks, Details, Findings, Text
from ranjax.report.book import Book
from ranjax.report.report_tables import METHOD, WIDTH, Column, Table
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import Finding

SIGNS = {
    paper_claims.SHOWN: "✓",
    paper_claims.OPPOSITE: "✗",
    paper_claims.NOT_SHOWN: "○",
    paper_claims.CHANCE: "○",
    paper_claims.CANNOT_TELL: "?",
    paper_claims.NOT_RUN: "–",
}
_DENIED = SIGNS[paper_claims.OPPOSITE]
KINDS = {"✓": "shown", "✗": "opposite", "○": "none", "?": "unknown", "–": "missing"}
"""The look of a finding by its sign."""
_NEEDED = "What the bed must show before a claim on repair says anything"
_FIELDS = ("claim", "endpoint", "primary", "measured", "wanted", "margin", *TESTED, "runs", "verdict")


def sign_of(verdict: str) -> str:
    """Return the mark of a verdict; a claim's own words for a denial have that of the opposite."""
    return SIGNS.get(verdict, _DENIED)


def verdict(book: Book) -> Blocks:
    """Yield the verdict on the bed of one run, its figures, and every head on every encoder."""
    found = bed_verdict.judge([book.results])
    if found is not None:
        yield from verdict_over_lines(found, book, "verdict")
        frame = encoders(book)
        for split, chosen in frame.groupby("split", sort=False):
            yield Details(encoders_title(split), [encoder_table(chosen)], split == "test")
        yield book.csv("controls", frame)


def verdict_over_lines(found: bed_verdict.Verdict, book: Book, name: str) -> Blocks:
    """Yield the sentences of a verdict, the table of its figures, and its file."""
    first, *others = found.lines()
    yield Text(first, "strong")
    for line in others:
        yield Text(line)
    yield Text("The bed is the data, the task and the training on which the claims are tested.")
    yield figures_table(found)
    items = [
        {"figure": one.figure.name, "measured": bed_verdict.heads_of(one), "passes": one.passes, **(one.item or {})}
        for one in found.figures.values()
    ]
    yield book.csv(name, items, ("figure", "measured", *TESTED[:4], "effect", "n", "passes"))


def figures_table(found: bed_verdict.Verdict) -> Table:
    """Return one line a figure of the bed: what was measured, verdict, difference, what it needs."""
    lines = [
        [
            bed_verdict.heads_of(one).partition(":")[0],
            "✓ passes" if one.passes else "? not measured" if one.item is None else "✗ fails",
            "–" if one.item is None else DIFFERENCE.write(one.item),
            one.needed,
        ]
        for one in found.figures.values()
    ]
    return Table(["Accuracy, in domain, clean", "Verdict", DIFFERENCE.title, "Needed, points"], lines, caption=_NEEDED)


def encoders(book: Book) -> pd.DataFrame:
    """Return clean accuracy of heads on controls, on the clean encoder, and on those of the first recipe."""
    rows = book.rows
    noisy = frames.conditions(rows[rows["ratio"] > 0])[:1]
    upstream = rows[(rows["ratio"] == 0) | rows["condition"].isin(noisy)]
    every = [*frames.records(frames.controls_frame(book.results.get("rows"))), *frames.records(upstream)]
    frame = frames.where(frames.frame_of(every), task="finding", attack="none", metric="accuracy")
    return frame.loc[[labels.is_head(name) and name != "zero_shot" for name in frame["method"]]]


def encoders_title(split: object) -> str:
    """Return the title of an `encoder_table` of a split."""
    return f"Accuracy of every head on every encoder, {wording.split_label(split)}, clean (%)"


def encoder_table(frame: pd.DataFrame) -> Table:
    """Return one line a head, one column an encoder: controls, without noise, with noise."""

    def encoder(row: Row) -> str:
        if row["condition"] in CONTROLS:
            return wording.capitalized(CONTROLS[row["condition"]].label)
        return "No noise" if row["ratio"] == 0 else f"{wording.percent(row['ratio'])} noise"

    return tables.cross_table(frame, [METHOD], Column("", encoder, ("condition", "ratio")))


def claims(book: Book) -> Blocks:
    """Yield each claim as a sentence with its mark, and the table of all endpoints."""
    found = paper_claims.claims([book.results])
    if found:
        yield from book.notes(clusters=True)
        yield from claims_over_lines(found, book, "claims")


def claims_over_lines(found: Sequence[paper_claims.Judged], book: Book, name: str) -> Blocks:
    """Yield the sentences of claims, the table of their endpoints, and its file."""
    primary = [one for one in found if one.is_primary]
    yield Findings([Finding(KINDS[sign_of(one.verdict)], one.sentence(), one.claim.name) for one in primary])
    rows = [one.row() for one in found if one.item is not None]
    table = claims_table(found, over_lines=True)
    yield Details(f"All {len(rows)} endpoints, primary and secondary", [table, *least_shown(rows)])
    yield book.csv(name, rows, _FIELDS)


def claims_table(found: Sequence[paper_claims.Judged], over_lines: bool = False) -> Table:
    """Return one line an endpoint: claim, measured figure, verdict, difference with its interval, p, effect size.

    Args:
      found: the claims.
      over_lines: whether claims stand over their lines, so that the verdicts are in sight on a narrow screen.
    """
    rows = [one.row() for one in found if one.item is not None]
    columns = [
        Column("Endpoint", lambda row: "primary" if row["primary"] else "secondary"),
        Column("Verdict", lambda row: f"{sign_of(row['verdict'])} {row['verdict']}"),
        DIFFERENCE,
        Column("Claimed", _claimed),
        Column("p", lambda row: p_value(row.get("p_holm", row.get("p")))),
        EFFECT,
    ]
    measured = Column("Measured", lambda row: row["measured"])
    starts = [index for index, row in enumerate(rows) if not index or rows[index - 1]["claim"] != row["claim"]]
    titles = {index: rows[index]["claim"] for index in starts}
    table = tables.listing(rows, [measured], columns)
    if over_lines:
        return replace(table, titles=titles)
    lines = [[titles.get(index, ""), *line] for index, line in enumerate(table.lines)]
    header = ["Claim", "Measured", *(column.title for column in columns)]
    return Table(header, lines, heads=2, breaks=frozenset(starts) - {0})


def _claimed(row: Row) -> str:
    side = "above" if row["wanted"] > 0 else "below"
    return f"{side} {100 * row['margin']:g}"


def terminal_claims(results: Results) -> str:
    """Return the bed's verdict and the claims of a run as text of at most 100 columns; empty where it has none."""
    with labels.labels_of([results]):
        found, judged = bed_verdict.judge([results]), paper_claims.claims([results])
        lines = [] if found is None else [("  ", line) for line in found.lines()]
        lines += [(f"{sign_of(one.verdict)} ", one.sentence()) for one in judged if one.is_primary]
    if not lines:
        return ""
    wrapped = (textwrap.wrap(f"{mark}{line}", WIDTH, subsequent_indent="  ") for mark, line in lines)
    rule = "-" * WIDTH
    return "\n".join(["What this bed can tell, and the claims", rule, *itertools.chain(*wrapped), rule])
