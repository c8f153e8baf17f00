"""The claims of the study's abstract, judged by the figures of runs: shown, the opposite shown, or not shown.

Which figures stand for a claim is settled here by fixed rules that look at no outcome: the conditions of the first
  recipe,
the least and the highest noise ratio, the linear probe and zero-shot for what noise does, RAN against the other heads
on the frozen encoder for what it repairs; a split of one class speaks to no claim. One run: intervals over test images
and heads, which say nothing of other upstream runs. Several runs that differ in their seed alone: Student's interval
over the runs, which does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from ranjax.evaluation import statistics
from ranjax.report import entry_labels as labels
from ranjax.report import result_frame as frames
from ranjax.report import wording
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import correct

SHOWN, OPPOSITE, NOT_SHOWN = "shown", "the opposite is shown", "not shown"
HELPS = "Moderate noise helps"
HURTS = "More noise hurts"
DEFENDS = "RAN defends against attacks"
REPAIRS = "RAN repairs the noise"
_LEVEL = 0.05
_MODERATE = 0.1
"""A run's only noisy ratio counts as moderate up to this share, as much as helps in NMTune's study."""


class Claim(NamedTuple):
    """One figure for one claim: the difference in the claimed direction's own terms, its interval, and the verdict.

    `wanted` is +1 where the claim says that the difference is above 0, -1 where below. `runs` is how many upstream runs
    are behind it.
    """

    claim: str
    measured: str
    wanted: int
    item: Row
    runs: int

    @property
    def p_holm(self) -> float | None:
        """Return the p value corrected over all claims."""
        return self.item.get("p_holm")

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
        return cast(Row, {**self.item, **own, "runs": self.runs})


def claims(runs: Sequence[Results]) -> list[Claim]:
    """Return the claims that the results of one run, or of several that differ in their seed alone, speak to.

    Args:
      runs: contents of results.json.
    """
    tables = [_differences(results) for results in runs]
    alone = _of_one_class(runs[0])
    found = []
    for claim, wanted, fields in _wanted(tables[0]):
        items = [item for table in tables if (item := frames.first(table, **fields)) is not None]
        if len(items) == len(tables) and fields["split"] not in alone:
            item = over_runs(items)
            found.append(Claim(claim, _measured(item), wanted, item, len(items)))
    correct([one.item for one in found])
    return found


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


def _differences(results: Results) -> pd.DataFrame:
    frame = frames.frame_of([*(results.get("effects") or []), *(results.get("comparisons") or [])])
    return frame.loc[[wording.finite(difference) for difference in frame["difference"]]]


def _wanted(table: pd.DataFrame) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Yield (claim, direction, fields) of each difference that stands for a claim, where a table has it."""
    noise = frames.where(table, kind="noise")
    condition = None if noise.empty else noise["condition"].iloc[0]
    ratios = sorted({ratio for ratio in frames.where(table, condition=condition)["ratio"] if ratio})
    if not ratios:
        return
    least, most, single = ratios[0], ratios[-1], len(ratios) == 1
    hit = labels.main_attack(frames.where(table, task="finding")["attack"])
    finding = {"condition": condition, "task": "finding", "metric": "accuracy"}
    places = [("test", hit), ("ood_test", "none"), ("ood_test", hit)]
    methods = ("lp", "zero_shot")
    if not single or least <= _MODERATE:
        effect = {**finding, "kind": "noise", "ratio": least}
        for method, (split, attack) in itertools.product(methods, places):
            yield HELPS, 1, {**effect, "method": method, "split": split, "attack": attack}
    if not single or most > _MODERATE:
        effect = {**finding, "kind": "noise", "ratio": most}
        for method, (split, attack) in itertools.product(methods, [("test", "none"), *places]):
            yield HURTS, -1, {**effect, "method": method, "split": split, "attack": attack}
        recall = {**effect, "task": frames.RETRIEVAL, "metric": "recall@1", "split": "test", "attack": "none"}
        for direction in ("image_to_text", "text_to_image"):
            yield HURTS, -1, {**recall, "method": direction}
    heads = filter(labels.is_head, labels.in_usual_order(frames.where(table, a="ran")["b"]))
    compared = {**finding, "ratio": most, "a": "ran"}
    claimed = [(DEFENDS, hit), (REPAIRS, "none")]
    for (claim, attack), split, other in itertools.product(claimed, ("test", "ood_test"), heads):
        yield claim, 1, {**compared, "b": other, "split": split, "attack": attack}


def _measured(item: Row) -> str:
    attacked = labels.attack_label(item.get("attack"), ["one", "another"])
    what = f"{wording.metric_label(item['metric'])}, {wording.split_label(item.get('split'))}, {attacked}"
    noise = wording.percent(item["ratio"])
    if item.get("kind"):
        return f"{labels.method_label(item['method'])}, {noise} noise less none: {what}"
    return f"{labels.method_label(item['a'])} less {labels.method_label(item['b'])} at {noise} noise: {what}"
