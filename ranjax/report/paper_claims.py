"""The claims of the study's abstract, judged by the figures of runs: shown, the opposite shown, or not shown.

Which figures stand for a claim is settled here by fixed rules that look at no outcome: the conditions of the first recipe,
the least and the highest noise ratio, the linear probe and zero-shot for what noise does, RAN against the other heads
on the frozen encoder for what it repairs; a split of one class speaks to no claim. One run: intervals over test images
and heads, which say nothing of other upstream runs. Several runs that differ in their seed alone: Student's interval
over the runs, which does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from ranjax.evaluation import statistics
from ranjax.report import entry_labels as labels
from ranjax.report import wording
from ranjax.report.result_frame import RETRIEVAL
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import holm

SHOWN, OPPOSITE, NOT_SHOWN = "shown", "the opposite is shown", "not shown"
HELPS = "Moderate noise helps"
HURTS = "More noise hurts"
DEFENDS = "RAN defends against attacks"
REPAIRS = "RAN repairs the noise"
_LEVEL = 0.05
_MODERATE = 0.1
"""A run's only noisy ratio counts as moderate up to this share, as much as helps in NMTune's study."""


class _Key(NamedTuple):
    """The fields that identify a difference of a run."""

    kind: str | None
    condition: str | None
    ratio: float | None
    a: str | None
    b: str | None
    method: str | None
    task: str
    split: str
    attack: str
    metric: str


_Wanted = tuple[str, int, str, _Key]
"""(claim, direction, what is measured, key) of one figure for one claim."""


@dataclass(frozen=True)
class Claim:
    """One figure for one claim: the difference in the claimed direction's own terms, its interval, and the verdict.

    `wanted` is +1 where the claim says that the difference is above 0, -1 where below. `runs` is how many upstream runs
    are behind it; `p_holm` is corrected over all claims.
    """

    claim: str
    measured: str
    wanted: int
    item: Row
    runs: int
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """Return one of `SHOWN`, `OPPOSITE` and `NOT_SHOWN`."""
        if not wording.has_interval(self.item) or (self.p_holm is not None and not self.p_holm < _LEVEL):
            return NOT_SHOWN
        low, high = sorted((self.wanted * self.item["low"], self.wanted * self.item["high"]))
        return SHOWN if low > 0 else OPPOSITE if high < 0 else NOT_SHOWN

    def row(self) -> Row:
        """Return the difference as a row that holds the claim, too."""
        own = {"claim": self.claim, "measured": self.measured, "wanted": self.wanted, "verdict": self.verdict}
        return cast(Row, {**self.item, **own, "runs": self.runs, "p_holm": self.p_holm})


def claims(runs: Sequence[Results]) -> list[Claim]:
    """Return the claims that the results of one run, or of several that differ in their seed alone, speak to.

    Args:
      runs: contents of results.json.
    """
    tables = [_by_key(results) for results in runs]
    alone = _of_one_class(runs[0])
    found = []
    for claim, wanted, measured, key in _wanted(runs[0], tables[0]):
        items = [table[key] for table in tables if key in table and key.split not in alone]
        if len(items) == len(tables):
            found.append(Claim(claim, measured, wanted, over_runs(items), len(items)))
    tested = [index for index, one in enumerate(found) if wording.finite(one.item.get("p"))]
    corrected = dict(zip(tested, holm([float(found[index].item["p"]) for index in tested])))
    return [replace(one, p_holm=corrected.get(index)) for index, one in enumerate(found)]


def over_runs(items: Sequence[Row]) -> Row:
    """Return the same difference of several runs as one: mean, Student's 95 % interval over runs, and its p value.

    One item comes back as it is. The runs are taken to vary by their own sampling error at least
    (`ranjax.evaluation.statistics.student`).
    """
    if len(items) == 1:
        return items[0]
    values = [item["difference"] for item in items]
    own = statistics.sampling_error([(item["low"], item["high"]) for item in items if wording.has_interval(item)])
    mean, low, high, p, effect = statistics.student(values, least=own)
    shown = effect if np.isfinite(effect) else None
    pooled = {"difference": mean, "low": low, "high": high, "p": p, "effect": shown, "n": len(values)}
    return cast(Row, {**items[0], **pooled})


def _of_one_class(results: Results) -> set[str]:
    """Return the splits of one class: accuracy there is how often a method names it, and speaks to no claim."""
    areas = [row for row in results.get("rows") or [] if row.get("metric") == "macro_auroc"]
    splits = {str(row.get("split")) for row in areas}
    return splits - {str(row.get("split")) for row in areas if wording.finite(row.get("value"))}


def _by_key(results: Results) -> dict[_Key, Row]:
    items = [*(results.get("effects") or []), *(results.get("comparisons") or [])]
    known = [item for item in items if wording.finite(item.get("difference"))]
    return {_Key(*(item.get(name) for name in _Key._fields)): item for item in known}


def _wanted(results: Results, table: Mapping[_Key, Row]) -> Iterator[_Wanted]:
    """Yield what stands for each claim, where the table has it."""
    conditions = [item["condition"] for item in results.get("effects") or [] if item.get("kind") == "noise"]
    condition = conditions[0] if conditions else None
    ratios = sorted({item["ratio"] for item in table.values() if item.get("condition") == condition and item["ratio"]})
    hit = labels.main_attack(key.attack for key in table if key.task == "finding")
    least, most = (ratios[0], ratios[-1]) if ratios else (None, None)

    def effect(ratio: float, method: str, task: str, split: str, attack: str) -> _Key:
        metric = "recall@1" if task == RETRIEVAL else "accuracy"
        return _Key("noise", condition, ratio, None, None, method, task, split, attack, metric)

    places = [("test", hit), ("ood_test", "none"), ("ood_test", hit)]
    single = most == least
    if least is not None and (not single or least <= _MODERATE):
        for method in ("lp", "zero_shot"):
            for split, attack in places:
                yield from _known(table, HELPS, 1, effect(least, method, "finding", split, attack))
    if most is not None and (not single or most > _MODERATE):
        for method in ("lp", "zero_shot"):
            for split, attack in [("test", "none"), *places]:
                yield from _known(table, HURTS, -1, effect(most, method, "finding", split, attack))
        for direction in ("image_to_text", "text_to_image"):
            yield from _known(table, HURTS, -1, effect(most, direction, RETRIEVAL, "test", "none"))
    compared = {key.b for key in table if key.a == "ran" and key.b}
    others = [name for name in labels.in_usual_order(compared) if labels.is_head(name)]
    for claim, attack in ((DEFENDS, hit), (REPAIRS, "none")):
        for split in ("test", "ood_test"):
            for other in others:
                key = _Key(None, condition, most, "ran", other, None, "finding", split, attack, "accuracy")
                yield from _known(table, claim, 1, key)


def _known(table: Mapping[_Key, Row], claim: str, wanted: int, key: _Key) -> Iterator[_Wanted]:
    item = table.get(key)
    if item is None:
        return
    attacked = labels.attack_label(item.get("attack"), ["one", "another"])
    what = f"{wording.metric_label(item['metric'])}, {wording.split_label(item.get('split'))}, {attacked}"
    noise = wording.percent(item["ratio"])
    if item.get("kind"):
        difference = f"{labels.method_label(item['method'])}, {noise} noise less none"
    else:
        difference = f"{labels.method_label(item['a'])} less {labels.method_label(item['b'])} at {noise} noise"
    yield claim, wanted, f"{difference}: {what}", key
