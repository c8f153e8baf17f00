"""Findings in words, each read off an interval; where it holds zero the finding is "no difference shown"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ranjax.evaluation import statistics
from ranjax.report import labels_text as wording
from ranjax.report import row_queries as rows_
from ranjax.report.row_queries import Row

ABOVE, BELOW, NONE = "above", "below", "none"
_DEFENCE = "ran"
_LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """One sentence with its topic and verdict: "above", "below", "none" shown, or "caution" for how to read it."""

    verdict: str
    text: str
    topic: str


def verdict(comparison: Mapping[str, Any]) -> str | None:
    """Returns "above", "below" or "none" by the interval of the difference; None without interval or ratio."""
    known = wording.finite(comparison.get("difference")) and wording.finite(comparison.get("ratio"))
    if not known or not wording.has_interval(comparison):
        return None
    if comparison["low"] > 0:
        return ABOVE
    return BELOW if comparison["high"] < 0 else NONE


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values adjusted for their number by Holm's step-down method (Holm 1979), in the given order."""
    return statistics.holm(p_values).tolist() if len(p_values) else []


def judged(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the comparisons that have an interval, each with its "verdict" and, where p is known, its "p_holm"."""
    return corrected(results.get("comparisons") or [])


def holm_by_metric(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the differences with "p_holm" where p is known, corrected over all of one metric, which are one table."""
    found = [dict(item) for item in items]
    for metric in rows_.distinct(found, "metric"):
        tested = [item for item in found if item.get("metric") == metric and wording.finite(item.get("p"))]
        for item, p in zip(tested, holm([item["p"] for item in tested])):
            item["p_holm"] = p
    return found


def corrected(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the differences that have an interval, with "alone", the verdict by the interval, "p_holm" and "verdict".

    "verdict" is "none" where the corrected p (`holm_by_metric`) is not below 0.05.
    """
    kept = holm_by_metric([{**item, "alone": verdict(item)} for item in items if verdict(item) is not None])
    for item in kept:
        item["verdict"] = item["alone"] if item.get("p_holm", 0.0) < _LEVEL else NONE
    return kept


def _where(item: Mapping[str, Any], conditions: Sequence[Any], start: bool = True) -> str:
    words = "without upstream noise" if item.get("ratio") == 0 else f"at {wording.percent(item.get('ratio'))} noise"
    if len(conditions) > 1 and item.get("ratio") != 0:
        words += f" (condition {wording.condition_label(item.get('condition'))})"
    return words[0].upper() + words[1:] if start else words


def _quantity(item: Mapping[str, Any], attacks: Sequence[Any]) -> str:
    metric = str(item.get("metric"))
    measured = f"{wording.attack_label(item.get('attack'), attacks)} {wording.metric_label(metric)}"
    return f"points of {measured}" if wording.is_percent(metric) else measured


def _on(item: Mapping[str, Any], tasks: Sequence[Any]) -> str:
    return wording.split_phrase(item.get("split")) + (f", task {item.get('task')}" if len(tasks) > 1 else "")


def worded(item: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """Returns a judged comparison as a sentence; condition, attack and task are named where they vary `among` the others."""
    metric = str(item["metric"])
    conditions, attacks, tasks = (rows_.distinct(among, field) for field in ("condition", "attack", "task"))
    conditions = rows_.distinct([other for other in among if other.get("ratio") != 0], "condition") or conditions
    first, second = wording.method_label(item["a"]), wording.method_label(item["b"])
    interval = f"{wording.number(item['low'], metric)} to {wording.number(item['high'], metric)}"
    where, on, quantity = _where(item, conditions), _on(item, tasks), _quantity(item, attacks)
    if item["verdict"] == NONE:
        measured = quantity.removeprefix("points of ")
        unit = " points" if wording.is_percent(metric) else ""
        shown = f"no difference between {first} and {second} is shown in {measured}"
        return f"{where} {shown} {on} (95 % interval {interval}{unit}{_fallen(item)})."
    size = wording.number(abs(item["difference"]), metric)
    if item["verdict"] == BELOW:
        interval = f"{wording.number(-item['high'], metric)} to {wording.number(-item['low'], metric)}"
    return f"{where} {first} is {item['verdict']} {second} by {size} {quantity} {on} (95 % interval {interval})."


def _fallen(item: Mapping[str, Any]) -> str:
    """Words for an interval that is clear of 0 where the difference is still not shown."""
    return "" if item["alone"] == item["verdict"] else "; it does not stand after correction"


_MOST_WORDED = 12


def _headline_comparisons(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """RAN against the other heads on the frozen encoder in accuracy, in domain, at the highest ratio.

    Clean and under the worst attack. A rule that looks at no outcome.
    """
    chosen = [item for item in kept if item.get("metric") == "accuracy"] or kept
    chosen = [item for item in chosen if item.get("a") == _DEFENCE] or chosen
    chosen = [item for item in chosen if item.get("split") == "test"] or chosen
    chosen = [item for item in chosen if item.get("b") in rows_.HEADS] or chosen
    ratios = [item["ratio"] for item in chosen if wording.finite(item.get("ratio"))]
    chosen = [item for item in chosen if not ratios or item.get("ratio") == max(ratios)]
    if any(item.get("attack") == "worst" for item in chosen):
        chosen = [item for item in chosen if item.get("attack") in ("none", "worst")]
    # Where that is too much to read, the first condition: the others stand in the tables.
    return (
        chosen
        if len(chosen) <= _MOST_WORDED
        else [i for i in chosen if i.get("condition") == chosen[0].get("condition")]
    )


def _caution(kept: list[dict[str, Any]], shown: int) -> list[Finding]:
    if not kept:
        return []
    above = sum(item["alone"] == ABOVE for item in kept)
    below = sum(item["alone"] == BELOW for item in kept)
    text = (
        f"{shown} of {len(kept)} comparisons are worded above, chosen by a fixed rule and not by their outcome. "
        f"Of all {len(kept)}, "
        f"{above} intervals lie above zero, {below} below and {len(kept) - above - below} hold zero. "
        f"If no two methods differed, about {max(1, round(_LEVEL * len(kept)))} of them would still miss zero by chance"
    )
    if any("p_holm" in item for item in kept):
        stand = sum(item.get("p_holm", 1.0) < _LEVEL for item in kept)
        text += f"; {stand} {'stands' if stand == 1 else 'stand'} at 5 % after Holm's correction over each metric"
    return [Finding("caution", text + ".", "Reading these findings")]


def _level(row: Row) -> str:
    metric = str(row["metric"])
    unit = " %" if wording.is_percent(metric) else ""
    low, high = (wording.number(row[end], metric) for end in ("low", "high"))
    return f"{wording.number(row['value'], metric)}{unit} (95 % interval {low} to {high})"


def _attack_findings(rows: list[Row]) -> list[Finding]:
    """What the attack does to the linear probe on the clean encoder, or to the first method there is."""
    accuracy = [row for row in rows_.pick(rows, metric="accuracy", split="test") if wording.has_interval(row)]
    accuracy = [row for row in accuracy if row["ratio"] == min(rows_.ratios(accuracy))]
    findings = []
    for method in [name for name in ("lp", *rows_.methods(accuracy)) if rows_.first(accuracy, method=name)][:1]:
        clean = rows_.first(accuracy, method=method, attack="none")
        for attack in [name for name in rows_.attacks(accuracy) if name != "none"]:
            hit = rows_.first(accuracy, method=method, attack=attack)
            if clean is None or hit is None:
                continue
            label = wording.method_label(method)
            start = f"{_where(clean, [])} {wording.attack_phrase(attack)}"
            levels = f"{_level(clean)} clean, {_level(hit)} attacked"
            if hit["high"] < clean["low"]:
                findings.append(
                    Finding(BELOW, f"{start} lowers the accuracy of {label} on the test set: {levels}.", "The attack")
                )
            elif hit["low"] > clean["high"]:
                findings.append(
                    Finding(
                        ABOVE,
                        f"{start} does not lower the accuracy of {label} on the test set: {levels}.",
                        "The attack",
                    )
                )
            else:
                findings.append(
                    Finding(
                        NONE,
                        f"{start} shows no difference in the accuracy of {label} on the test set: {levels}.",
                        "The attack",
                    )
                )
    return findings


def _chance_findings(rows: list[Row], chance: Mapping[str, Any]) -> list[Finding]:
    """Whether what needs no head, zero-shot and retrieval, is above guessing on the least noisy encoder."""
    candidates = [
        row for row in rows if row["attack"] == "none" and row["split"] == "test" and wording.has_interval(row)
    ]
    candidates = [
        row
        for row in candidates
        if (row["method"] == "zero_shot" and row["metric"] == "accuracy")
        or (row["task"] == rows_.RETRIEVAL and row["metric"] == "recall@1")
    ]
    findings = []
    for row in [row for row in candidates if row["ratio"] == min(rows_.ratios(candidates))]:
        level = wording.chance_level(chance, row["metric"])
        if not wording.finite(level):
            continue
        what = wording.method_label(row["method"]).lower()
        what += " retrieval (R@1)" if row["task"] == rows_.RETRIEVAL else " accuracy"
        found = ABOVE if row["low"] > level else BELOW if row["high"] < level else NONE
        says = {ABOVE: "is above chance", BELOW: "is below chance", NONE: "is not shown to differ from chance"}[found]
        value = wording.number(level, row["metric"])
        text = f"{_where(row, [])} {what} {says} on the test set: {_level(row)}, chance {value} %."
        findings.append(Finding(found, text, "Without a head"))
    return findings


def _noise_findings(rows: list[Row], effects: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The linear probe at each noise ratio against ratio 0, paired by test image where the run holds that."""
    accuracy = [row for row in rows_.pick(rows, metric="accuracy", split="test") if wording.has_interval(row)]
    method = next((name for name in ("lp", *rows_.methods(accuracy)) if rows_.pick(accuracy, method=name)), None)
    paired = rows_.pick(corrected(rows_.pick(effects, kind="noise")), metric="accuracy", split="test", method=method)
    accuracy = rows_.pick(accuracy, method=method)
    attacks, conditions = rows_.attacks(accuracy), rows_.conditions(accuracy)
    findings = []
    for attack in attacks:
        measured = f"{wording.attack_label(attack, attacks)} accuracy of {wording.method_label(method)}"
        start = rows_.first(accuracy, attack=attack, ratio=0)
        for row in [row for row in rows_.pick(accuracy, attack=attack) if row["ratio"] > 0 and start is not None]:
            item = rows_.first(paired, condition=row["condition"], ratio=row["ratio"], attack=attack, task=row["task"])
            if item is None:
                found = ABOVE if row["low"] > start["high"] else BELOW if row["high"] < start["low"] else NONE
                overlap = "the intervals overlap" if found == NONE else "the intervals lie apart"
                levels = f"{_level(row)} against {_level(start)}; {overlap}"
            else:
                found = item["verdict"]
                levels = f"{_level(row)} against {_level(start)}; paired difference {_points(item)}{_fallen(item)}"
            says = {ABOVE: "is above", BELOW: "is below", NONE: "is not shown to differ from"}[found]
            text = f"{_where(row, conditions)} the {measured} {says} that without upstream noise: {levels}."
            findings.append(Finding(found, text, "Upstream noise"))
    return findings


def _points(item: Mapping[str, Any]) -> str:
    value, low, high = (wording.number(item[name], str(item["metric"])) for name in ("difference", "low", "high"))
    return f"{value} points (95 % interval {low} to {high})"


def headlines(results: Mapping[str, Any]) -> list[Finding]:
    """Returns the findings at the head of the page, in this order: attack, chance, upstream noise, RAN, caution.

    Which figures are worded is settled by fixed rules that look at no outcome; none is worded without its interval.
    """
    rows = rows_.pooled(results.get("rows") or [])
    kept = judged(results)
    chosen = _headline_comparisons(kept)
    downstream = rows_.downstream(rows)
    found = (
        _attack_findings(downstream)
        + _chance_findings(rows, results.get("chance") or {})
        + _noise_findings(downstream, results.get("effects") or [])
    )
    found += [Finding(item["verdict"], worded(item, kept), "Between methods") for item in chosen]
    return found + _caution(kept, len(chosen))


def findings(results: Mapping[str, Any]) -> list[str]:
    """Returns the worded findings of a run.

    Args:
      results: the content of results.json.

    Returns:
      Sentences. Each has its 95 % interval and says "above", "below" or that no difference is shown; the last says
      how many comparisons were made and what that means. Empty where nothing has an interval.
    """
    return [finding.text for finding in headlines(results)]
