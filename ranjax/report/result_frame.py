"""Results as pandas frames: choosing rows, and the order in which conditions, methods, splits and attacks are shown.

Every column is of dtype object, so that a number stays as it was read and None stays None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ranjax.evaluation.result_rows import FIELDS
from ranjax.models.controls import CONTROLS
from ranjax.report import entry_labels as labels
from ranjax.report import wording
from ranjax.report.stored_results import Row, pooled

RETRIEVAL = "retrieval"
SENTENCES = "retrieval_sentences"
APART = ("retrieval", "groups", "corrupted", "questions", "zero_shot_words")
"""Prefixes of the tasks that are no classification of single, uncorrupted test images."""
AT_RADIUS = "@"
"""In an attack's name, the sign before the radius of a point of a curve."""
_FIRST = {"split": wording.SPLITS, "attack": ("none",), "features": ("clean",), "metric": wording.METRICS}
_COLUMNS = (*FIELDS, "group", "features", "kind", "a", "b", "difference", "p", "effect", "checks", "bins", "counts")
_COLUMNS += ("points", "labels", "singular_values")


def frame_of(items: Iterable[Mapping[str, object]] | None) -> pd.DataFrame:
    """Return a frame with a row an item, with the usual columns and those that any item has; absent values are None."""
    items = list(items or ())
    columns = list(dict.fromkeys([*_COLUMNS, *(name for item in items for name in item)]))
    return pd.DataFrame([[item.get(name) for name in columns] for item in items], columns=columns, dtype=object)


def rows_frame(rows: Iterable[Row] | None) -> pd.DataFrame:
    """Return the frame of the rows of upstream conditions in results.json, pooled over seeds; controls are apart."""
    return frame_of(pooled(row for row in rows or () if row.get("condition") not in CONTROLS))


def controls_frame(rows: Iterable[Row] | None) -> pd.DataFrame:
    """Return the frame of the rows of control encoders in results.json, pooled over seeds."""
    return frame_of(pooled(row for row in rows or () if row.get("condition") in CONTROLS))


def records(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a frame as dictionaries."""
    return frame.to_dict("records")


def where(frame: pd.DataFrame, **fields: object) -> pd.DataFrame:
    """Return the rows that have these values of fields."""
    for name, value in fields.items():
        frame = frame[frame[name] == value]
    return frame


def first(frame: pd.DataFrame, **fields: object) -> Row | None:
    """Return the first row that has these values of fields, or None."""
    found = where(frame, **fields)
    return records(found.head(1))[0] if len(found) else None


def with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with an interval, its two ends numbers."""
    return frame.loc[[wording.has_interval(row) for row in records(frame)]]


def with_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a noise ratio that is a number."""
    return frame.loc[[wording.finite(ratio) for ratio in frame["ratio"]]]


def values(frame: pd.DataFrame, field: str) -> list[Any]:
    """Return the different values of a field in the order in which they are shown.

    Ratios ascend, methods stand as in their table, and "none", "clean", in domain and the usual metrics come first; all
    others stand in order of first appearance.
    """
    found = list(dict.fromkeys(frame[field]))
    if field == "ratio":
        return sorted(found)
    if field == "method":
        return labels.in_usual_order(found)
    first = [value for value in _FIRST.get(field, ()) if value in found]
    return first + [value for value in found if value not in first]


def conditions(frame: pd.DataFrame) -> list[str]:
    """Return the conditions with noise; those without any, where no row has noise."""
    return values(frame[frame["ratio"] > 0], "condition") or values(frame, "condition")


def of_condition(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Return the rows of a condition together with those at ratio 0, where every condition begins."""
    return frame[(frame["condition"] == condition) | (frame["ratio"] == 0)]


def downstream(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of classification of test images, attacked at the main radius or not at all."""
    apart = frame["task"].astype(str).str.startswith(APART)
    return frame[~apart & ~frame["attack"].astype(str).str.contains(AT_RADIUS)]


def columns(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the (split, attack) pairs that the rows have, in domain first, clean first."""
    pairs = ordered(frame, ["split", "attack"])
    return list(dict.fromkeys(zip(pairs["split"], pairs["attack"])))


def ordered(frame: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Return the rows sorted by the fields in turn, each in the order of its `values`."""
    for field in reversed(fields):
        places = {value: place for place, value in enumerate(values(frame, field))}
        frame = frame.iloc[sorted(range(len(frame)), key=[places[value] for value in frame[field]].__getitem__)]
    return frame


def families(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return (heading, methods) for each plot: all methods in one, or where they are many, in two parts.

    Zero-shot and RAN stand in both parts, so that the others can be compared with them.
    """
    if len(names) <= _MOST_IN_A_PANEL:
        return [("", list(names))]
    heads = [name for name in names if labels.is_head(name)]
    others = [name for name in names if not labels.is_head(name) or name in ("zero_shot", "ran")]
    return [("Heads on the frozen encoder", heads), ("Into the encoder, or at test time", others)]


_MOST_IN_A_PANEL = 7
