"""Groups of examples by what is known of them (side, severity, sex, age, view), and how the worst of them fares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ranjax.errors import ConfigError, DataError, nearest
from ranjax.evaluation import statistics
from ranjax.evaluation.rows import Cell, Row, interval_row, mean_row

USUAL = ("side", "severity", "sex", "age", "view")
OF_FINDINGS = ("kind", "side", "lobe", "severity")
UNKNOWN = "unknown"
_AGES = ((40, "under 40"), (60, "40 to 59"), (200, "60 and over"))


def columns(records: Sequence[Mapping[str, Any]], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns to group by: those wanted, or of `USUAL` those that the records carry.

    Args:
      records: what is known of each example; generated radiographs carry "findings", a list of mappings.
      wanted: names, or none for the usual ones.

    Raises:
      ConfigError: a wanted column that no record carries.
    """
    present = {name for record in records for name in record}
    if "findings" in present and any(isinstance(record.get("findings"), list) for record in records):
        present |= set(OF_FINDINGS)
    for name in wanted:
        if name not in present:
            raise ConfigError("evaluate.groups", name, f"one of {', '.join(sorted(present))}", nearest(name, present))
    return tuple(wanted) or tuple(name for name in USUAL if name in present)


def names(records: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """The group of each example, str[N]: ages in three spans, "several" for several findings, "unknown" for a gap."""
    return np.array([_name(record, column) for record in records], dtype=str)


def _name(record: Mapping[str, Any], column: str) -> str:
    findings = record.get("findings")
    if column in OF_FINDINGS and isinstance(findings, list):
        if len(findings) != 1:
            return "several" if findings else "no finding"
        return str(findings[0].get(column) or "none")
    value = record.get(column)
    if value in (None, ""):
        return UNKNOWN
    if column == "age":
        return _age(value)
    return str(value)


def _age(value: Any) -> str:
    try:
        # NIH's first release writes 58 years as "058Y".
        years = float(str(value).rstrip("Yy"))
    except ValueError:
        return UNKNOWN
    return next((words for limit, words in _AGES if 0 <= years < limit), UNKNOWN)


def group_rows(
    cell: Cell, hits: Any, groups: Any, column: str, smallest: int = 10, resamples: int = 1000, seed: int = 0
) -> list[Row]:
    """Accuracy in each group of at least `smallest` examples, and the worst of them, with 95 % intervals.

    The worst group's interval takes the minimum anew in every resample (drawn within each group), so it says how low
    some group lies, not how low the named one does. Rows: metrics ``"accuracy/side=left"`` and ``"worst_group/side"``.

    Args:
      cell: of the method and split.
      hits: bool[N] or bool[S, N] of S seeds.
      groups: str[N]; "unknown" is no group.
      column: its name.

    Raises:
      DataError: shapes that do not fit.
    """
    hits = np.atleast_2d(np.asarray(hits, np.float64))
    groups = np.asarray(groups, dtype=str)
    if groups.shape != hits.shape[1:]:
        raise DataError(f"groups of shape {groups.shape} do not fit hits of shape {hits.shape}")
    members = {str(g): np.flatnonzero(groups == g) for g in np.unique(groups) if g != UNKNOWN}
    members = {name: index for name, index in members.items() if len(index) >= smallest}
    rows = [
        mean_row(cell, f"accuracy/{column}={name}", hits[:, index], resamples, seed) for name, index in members.items()
    ]
    if len(members) < 2:
        return rows
    draws = np.stack([statistics.resampled_means(hits[:, index], resamples, seed) for index in members.values()])
    value = min(float(hits[:, index].mean()) for index in members.values())
    low, high = np.quantile(draws.min(0), [0.025, 0.975])
    count = sum(len(index) for index in members.values())
    # No group can be worse than the worst: where none of its answers is right, its own bound is what there is.
    high = max(float(high), min(row["high"] for row in rows) if value == 0 else value)
    found = statistics.Interval(value, min(float(low), value), high, count)
    return [interval_row(cell, f"worst_group/{column}", found), *rows]
