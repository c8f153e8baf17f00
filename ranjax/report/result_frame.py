"""Results as pandas frames: choosing rows, and the order in which conditions, methods, splits and attacks are shown.

Every column is of dtype object, so that a number stays as it was read and None stays None.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ranjax.report import entry_labels as labels
from ranjax.report import wording
from ranjax.report.stored_results import FIELDS, Row, pooled

RETRIEVAL = "retrieval"
SENTENCES = "retrieval_sentences"
APART = ("retrieval", "groups", "corrupted", "questions")
"""Prefixes of the tasks that are no classification of single, uncorrupted test images."""
AT_RADIUS = "@"
"""In an attack's name, the sign before the radius of a point of a curve."""
_COLUMNS = (*FIELDS, "group", "features", "kind", "a", "b", "difference", "p", "effect", "checks", "bins", "counts")
_COLUMNS += ("points", "labels", "singular_values")


def frame_of(items: Iterable[Mapping[str, object]] | None) -> pd.DataFrame:
    """Return a frame with a row an item, with the usual columns and those that any item has; absent values are None."""
    items = list(items or ())
    columns = list(dict.fromkeys([*_COLUMNS, *(name for item in items for name in item)]))
    return pd.DataFrame([[item.get(name) for name in columns] for item in items], columns=columns, dtype=object)


def rows_frame(rows: Iterable[Row] | None) -> pd.DataFrame:
    """Return the frame of the rows of results.json, pooled over seeds."""
    return frame_of(pooled(rows or ()))


def records(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a frame as dictionaries."""
    return frame.to_dict("records")


def where(frame: pd.DataFrame, **fields: object) -> pd.DataFrame:
    """Return the rows whose fields equal `fields`."""
    for name, value in fields.items():
        frame = frame[frame[name] == value]
    return frame


def first(frame: pd.DataFrame, **fields: object) -> Row | None:
    """Return the first row whose fields equal `fields`, or None."""
    found = where(frame, **fields)
    return records(found.head(1))[0] if len(found) else None


def with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose interval has two ends that are numbers."""
    return frame.loc[[wording.has_interval(row) for row in records(frame)]]


def with_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose noise ratio is a number."""
    return frame.loc[[wording.finite(ratio) for ratio in frame["ratio"]]]


def distinct(frame: pd.DataFrame, field: str) -> list[Any]:
    """Return the different values of a field in order of first appearance."""
    return list(dict.fromkeys(frame[field]))


def _known_first(names: Iterable[Any], known: Sequence[Hashable]) -> list[Any]:
    names = list(dict.fromkeys(names))
    return [name for name in known if name in names] + [name for name in names if name not in known]


def methods(frame: pd.DataFrame) -> list[str]:
    """Return the methods of the rows, known ones first in their usual order."""
    return labels.in_usual_order(frame["method"])


def splits(frame: pd.DataFrame) -> list[str]:
    """Return the splits of the rows, in domain first."""
    return _known_first(frame["split"], list(wording.SPLITS))


def attacks(frame: pd.DataFrame) -> list[str]:
    """Return the attacks of the rows, "none" first."""
    return _known_first(frame["attack"], ["none"])


def metrics(frame: pd.DataFrame) -> list[str]:
    """Return the metrics of the rows, known ones first in their usual order."""
    return _known_first(frame["metric"], list(wording.METRICS))


def features(frame: pd.DataFrame) -> list[str]:
    """Return the kinds of features of the rows, "clean" first."""
    return _known_first(frame["features"], ["clean"])


def ratios(frame: pd.DataFrame) -> list[float]:
    """Return the noise ratios of the rows, ascending."""
    return sorted(set(frame["ratio"]))


def conditions(frame: pd.DataFrame) -> list[str]:
    """Return the conditions with noise; those without any, where no row has noise."""
    return distinct(frame[frame["ratio"] > 0], "condition") or distinct(frame, "condition")


def of_condition(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Return the rows of a condition together with those at ratio 0, where every condition begins."""
    return frame[(frame["condition"] == condition) | (frame["ratio"] == 0)]


def downstream(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of classification of test images, attacked at the main radius or not at all."""
    apart = frame["task"].astype(str).str.startswith(APART)
    return frame[~apart & ~frame["attack"].astype(str).str.contains(AT_RADIUS)]


def columns(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the (split, attack) pairs that the rows have, in domain first, clean first."""
    present = set(zip(frame["split"], frame["attack"]))
    return [(split, attack) for split in splits(frame) for attack in attacks(frame) if (split, attack) in present]


def ordered(frame: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Return the rows sorted by the fields in turn, each in the order in which its values are shown."""
    for field in reversed(fields):
        values = _USUAL[field](frame) if field in _USUAL else distinct(frame, field)
        places = {value: place for place, value in enumerate(values)}
        frame = frame.iloc[sorted(range(len(frame)), key=[places[value] for value in frame[field]].__getitem__)]
    return frame


_USUAL: dict[str, Callable[[pd.DataFrame], list[Any]]] = {
    "method": methods,
    "metric": metrics,
    "features": features,
    "split": splits,
    "attack": attacks,
    "ratio": ratios,
}


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
