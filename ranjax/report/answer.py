"""The head of a page: whether the experiment can tell, and each claim as a sentence, a mark and a small figure.

It is for readers who know none of the project's words. Everything behind it stands in the sections "verdict" and
"claims".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ranjax.report import bed_verdict, paper_claims, wording
from ranjax.report.bed_verdict import Verdict
from ranjax.report.claim_sections import KINDS, sign_of
from ranjax.report.contrast_items import filled
from ranjax.report.stored_results import Results, Row

_HALF = 100
"""Half of the width of a small figure, in its own units."""
_ROUND = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100)
_TOLD = {paper_claims.OPPOSITE: "the opposite holds", paper_claims.CANNOT_TELL: "this experiment cannot tell"}
_REPAIRS = "repairs"
"""The endpoint by which the headline's question is answered."""


class Line(NamedTuple):
    """One judged statement.

    Attributes:
      kind: its look, as that of a finding: "shown", "opposite", "none", "unknown", "missing".
      sign: its mark.
      claim: the statement, with its verdict.
      measured: what the figure is, in plain words.
      plot: the figure's interval on the scale of its list, as SVG; the value says the same in words.
      value: the figure with its interval.
    """

    kind: str
    sign: str
    claim: str
    measured: str
    plot: Markup
    value: str


class Lines(NamedTuple):
    """Judged statements on one scale of `extent` points to either side of 0; `is_marked`: some need more than 0."""

    lines: Sequence[Line]
    extent: int
    is_marked: bool


class Answer(NamedTuple):
    """What a page says first.

    Attributes:
      kind: the look of the headline: "shown" or "unknown".
      headline: whether the experiment can tell, as a sentence.
      reply: what it tells, or why it cannot tell, as a sentence; empty where it measured no repair.
      grounds: the figures by which that is decided.
      least: the smallest repair that it can show, as a sentence.
      claims: the claims that were tested.
      untested: the names of the other ones.
    """

    kind: str
    headline: str
    reply: str
    grounds: Lines
    least: str
    claims: Lines
    untested: Sequence[str]


def answer(runs: Sequence[Results]) -> Answer | None:
    """Return the head of the page of one run, or of several that differ in their seed alone.

    Returns None where the results are of a version that computed no contrasts, or hold none of the bed's.
    """
    found = bed_verdict.judge(runs)
    if found is None:
        return None
    judged = [one for one in paper_claims.claims(runs) if one.is_primary]
    tested = [(one, one.item) for one in judged if one.item is not None]
    failed = [one for one in found.figures.values() if not one.passes]
    headline = "This experiment can tell whether RAN repairs the noise."
    reply = next((_reply(*one) for one in tested if one[0].endpoint.name == _REPAIRS), "")
    if failed:
        headline = "This experiment is too weak for a firm answer on whether RAN repairs the noise."
        reply = wording.capitalized("; ".join(bed_verdict.shortfall(one) for one in failed)) + "."
    measured = [(one, one.item) for one in found.figures.values() if one.item is not None]
    bed_extent = _extent(item for _, item in measured)
    extent = _extent(item for _, item in tested)
    return Answer(
        "unknown" if failed else "shown",
        headline,
        reply,
        Lines([_ground(one, item, bed_extent) for one, item in measured], bed_extent, True),
        _least(found),
        Lines([_claim(*one, extent) for one in tested], extent, any(one.endpoint.margin for one, _ in tested)),
        [one.claim.name for one in judged if one.item is None],
    )


def _reply(one: paper_claims.Judged, item: Row) -> str:
    """Return the answer to the headline's question; of what was repaired, its share of the damage."""
    if one.verdict == one.claim.denied:
        return "It does not."
    if one.verdict != paper_claims.SHOWN:
        return "The figures leave it open."
    if not (share := _share(item)):
        return "It does."
    if item["difference"] > 0 and (item["share"] or {})["value"] >= 1:
        return f"It does: the noise costs {filled('{ran}', item)} nothing."
    return f"It does: the noise costs {filled('{ran}', item)} {share} less accuracy than {filled('{reference}', item)}."


def _share(item: Row) -> str:
    """Return the repaired share of the damage, as "63 %"; empty where it is not known."""
    share = item.get("share") or {}
    return f"{100 * share['value']:.0f} %" if wording.finite(share.get("value")) else ""


def _ground(one: bed_verdict.Judged, item: Row, extent: int) -> Line:
    kind, sign, said = ("shown", "✓", "yes") if one.passes else ("opposite", "✗", "not enough")
    measured = f"{filled(one.figure.plain, item)} (needed: {one.needed})"
    plot = interval_plot(item, extent, kind, one.figure.least)
    return Line(kind, sign, f"{one.figure.question} {wording.capitalized(said)}.", measured, plot, _value(item))


def _claim(one: paper_claims.Judged, item: Row, extent: int) -> Line:
    sign, margin = sign_of(one.verdict), one.endpoint.margin
    said = f"{one.claim.name}: {_TOLD.get(one.verdict, one.verdict)}."
    measured = filled(one.claim.plain, item)
    if share := _share(item):
        measured += f", which is {share} of that cost"
    if margin:
        measured += f" (needed: above {wording.number(margin, 'accuracy')} {_points(abs(margin))})"
    return Line(KINDS[sign], sign, said, measured, interval_plot(item, extent, KINDS[sign], margin), _value(item))


def _points(share: float) -> str:
    return "point" if round(100 * share, 1) == 1 else "points"


def _least(found: Verdict) -> str:
    if found.least_repair is None:
        return "No repair was measured: that needs RAN and a plain head, with and without noise."
    return f"The smallest repair that it could show is {wording.number(found.least_repair, 'accuracy')} points."


def _value(item: Row) -> str:
    return f"{wording.estimate({**item, 'value': item['difference']})} points"


def _extent(items: Iterable[Row]) -> int:
    """Return the points that a scale must reach, a round number."""
    ends = [abs(100 * end) for item in items for end in _ends(item)]
    return next((one for one in _ROUND if one >= max(ends, default=1.0)), 200)


def _ends(item: Mapping[str, object]) -> list[float]:
    return [end for name in ("low", "difference", "high") if wording.finite(end := item.get(name))]


def interval_plot(item: Row, extent: int, kind: str, needed: float = 0.0) -> Markup:
    """Return a difference with its interval as a small SVG: zero in the middle, a tick at what was needed.

    Args:
      item: with "difference", "low" and "high", as shares.
      extent: the points at either end of the scale.
      kind: the class of style of its marks.
      needed: a share.
    """

    def at(share: float) -> str:
        return f"{_HALF + (_HALF - 6) * max(-1.0, min(1.0, 100 * share / extent)):.1f}"

    low, *_, high = _ends(item)
    tick = f'<line class="needed" x1="{at(needed)}" x2="{at(needed)}" y1="4" y2="20"/>' if needed else ""
    return Markup(
        f'<svg class="interval {kind}" viewBox="0 0 {2 * _HALF} 24" aria-hidden="true">'
        f'<line class="axis" x1="0" x2="{2 * _HALF}" y1="12" y2="12"/>'
        f'<line class="zero" x1="{_HALF}" x2="{_HALF}" y1="1" y2="23"/>{tick}'
        f'<line class="bar" x1="{at(low)}" x2="{at(high)}" y1="12" y2="12"/>'
        f'<circle cx="{at(item["difference"])}" cy="12" r="4.5"/></svg>'
    )
