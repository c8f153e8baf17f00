"""Choosing rows: which conditions, methods, splits and attacks a run has, in the order in which they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranjax.core.errors import DataError
from ranjax.methods.table import METHODS
from ranjax.report import labels_text as wording

Row = Mapping[str, Any]
FIELDS = ("condition", "ratio", "method", "task", "split", "attack", "seed", "metric", "value", "low", "high", "n")
RETRIEVAL = "retrieval"
SENTENCES = "retrieval_sentences"
APART = ("retrieval", "groups", "corrupted", "questions")
"""How tasks begin that are no classification of single images, or not of the test images as they are."""
AT = "@"
"""In an attack's name, what stands before the radius of a point of a curve."""
_CELL = ("condition", "ratio", "method", "task", "split", "attack", "metric")
SCHEMA = 1


def load(path: Path) -> dict[str, Any]:
    """Reads a JSON document.

    Raises:
      DataError: the file is absent, is not JSON, or does not hold an object.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds {type(document).__name__}, an object is needed.")
    return document


def load_results(path: Path) -> dict[str, Any]:
    """Reads results.json and checks its schema.

    Raises:
      DataError: as `load`, or the schema is not the one this version writes.
    """
    results = load(path)
    if results.get("schema", SCHEMA) != SCHEMA:
        raise DataError(f"{path} has schema {results['schema']!r}; this version reads schema {SCHEMA}.")
    return results


def pooled(rows: Iterable[Row]) -> list[Row]:
    """Returns one row a cell: the one over all seeds or, where there is none, its seeds' mean without interval."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if wording.finite(row.get("value")) and wording.finite(row.get("ratio")):
            cells.setdefault(tuple(row.get(field) for field in _CELL), []).append(row)
    chosen: list[Row] = []
    for cell in cells.values():
        overall = [row for row in cell if row.get("seed") is None]
        if overall:
            chosen.append(overall[0])
        else:
            mean = sum(row["value"] for row in cell) / len(cell)
            chosen.append({**cell[0], "seed": None, "value": mean, "low": None, "high": None})
    return chosen


def pick(rows: Iterable[Row], **where: Any) -> list[Row]:
    """Returns the rows whose fields equal `where`."""
    return [row for row in rows if all(row.get(field) == value for field, value in where.items())]


def first(rows: Iterable[Row], **where: Any) -> Row | None:
    """Returns the first row whose fields equal `where`, or None."""
    found = pick(rows, **where)
    return found[0] if found else None


def is_ablation(item: Mapping[str, Any]) -> bool:
    """Whether a row, comparison or list entry is about RAN without one of its terms."""
    return any(item.get(field) in _ABLATIONS for field in ("method", "a", "b"))


def left_out(name: str) -> str:
    """Returns the part of RAN that a method leaves out, e.g. "mse"; the name itself for another one."""
    return METHODS[name].leaves_out if name in METHODS else name


def distinct(rows: Iterable[Row], field: str) -> list[Any]:
    """Returns the different values of a field in order of first appearance."""
    return list(dict.fromkeys(row.get(field) for row in rows))


def _ordered(names: Iterable[Any], known: Sequence[Any]) -> list[Any]:
    names = list(dict.fromkeys(names))
    return [name for name in known if name in names] + [name for name in names if name not in known]


def methods(rows: Iterable[Row]) -> list[str]:
    """Returns the methods of the rows, known ones first in their usual order."""
    return _ordered((row.get("method") for row in rows), list(wording.METHODS))


_ABLATIONS = tuple(name for name, method in METHODS.items() if method.leaves_out)
HEADS = tuple(
    name for name, method in METHODS.items() if method.family in ("zero_shot", "head") and not method.leaves_out
)
_MOST_IN_A_PANEL = 7


def families(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns (heading, methods) for what is drawn together: all of them, or where they are many, in two parts.

    Zero-shot and RAN stand in both parts, so that each can be held against them.
    """
    if len(names) <= _MOST_IN_A_PANEL:
        return [("", list(names))]
    heads = [name for name in names if name in HEADS]
    others = [name for name in names if name not in HEADS or name in ("zero_shot", "ran")]
    return [("Heads on the frozen encoder", heads), ("Into the encoder, or at test time", others)]


def splits(rows: Iterable[Row]) -> list[str]:
    """Returns the splits of the rows, in domain first."""
    return _ordered((row.get("split") for row in rows), list(wording.SPLITS))


def attacks(rows: Iterable[Row]) -> list[str]:
    """Returns the attacks of the rows, "none" first."""
    return _ordered((row.get("attack") for row in rows), ["none"])


def ratios(rows: Iterable[Row]) -> list[float]:
    """Returns the noise ratios of the rows, ascending."""
    return sorted({row["ratio"] for row in rows})


def conditions(rows: Iterable[Row]) -> list[str]:
    """Returns the conditions with noise; those without any, where no row has noise."""
    rows = list(rows)
    noisy = distinct([row for row in rows if row["ratio"] > 0], "condition")
    return noisy or distinct(rows, "condition")


def of_condition(rows: Iterable[Row], condition: str) -> list[Row]:
    """Returns the rows of a condition together with those at ratio 0, where every condition begins."""
    return [row for row in rows if row.get("condition") == condition or row.get("ratio") == 0]


def downstream(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of classification of test images, attacked at the main radius or not at all."""
    return [
        row for row in rows if not str(row.get("task")).startswith(APART) and AT not in str(row.get("attack") or "")
    ]


def columns(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Returns the (split, attack) pairs that the rows have, in domain first, clean first."""
    rows = list(rows)
    present = {(row.get("split"), row.get("attack")) for row in rows}
    return [(split, attack) for split in splits(rows) for attack in attacks(rows) if (split, attack) in present]
