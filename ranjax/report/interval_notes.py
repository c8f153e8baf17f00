"""Notes on intervals: the choice of few labels that they hold fixed, and the patients or pictures that they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ranjax.report.stored_results import Results, Row
from ranjax.report.wording import capitalized, finite, has_interval, is_percent, number, percent, split_label


def few_labels(results: Results) -> str:
    """Return the number of labels of a run that had few, and what its intervals hold fixed; empty where all were
    used.
    """
    adapt = (results.get("config") or {}).get("adapt") or {}
    of_methods = [method["data"] for method in results.get("methods") or [] if isinstance(method.get("data"), Mapping)]
    data: Mapping[str, object] = of_methods[0] if of_methods else {}
    shots, share = (data.get(name, adapt.get(name)) for name in ("shots", "share"))
    if finite(shots) and shots > 0:
        few = f"{shots:g} labelled example{'s' if shots != 1 else ''} of each class"
    elif finite(share) and 0 < share < 1:
        few = f"{percent(share)} of the labelled examples"
    else:
        return ""
    count = data.get("examples")
    few += f" ({count:,} in all)" if finite(count) else ""
    return (
        f"Few labels: every method and head of this run was fitted to the same {few}. Intervals and tests hold that "
        "choice fixed: they do not say what another choice would give, which runs that differ in their seed do."
    )


def clusters(results: Results) -> str:
    """Return the clusters that are drawn whole, by split; empty where every image stands alone."""
    found = results.get("independent") or {}
    if not found:
        return ""
    counts = ", ".join(f"{split_label(split)} {count}" for split, count in found.items())
    drawn = " or ".join(name for name in ("patients", "pictures") if any(name in str(one) for one in found.values()))
    return f"{capitalized(counts)}: intervals and tests draw whole {drawn}, and n counts {drawn}."


def least_shown(items: Sequence[Row]) -> str:
    """Return the smallest differences that a table could have shown: half the widths of its intervals, in words.

    Of a table of shares; empty where no item has an interval.
    """
    halves = [(item["high"] - item["low"]) / 2 for item in items if has_interval(item) and is_percent(item["metric"])]
    if not halves:
        return ""
    least, most = (number(half, "accuracy") for half in (min(halves), max(halves)))
    corrected = ", and more where p is corrected" if any("p_holm" in item for item in items) else ""
    span = f"{least} points" if least == most else f"{least} to {most} points, from line to line"
    start = "The smallest difference that this table could have shown is"
    return f"{start} {span} (half the width of an interval){corrected}."
