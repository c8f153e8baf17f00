"""The bed's verdict: what pre-training is worth here, what the noise costs, and how small a repair could be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ranjax.report import claim_table, wording
from ranjax.report.contrast_items import found_in, measured, over_runs
from ranjax.report.stored_results import Results, Row

_OVER = {claim_table.WORTH[0]: "raw pixels", claim_table.WORTH[1]: "a random encoder"}


class Judged(NamedTuple):
    """One figure of the bed: its entry, its contrast (None: the run lacks it), and whether it passes."""

    figure: claim_table.BedFigure
    item: Row | None

    @property
    def passes(self) -> bool:
        """Return whether the value is large enough and the interval's lower end far enough from 0."""
        if self.item is None or not wording.has_interval(self.item):
            return False
        return self.item["difference"] >= self.figure.least and self.item["low"] > self.figure.low

    @property
    def is_above_zero(self) -> bool:
        """Return whether the whole interval lies above 0."""
        return self.item is not None and wording.has_interval(self.item) and self.item["low"] > 0

    @property
    def needed(self) -> str:
        """Return what the figure needs, in words."""
        return f"at least {100 * self.figure.least:g}, lower end above {100 * self.figure.low:g}"


class Verdict(NamedTuple):
    """What a bed can tell.

    Attributes:
      figures: of the bed, by name.
      repair: the contrast of RAN's repair; None without one.
    """

    figures: Mapping[str, Judged]
    repair: Row | None

    @property
    def least_repair(self) -> float | None:
        """Return the smallest repair that the run can show: half of the width of the repair's interval."""
        if self.repair is None or not wording.has_interval(self.repair):
            return None
        return (self.repair["high"] - self.repair["low"]) / 2

    def fails(self, names: Sequence[str]) -> list[Judged]:
        """Return those of the named figures that do not pass."""
        return [self.figures[name] for name in names if not self.figures[name].passes]

    def lines(self) -> list[str]:
        """Return the verdict as sentences, the conclusion first."""
        failed = [one for one in self.figures.values() if not one.passes]
        able = "This bed can tell whether RAN repairs upstream noise."
        if failed:
            able = "This bed cannot tell whether RAN repairs upstream noise: " + "; ".join(map(shortfall, failed)) + "."
        worth = [_figure(one, f"over {_OVER[name]}") for name, one in self.figures.items() if name in _OVER]
        damage = self.figures["damage"]
        ratio = "The noise" if damage.item is None else f"{wording.percent(damage.item['ratio'])} upstream noise"
        found = [able, f"Pre-training is worth {' and '.join(worth)}.", f"{ratio} costs {_figure(damage)}."]
        if self.least_repair is None:
            return [*found, "No repair was measured: it needs RAN and a plain head, with and without noise."]
        least = wording.number(self.least_repair, "accuracy")
        return [*found, f"This run can show a repair of at least {least} points (half the width of its interval)."]

    def document(self) -> dict[str, object]:
        """Return the verdict as results.json has it."""
        figures = {
            name: {
                **({} if one.item is None else {key: one.item[key] for key in ("difference", "low", "high", "heads")}),
                "needed": one.needed,
                "passes": one.passes,
            }
            for name, one in self.figures.items()
        }
        return {"figures": figures, "least_repair": self.least_repair, "words": self.lines()}


def shortfall(one: Judged) -> str:
    """Return why a figure of the bed does not pass, as part of a sentence."""
    if one.item is None:
        return (
            "the noise costs an amount that was not measured"
            if one.figure.name == "damage"
            else (f"pre-training was not compared with {_OVER[one.figure.name]}")
        )
    if one.figure.name == "damage":
        return "the noise costs too little, or too little is known of it"
    return f"pre-training is not worth enough over {_OVER[one.figure.name]}"


def _figure(one: Judged, over: str = "") -> str:
    if one.item is None:
        return f"an unknown amount {over}".strip()
    value = wording.estimate({**one.item, "value": one.item["difference"]})
    return f"{value} points {over}".strip() + f" ({one.needed}: {'passes' if one.passes else 'fails'})"


def judge(runs: Sequence[Results]) -> Verdict | None:
    """Return the verdict on the bed of one run, or of several that differ in their seed alone.

    Returns None where the results are of a version that computed no contrasts, or hold none of the bed's.
    """
    tables = [found_in(results) for results in runs]
    items = {figure.name: over_runs(tables, figure.endpoint) for figure in claim_table.BED}
    if not any(items.values()):
        return None
    repair = next(claim.primary for claim in claim_table.CLAIMS if claim.primary.whole)
    figures = {figure.name: Judged(figure, items[figure.name]) for figure in claim_table.BED}
    return Verdict(figures, over_runs(tables, repair))


def heads_of(one: Judged) -> str:
    """Return what was compared, in words."""
    return "not measured" if one.item is None else measured(one.figure.endpoint, one.item)
