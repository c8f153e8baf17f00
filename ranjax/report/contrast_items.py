"""The contrasts that results.json holds: found by their name, taken over several runs, and put into words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from ranjax.evaluation import statistics
from ranjax.report import entry_labels as labels
from ranjax.report import wording
from ranjax.report.claim_table import Endpoint
from ranjax.report.stored_results import Results, Row

Items = Mapping[str, Row]
"""Contrasts by the name of their endpoint."""


def found_in(results: Results) -> Items:
    """Return the contrasts of a run, but for those on a split of one class, where accuracy says nothing."""
    alone = _of_one_class(results)
    items = (item for item in results.get("contrasts") or [] if wording.finite(item.get("difference")))
    return {str(item["endpoint"]): item for item in items if item.get("split") not in alone}


def _of_one_class(results: Results) -> set[str]:
    """Return the splits of one class: accuracy there is how often a method names it, and speaks to no claim."""
    areas = [row for row in results.get("rows") or [] if row.get("metric") == "macro_auroc"]
    splits = {str(row.get("split")) for row in areas}
    return splits - {str(row.get("split")) for row in areas if wording.finite(row.get("value"))}


def over_runs(tables: Sequence[Items], endpoint: Endpoint) -> Row | None:
    """Return one contrast of several runs as one; None where a run lacks it."""
    items = [table[endpoint.name] for table in tables if endpoint.name in table]
    return pooled(items) if len(items) == len(tables) else None


def pooled(items: Sequence[Row]) -> Row:
    """Return the same difference of several runs as one: mean, Student's 95 % interval over runs, and its p value.

    One item comes back as it is. The runs are taken to vary by their own sampling error at least
    (`ranjax.evaluation.statistics.student`). p is against the item's margin.
    """
    if len(items) == 1:
        return items[0]
    margin = items[0].get("margin", 0.0)
    own = statistics.sampling_error([(item["low"], item["high"]) for item in items if wording.has_interval(item)])
    mean, low, high, p, _ = statistics.student([item["difference"] - margin for item in items], least=own)
    values = [item["difference"] for item in items]
    spread = statistics.student(values, least=own).effect
    effect = spread if math.isfinite(spread) else None
    found = {
        **{"difference": mean + margin, "low": low + margin, "high": high + margin, "p": p, "effect": effect},
        "n": len(values),
        "runs": len(values),
    }
    return cast(Row, {**items[0], **found, **_parts_over_runs(items)})


def _parts_over_runs(items: Sequence[Row]) -> dict[str, object]:
    """Return what stands beside a contrast, over runs: the first term with its interval, the share, the heads."""
    found: dict[str, object] = {}
    firsts = [item["first"] for item in items if item.get("first")]
    if len(firsts) == len(items):
        own = statistics.sampling_error([(one["low"], one["high"]) for one in firsts])
        mean, low, high, _, _ = statistics.student([one["value"] for one in firsts], least=own)
        found["first"] = {"value": mean, "low": max(low, 0.0), "high": min(high, 1.0)}
    levels = [level for item in items if wording.finite(level := item.get("chance"))]
    if levels:
        found["chance"] = max(levels)
    shares = [share for item in items if (share := item.get("share"))]
    if len(shares) == len(items):
        # The share of the means, as the mean of shares of small damages is anything.
        wholes = [item["difference"] / share["value"] for item, share in zip(items, shares) if share["value"]]
        whole = float(np.mean(wholes)) if len(wholes) == len(items) else 0.0
        mean = float(np.mean([item["difference"] for item in items]))
        found["share"] = {"value": mean / whole if whole > 0 else None, "low": None, "high": None}
    heads = [item["heads"] for item in items if item.get("heads")]
    if heads:
        names = {role: dict.fromkeys(one[role] for one in heads if role in one) for role in heads[0]}
        found["heads"] = {role: list(each) if len(each) > 1 else next(iter(each)) for role, each in names.items()}
    return found


def measured(endpoint: Endpoint, item: Row) -> str:
    """Return what a contrast is, in words, with the heads and the noise ratio that stand for its roles."""
    words = filled(endpoint.measured, item)
    attacked = labels.attack_label(item.get("attack"), ["one", "another"])
    return f"{words}: {wording.metric_label(item['metric'])}, {wording.split_label(item.get('split'))}, {attacked}"


def filled(words: str, item: Row) -> str:
    """Return words with the heads and the noise ratio of a contrast in place of {ROLE} and {ratio}."""
    shown = {
        role: " or ".join(map(labels.method_label, [names] if isinstance(names, str) else names))
        for role, names in (item.get("heads") or {}).items()
    }
    return words.format_map(_Roles({"ratio": wording.percent(item.get("ratio")), **shown}))


class _Roles(dict[str, str]):
    """The words of roles; a role that results of an earlier version do not name keeps its own."""

    def __missing__(self, role: str) -> str:
        return role
