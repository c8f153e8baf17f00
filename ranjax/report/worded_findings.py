"""Findings in words, each read off an interval; where it holds zero the finding is "no difference shown"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import pandas as pd

from ranjax.evaluation import statistics
from ranjax.report import entry_labels as labels
from ranjax.report import result_frame as frames
from ranjax.report import wording
from ranjax.report.stored_results import CELL, Results, Row

ABOVE, BELOW, NONE = "above", "below", "none"
_DEFENCE = "ran"
_LEVEL = 0.05
_MOST_WORDED = 12


class Finding(NamedTuple):
    """One sentence with its topic and verdict: "above", "below", "none" shown, or "caution" for how to read it."""

    verdict: str
    text: str
    topic: str


def side_of(row: Mapping[str, object], level: float = 0.0, high: float | None = None) -> str:
    """Return "above" or "below" where the row's interval lies beyond `level` (to `high`), else "none"."""
    row = cast(Row, row)
    if row["low"] > (level if high is None else high):
        return ABOVE
    return BELOW if row["high"] < level else NONE


def correct(items: Sequence[Row]) -> None:
    """Add "p_holm" to differences where p is known: p by Holm's step-down method (Holm 1979), over all of them."""
    tested = [item for item in items if wording.finite(item.get("p"))]
    for item, p in zip(tested, statistics.holm([float(item["p"]) for item in tested]).tolist()):
        item["p_holm"] = p


def judged(items: Iterable[Row] | None) -> list[Row]:
    """Return the differences that have an interval, with "alone", the verdict by the interval, "p_holm" and "verdict".

    p is corrected over all of one metric, which are one table; "verdict" is "none" where that is not below 0.05.
    """
    known = [item for item in items or () if all(wording.finite(item.get(name)) for name in ("difference", "ratio"))]
    found = [cast(Row, dict(item)) for item in known if wording.has_interval(item)]
    for metric in {item.get("metric") for item in found}:
        correct([item for item in found if item.get("metric") == metric])
    for item in found:
        item["alone"] = side_of(item)
        item["verdict"] = item["alone"] if item.get("p_holm", 0.0) < _LEVEL else NONE
    return found


def _place(item: Row, conditions: Sequence[str]) -> str:
    """Return the encoder of a difference or row as the beginning of a sentence."""
    if item.get("ratio") == 0:
        return "Without upstream noise"
    condition = f" (condition {wording.condition_label(item.get('condition'))})" if len(conditions) > 1 else ""
    return f"At {wording.percent(item.get('ratio'))} noise{condition}"


def worded(item: Row, among: pd.DataFrame) -> str:
    """Return a judged comparison as a sentence; condition, attack and task are named where they vary `among` the
    others.
    """
    metric = item["metric"]
    attacks, tasks = frames.values(among, "attack"), frames.values(among, "task")
    where = _place(item, frames.conditions(among))
    on = wording.split_phrase(item.get("split")) + (f", task {item.get('task')}" if len(tasks) > 1 else "")
    measured = f"{labels.attack_label(item.get('attack'), attacks)} {wording.metric_label(metric)}"
    first, second = labels.method_label(item["a"]), labels.method_label(item["b"])
    interval = f"{wording.number(item['low'], metric)} to {wording.number(item['high'], metric)}"
    if item["verdict"] == NONE:
        unit = " points" if wording.is_percent(metric) else ""
        shown = f"no difference between {first} and {second} is shown in {measured}"
        return f"{where} {shown} {on} (95 % interval {interval}{unit}{_fallen(item)})."
    quantity = f"points of {measured}" if wording.is_percent(metric) else measured
    size = wording.number(abs(item["difference"]), metric)
    if item["verdict"] == BELOW:
        interval = f"{wording.number(-item['high'], metric)} to {wording.number(-item['low'], metric)}"
    return f"{where} {first} is {item['verdict']} {second} by {size} {quantity} {on} (95 % interval {interval})."


def _fallen(item: Row) -> str:
    """Return words for an interval that is clear of 0 where the difference is still not shown."""
    return "" if item["alone"] == item["verdict"] else "; it does not stand after correction"


def _headline_comparisons(found: pd.DataFrame) -> list[Row]:
    """Return RAN against the other heads on the frozen encoder in accuracy, in domain, at the highest ratio.

    Clean and under the worst attack. A rule that looks at no outcome; a criterion that nothing meets is dropped.
    """
    heads = [name for name in frames.values(found, "b") if labels.is_head(name)]
    for field, values in (("metric", ["accuracy"]), ("a", [_DEFENCE]), ("split", ["test"]), ("b", heads)):
        chosen = found[found[field].isin(values)]
        found = chosen if len(chosen) else found
    found = found[found["ratio"] == found["ratio"].max()]
    if "worst" in set(found["attack"]):
        found = found[found["attack"].isin(["none", "worst"])]
    # Where that is too much to read, the first condition: the others stand in the tables.
    if len(found) > _MOST_WORDED:
        found = frames.where(found, condition=found["condition"].iloc[0])
    return frames.records(found)


def _caution(found: Sequence[Row], shown: int) -> list[Finding]:
    if not found:
        return []
    above, below = (sum(item["alone"] == side for item in found) for side in (ABOVE, BELOW))
    text = (
        f"{shown} of {len(found)} comparisons are worded above, chosen by a fixed rule and not by their "
        f"outcome. Of all "
        f"{len(found)}, {above} intervals lie above zero, {below} below and {len(found) - above - below} hold zero. "
        f"If no two methods differed, {_LEVEL * len(found):.1f} of them would be expected to miss zero by chance"
    )
    if any("p_holm" in item for item in found):
        stand = sum(item.get("p_holm", 1.0) < _LEVEL for item in found)
        text += f"; {stand} {'stands' if stand == 1 else 'stand'} at 5 % after Holm's correction over each metric"
    return [Finding("caution", text + ".", "Reading these findings")]


def _level(row: Row) -> str:
    metric = row["metric"]
    unit = " %" if wording.is_percent(metric) else ""
    low, high = wording.number(row["low"], metric), wording.number(row["high"], metric)
    return f"{wording.number(row['value'], metric)}{unit} (95 % interval {low} to {high})"


def _accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy in domain of the linear probe, or of the first method there is."""
    found = frames.with_interval(frames.where(frame, metric="accuracy", split="test"))
    names = frames.values(found, "method")
    return frames.where(found, method="lp" if "lp" in names else names[0]) if names else found


def _attack_findings(frame: pd.DataFrame) -> list[Finding]:
    """Return the effect of each attack on the linear probe on the clean encoder, by intervals that lie apart."""
    accuracy = _accuracy(frame[frame["ratio"] == frame["ratio"].min()])
    clean = frames.first(accuracy, attack="none")
    findings = []
    for attack in frames.values(accuracy, "attack"):
        hit = frames.first(accuracy, attack=attack)
        if clean is None or hit is None or attack == "none":
            continue
        found = side_of(hit, clean["low"], clean["high"])
        does = {BELOW: "lowers the", ABOVE: "does not lower the", NONE: "shows no difference in the"}[found]
        text = (
            f"{_place(clean, [])} {labels.attack_phrase(attack)} {does} accuracy of "
            f"{labels.method_label(clean['method'])} "
            f"on the test set: {_level(clean)} clean, {_level(hit)} attacked."
        )
        findings.append(Finding(found, text, "The attack"))
    return findings


def _chance_findings(frame: pd.DataFrame, chance: Mapping[str, object]) -> list[Finding]:
    """Return whether zero-shot and retrieval, which need no head, are above guessing on the least noisy encoder."""
    found = frames.with_interval(frames.where(frame, attack="none", split="test"))
    zero_shot = (found["method"] == "zero_shot") & (found["metric"] == "accuracy")
    found = found[zero_shot | (found["task"] == frames.RETRIEVAL) & (found["metric"] == "recall@1")]
    findings = []
    for row in frames.records(found[found["ratio"] == found["ratio"].min()]):
        level = wording.chance_level(chance, row["metric"])
        if not wording.finite(level):
            continue
        what = labels.method_label(row["method"]).lower()
        what += " retrieval (R@1)" if row["task"] == frames.RETRIEVAL else " accuracy"
        side = side_of(row, level)
        says = {ABOVE: "is above chance", BELOW: "is below chance", NONE: "is not shown to differ from chance"}[side]
        value = wording.number(level, row["metric"])
        text = f"{_place(row, [])} {what} {says} on the test set: {_level(row)}, chance {value} %."
        findings.append(Finding(side, text, "Without a head"))
    return findings


def _noise_findings(frame: pd.DataFrame, effects: pd.DataFrame) -> list[Finding]:
    """Return the linear probe at each noise ratio against ratio 0, paired by test image where the run holds that."""
    accuracy = _accuracy(frame)
    attacks, conditions = frames.values(accuracy, "attack"), frames.conditions(accuracy)
    paired = frames.frame_of(judged(frames.records(frames.where(effects, kind="noise"))))
    findings = []
    for attack in attacks:
        start = frames.first(accuracy, attack=attack, ratio=0)
        for row in frames.records(frames.where(accuracy, attack=attack)):
            if start is None or not row["ratio"] > 0:
                continue
            item = frames.first(paired, **{name: row.get(name) for name in CELL})
            if item is None:
                found = side_of(row, start["low"], start["high"])
                against = "the intervals overlap" if found == NONE else "the intervals lie apart"
            else:
                found = item["verdict"]
                difference, low, high = (wording.number(item[end], "accuracy") for end in ("difference", "low", "high"))
                against = f"paired difference {difference} points (95 % interval {low} to {high}){_fallen(item)}"
            says = {ABOVE: "is above", BELOW: "is below", NONE: "is not shown to differ from"}[found]
            measured = f"{labels.attack_label(attack, attacks)} accuracy of {labels.method_label(row['method'])}"
            text = f"{_place(row, conditions)} the {measured} {says} that without upstream noise"
            findings.append(
                Finding(found, f"{text}: {_level(row)} against {_level(start)}; {against}.", "Upstream noise")
            )
    return findings


def headlines(results: Results) -> list[Finding]:
    """Return the findings at the head of the page, in this order: attack, chance, upstream noise, RAN, caution.

    Which figures are worded is settled by fixed rules that look at no outcome; none is worded without its interval. The
    last one says how many comparisons were made and how to read them. Empty where nothing has an interval.

    Args:
      results: the content of results.json.
    """
    with labels.labels_of([results]):
        frame = frames.rows_frame(results.get("rows"))
        downstream = frames.downstream(frame)
        compared = judged(results.get("comparisons"))
        among = frames.frame_of(compared)
        chosen = _headline_comparisons(among) if compared else []
        found = [
            *_attack_findings(downstream),
            *_chance_findings(frame, results.get("chance") or {}),
            *_noise_findings(downstream, frames.frame_of(results.get("effects"))),
        ]
        found += [Finding(item["verdict"], worded(item, among), "Between methods") for item in chosen]
        return found + _caution(compared, len(chosen))
