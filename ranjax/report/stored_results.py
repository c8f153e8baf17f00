"""Reading results.json, and pooling rows of head seeds into one row a cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from ranjax.core.errors import DataError
from ranjax.report import wording

SCHEMA = 1
CELL = ("condition", "ratio", "method", "task", "split", "attack", "metric")
"""The fields that identify a figure of a run."""
Document = dict[str, Any]
Results = Mapping[str, Any]
"""The content of a results.json, or of a run.json."""


class Row(TypedDict, total=False):
    """One item of a list in results.json. Rows of figures have `FIELDS`; comparisons and effects a "difference"."""

    condition: str
    ratio: float
    method: str
    a: str
    b: str
    kind: str
    task: str
    split: str
    attack: str
    features: str
    seed: int | None
    metric: str
    group: str
    run: str
    value: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float
    n: int
    seeds: int
    runs: int
    verdict: str
    alone: str
    claim: str
    measured: str
    wanted: int
    endpoint: str
    primary: bool
    margin: float
    heads: Mapping[str, Any]
    first: Mapping[str, Any]
    share: Mapping[str, Any] | None
    chance: float | None
    radius: float


def load(path: Path) -> Document:
    """Read a JSON document; the field "arm" of earlier versions is read as "condition".

    Raises:
      DataError: the file is absent, is not JSON, or does not hold an object.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), object_hook=_renamed)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds {type(document).__name__}, an object is needed.")
    return document


def _renamed(item: Document) -> Document:
    return {"condition" if name == "arm" else name: value for name, value in item.items()}


def load_results(path: Path) -> Document:
    """Read results.json and check its schema.

    Raises:
      DataError: as `load`, or the schema is not the one this version writes.
    """
    results = load(path)
    if results.get("schema", SCHEMA) != SCHEMA:
        raise DataError(f"{path} has schema {results['schema']!r}; this version reads schema {SCHEMA}.")
    return results


def pooled(rows: Iterable[Row]) -> list[Row]:
    """Return one row a cell: the one over all seeds or, where there is none, its seeds' mean without interval."""
    cells: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if wording.finite(row.get("value")) and wording.finite(row.get("ratio")):
            cells.setdefault(tuple(row.get(field) for field in CELL), []).append(row)
    return [_over_seeds(cell) for cell in cells.values()]


def _over_seeds(cell: Sequence[Row]) -> Row:
    overall = [row for row in cell if row.get("seed") is None]
    if overall:
        return overall[0]
    mean = sum(row["value"] for row in cell) / len(cell)
    return cast(Row, {**cell[0], "seed": None, "value": mean, "low": None, "high": None})
