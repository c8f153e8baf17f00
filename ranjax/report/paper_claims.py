"""What the abstract of the study claims, held against the figures of runs: shown, the opposite shown, or not shown.

Which figures stand for a claim is settled here by fixed rules that look at no outcome: the conditions of the first recipe,
the least and the highest noise ratio, the linear probe and zero-shot for what noise does, RAN against the other heads
on the frozen encoder for what it repairs; a split of one class speaks to no claim. One run: intervals over test images
and heads, which say nothing of other upstream runs. Several runs that differ in their seed alone: Student's interval
over the runs, which does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranjax.evaluation import statistics
from ranjax.report import labels_text as wording
from ranjax.report import row_queries as rows_

SHOWN, OPPOSITE, NOT_SHOWN = "shown", "the opposite is shown", "not shown"
HELPS = "Moderate noise helps"
HURTS = "More noise hurts"
DEFENDS = "RAN defends against attacks"
REPAIRS = "RAN repairs the noise"
_LEVEL = 0.05
_MODERATE = 0.1
"""A run's only noisy ratio counts as moderate up to this share, as much as helps in NMTune's study."""
_KEY = ("kind", "condition", "ratio", "a", "b", "method", "task", "split", "attack", "metric")


@dataclass(frozen=True)
class Claim:
    """One figure for one claim: the difference in the claimed direction's own terms, its interval, and the verdict.

    `wanted` is +1 where the claim says that the difference is above 0, -1 where below. `runs` is how many upstream runs
    are behind it; `p_holm` is corrected over all claims.
    """

    claim: str
    measured: str
    wanted: int
    item: Mapping[str, Any]
    runs: int
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        if not wording.has_interval(self.item) or (self.p_holm is not None and not self.p_holm < _LEVEL):
            return NOT_SHOWN
        low, high = sorted((self.wanted * self.item["low"], self.wanted * self.item["high"]))
        return SHOWN if low > 0 else OPPOSITE if high < 0 else NOT_SHOWN


def claims(runs: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims that the results of one run, or of several that differ in their seed alone, speak to.

    Args:
      runs: contents of results.json.
    """
    from ranjax.report.claims import holm

    tables = [_by_key(results) for results in runs]
    found = []
    alone = _of_one_class(runs[0])
    for claim, wanted, measured, key in _wanted(runs[0], tables[0]):
        items = [table[key] for table in tables if key in table and key[_KEY.index("split")] not in alone]
        if len(items) == len(tables):
            found.append(Claim(claim, measured, wanted, over_runs(items), len(items)))
    tested = [one for one in found if wording.finite(one.item.get("p"))]
    corrected = dict(zip(map(id, tested), holm([one.item["p"] for one in tested])))
    return [Claim(one.claim, one.measured, one.wanted, one.item, one.runs, corrected.get(id(one))) for one in found]


def over_runs(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same difference of several runs as one: mean, Student's 95 % interval over runs, and its p value.

    One item comes back as it is. The runs are taken to vary by their own sampling error at least
    (:func:`ranjax.evaluation.statistics.student`).
    """
    if len(items) == 1:
        return dict(items[0])
    values = [item["difference"] for item in items]
    own = statistics.sampling_error([(item["low"], item["high"]) for item in items if wording.has_interval(item)])
    mean, low, high, p, effect = statistics.student(values, least=own)
    shown = effect if np.isfinite(effect) else None
    return {**items[0], "difference": mean, "low": low, "high": high, "p": p, "effect": shown, "n": len(values)}


def _of_one_class(results: Mapping[str, Any]) -> set[str]:
    """Splits that hold one class: accuracy there is how often a method says its name, and speaks to no claim."""
    areas = [row for row in results.get("rows") or [] if row.get("metric") == "macro_auroc"]
    splits = {str(row.get("split")) for row in areas}
    return splits - {str(row.get("split")) for row in areas if wording.finite(row.get("value"))}


def _by_key(results: Mapping[str, Any]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    items = [*(results.get("effects") or []), *(results.get("comparisons") or [])]
    return {tuple(item.get(name) for name in _KEY): item for item in items if wording.finite(item.get("difference"))}


def _wanted(
    results: Mapping[str, Any], table: Mapping[tuple[Any, ...], Mapping[str, Any]]
) -> Iterator[tuple[str, int, str, tuple[Any, ...]]]:
    """(claim, direction, what is measured, key) of what stands for each claim, where the table has it."""
    conditions = [item["condition"] for item in results.get("effects") or [] if item.get("kind") == "noise"]
    condition = conditions[0] if conditions else None
    ratios = sorted({item["ratio"] for item in table.values() if item.get("condition") == condition and item["ratio"]})
    attacks = {item.get("attack") for item in table.values()}
    hit = "worst" if "worst" in attacks else "pgd"
    least, most = (ratios[0], ratios[-1]) if ratios else (None, None)

    def effect(kind: str, ratio: Any, method: str, task: str, split: str, attack: str) -> tuple[Any, ...]:
        metric = "recall@1" if task == rows_.RETRIEVAL else "accuracy"
        return (kind, condition, ratio, None, None, method, task, split, attack, metric)

    places = [("test", hit), ("ood_test", "none"), ("ood_test", hit)]
    single = most == least
    if least is not None and (not single or least <= _MODERATE):
        for method in ("lp", "zero_shot"):
            for split, attack in places:
                yield from _known(table, HELPS, 1, effect("noise", least, method, "finding", split, attack))
    if most is not None and (not single or most > _MODERATE):
        for method in ("lp", "zero_shot"):
            for split, attack in [("test", "none"), *places]:
                yield from _known(table, HURTS, -1, effect("noise", most, method, "finding", split, attack))
        for direction in ("image_to_text", "text_to_image"):
            yield from _known(table, HURTS, -1, effect("noise", most, direction, rows_.RETRIEVAL, "test", "none"))
    compared = {key[4] for key in table if key[3] == "ran"}
    others = [name for name in rows_.HEADS if name in compared]
    for claim, cells in (
        (DEFENDS, [("test", hit), ("ood_test", hit)]),
        (REPAIRS, [("test", "none"), ("ood_test", "none")]),
    ):
        for split, attack in cells:
            for other in others:
                key = (None, condition, most, "ran", other, None, "finding", split, attack, "accuracy")
                yield from _known(table, claim, 1, key)


def _known(
    table: Mapping[tuple[Any, ...], Mapping[str, Any]], claim: str, wanted: int, key: tuple[Any, ...]
) -> Iterator[tuple[str, int, str, tuple[Any, ...]]]:
    item = table.get(key)
    if item is None:
        return
    attacked = wording.attack_label(item.get("attack"), ["pgd", "worst"]) if item.get("attack") != "none" else "clean"
    what = f"{wording.metric_label(str(item['metric']))}, {wording.split_label(item.get('split'))}, {attacked}"
    noise = wording.percent(item["ratio"])
    if item.get("kind"):
        who = f"{wording.method_label(item['method'])}, {noise} noise less none"
    else:
        who = f"{wording.method_label(item['a'])} less {wording.method_label(item['b'])} at {noise} noise"
    yield claim, wanted, f"{who}: {what}", key
