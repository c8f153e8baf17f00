"""The claims of the study, judged by the contrasts of runs.

A claim has one primary endpoint, which is tested by itself; all secondary endpoints of the table are corrected for
their number (Holm 1979). One run: intervals over test images and heads, which say nothing of other upstream runs.
Several runs that differ in their seed alone: Student's interval over the runs, which does. Where the bed's verdict says
that a claim cannot be decided, that is what is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from ranjax.report import bed_verdict, claim_table, wording
from ranjax.report.claim_table import CLAIMS, Claim, Endpoint
from ranjax.report.contrast_items import found_in, measured, over_runs
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import correct

SHOWN, OPPOSITE, NOT_SHOWN = "shown", "the opposite is shown", "not shown"
CANNOT_TELL, CHANCE, NOT_RUN = "this bed cannot tell", "not above chance", "not run"
NARROW = 0.02
"""Half the width of an interval up to which a difference that it does not show is denied rather than left open."""
_LEVEL = 0.05


class Judged(NamedTuple):
    """An endpoint of a claim, with its contrast, judged.

    Attributes:
      claim, endpoint: entries of the table.
      item: the contrast; None: the run lacks it.
      verdict: in words.
    """

    claim: Claim
    endpoint: Endpoint
    item: Row | None
    verdict: str

    @property
    def is_primary(self) -> bool:
        return self.endpoint is self.claim.primary

    @property
    def measured(self) -> str:
        """Return what was measured, in words."""
        return "" if self.item is None else measured(self.endpoint, self.item)

    @property
    def runs(self) -> int:
        """Return how many upstream runs are behind it."""
        return 0 if self.item is None else int(self.item.get("runs") or 1)

    def row(self) -> Row:
        """Return the difference as a row that holds the claim, too."""
        own = {
            "claim": self.claim.name,
            "measured": self.measured,
            "endpoint": self.endpoint.name,
            "primary": self.is_primary,
            "wanted": self.endpoint.wanted,
            "margin": self.endpoint.margin,
            "verdict": self.verdict,
            "runs": self.runs,
        }
        return cast(Row, {**(self.item or {}), **own})

    def sentence(self) -> str:
        """Return the claim with its verdict, figure and interval as one sentence or two."""
        if self.item is None:
            return f"{self.claim.name}: {self.verdict}, as {_lacking(self.endpoint)}."
        value = wording.estimate({**self.item, "value": self.item["difference"]})
        said = f"{self.claim.name}: {self.verdict}. {self.measured}: {value} points"
        if self.endpoint.margin:
            said += f" (needed: above {wording.number(self.endpoint.margin, 'accuracy')})"
        if self.claim.above_chance and self.item.get("first"):
            level = wording.number(self.item.get("chance"), "accuracy")
            said += (
                f"; it stands at {wording.estimate({**self.item['first'], 'metric': 'accuracy'})} %, chance {level} %"
            )
        share = self.item.get("share") or {}
        if wording.finite(share.get("value")):
            ends = f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]" if wording.has_interval(share) else ""
            said += f"; that is {100 * share['value']:.0f}{ends} % of what the noise costs the plain head"
        note = self.claim.notes.get(self.verdict, "")
        return f"{said}.{' ' if note else ''}{note}"


def claims(runs: Sequence[Results]) -> list[Judged]:
    """Return every claim of the table with its endpoints, the primary one first, judged by one run or several.

    Args:
      runs: contents of results.json, of runs that differ in their seed alone.

    Secondary endpoints that the runs lack are left out. Empty where the results hold no contrasts.
    """
    tables, bed = [found_in(results) for results in runs], bed_verdict.judge(runs)
    if not all(tables):
        return []
    items = {
        endpoint.name: dict(item)
        for claim in CLAIMS
        for endpoint in (claim.primary, *claim.secondary)
        if (item := over_runs(tables, endpoint)) is not None
    }
    for claim in CLAIMS:
        first = cast("Row | None", items.get(claim.primary.name))
        for one in claim.secondary:
            # Where two roles are one head, the secondary endpoint is the primary one again.
            if (
                first
                and one.name in items
                and measured(one, cast(Row, items[one.name])) == measured(claim.primary, first)
            ):
                del items[one.name]
    correct([cast(Row, items[one.name]) for claim in CLAIMS for one in claim.secondary if one.name in items])
    found = []
    for claim in CLAIMS:
        for endpoint in (claim.primary, *claim.secondary):
            item = cast("Row | None", items.get(endpoint.name))
            if item is not None or endpoint is claim.primary:
                found.append(Judged(claim, endpoint, item, _verdict(claim, endpoint, item, bed)))
    return found


def _verdict(claim: Claim, endpoint: Endpoint, item: Row | None, bed: bed_verdict.Verdict | None) -> str:
    if item is None:
        return NOT_RUN
    alone = _by_interval(endpoint, item)
    if alone == SHOWN:
        grounds = bed is not None and all(bed.figures[name].is_above_zero for name in claim.premise)
        if claim.premise and not grounds:
            return CANNOT_TELL
        return CHANCE if claim.above_chance and endpoint.attack != "none" and not _is_above_chance(item) else SHOWN
    if claim.bed and (bed is None or bed.fails(claim.bed)):
        return CANNOT_TELL
    if not claim.denied:
        return alone
    narrow = wording.has_interval(item) and (item["high"] - item["low"]) / 2 <= NARROW
    if not (endpoint is claim.primary and (narrow or alone == OPPOSITE)):
        return alone if alone == OPPOSITE else CANNOT_TELL
    return claim.denied


def _by_interval(endpoint: Endpoint, item: Row) -> str:
    """Return the verdict of the interval against the margin and of p, which is corrected for secondary endpoints."""
    if not wording.has_interval(item) or not item.get("p_holm", item.get("p", 0.0)) < _LEVEL:
        return NOT_SHOWN
    low, high = sorted(endpoint.wanted * (item[end] - endpoint.margin) for end in ("low", "high"))
    return SHOWN if low > 0 else OPPOSITE if high < 0 else NOT_SHOWN


def _is_above_chance(item: Row) -> bool:
    first, level = item.get("first") or {}, item.get("chance")
    return wording.finite(level) and wording.finite(first.get("low")) and first["low"] > level


def _lacking(endpoint: Endpoint) -> str:
    """Return why a contrast may be lacking: the heads and encoders that it needs, without their definitions."""
    words = (claim_table.HEADS.get(term.head, term.head.replace("_", " ")) for term in endpoint.terms)
    heads = dict.fromkeys(head.partition(";")[0].partition(":")[0] for head in words)
    encoders = dict.fromkeys(claim_table.ENCODERS[term.encoder].partition(" (")[0] for term in endpoint.terms)
    attacked = ", under attack" if endpoint.attack != "none" else ""
    return f"it needs {', and '.join(heads)}, on {' and '.join(encoders)}{attacked}"
