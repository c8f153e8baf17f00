"""Result rows: one figure each, with where it comes from and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ranjax.core.errors import DataError
from ranjax.evaluation import bootstrap as resampled
from ranjax.evaluation import metrics, statistics

FIELDS = ("condition", "ratio", "method", "task", "split", "attack", "seed", "metric", "value", "low", "high", "n")
Row = dict[str, Any]


class Cell(NamedTuple):
    """Where figures come from; `seed` None for what has none or is over all seeds."""

    condition: str
    ratio: float
    method: str
    task: str
    split: str
    attack: str = "none"
    seed: int | None = None


def row(cell: Cell, metric: str, value: float, low: float | None = None, high: float | None = None, n: int = 0) -> Row:
    """One row of results.json; what is not finite becomes None, as JSON has no NaN."""

    def number(x: float | None) -> float | None:
        return None if x is None or not math.isfinite(x) else float(x)

    if not metric:
        raise DataError(f"a row of {cell} needs the name of its metric")
    figures = {"metric": metric, "value": number(value), "low": number(low), "high": number(high), "n": int(n)}
    seed = None if cell.seed is None else int(cell.seed)
    return {**cell._asdict(), "ratio": float(cell.ratio), "seed": seed, **figures}


def interval_row(cell: Cell, metric: str, interval: statistics.Interval) -> Row:
    """`row` of a figure with its interval."""
    return row(cell, metric, *interval)


def classification_rows(
    cell: Cell,
    logits: Any,
    labels: Any,
    seeds: Sequence[int] = (),
    *,
    class_names: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    owners: Any = None,
) -> list[Row]:
    """Accuracy, balanced accuracy, macro and per-class AUROC and ECE, over all seeds and for each of those named.

    Every row has a 95 % bootstrap interval over examples, stratified by class but for accuracy; those over several
    seeds have one over examples and seeds jointly. ECE's is reflected, and an AUROC or balanced accuracy of 0 or 1 has
    the bound of its rarest class (:func:`statistics.bootstrap_metric`).

    Args:
      cell: without a seed.
      logits: [N, C], or [S, N, C] of S heads.
      labels: i[N].
      seeds: S names of the heads, or none.
      class_names: C names, for rows ``"auroc/<name>"`` over all seeds; none: no such rows.
      resamples, seed: of the bootstrap.
      owners: i[N], what examples belong to that are not independent, e.g. the image of each question: resamples draw
        whole owners (and are not stratified), and n counts owners.
    """
    stack = heads_first(logits)
    if stack.ndim != 3 or (len(seeds) and len(seeds) != len(stack)):
        raise DataError(f"logits [N, C] or [S, N, C] with S = {len(seeds)} seeds are needed, got {np.shape(logits)}")
    labels = np.asarray(labels)
    check_names(class_names, stack)
    hits = np.stack([metrics.correct(one, labels) for one in stack])
    probabilities = np.stack([metrics.softmax(one) for one in stack])
    confidence = np.minimum(probabilities.max(2), 1.0)
    counts = draws(len(labels), resamples, seed, labels if owners is None else None, owners)
    areas = [resampled.auroc_each(counts, one, labels) for one in probabilities]
    tables = {
        "balanced_accuracy": [resampled.balanced_accuracy(counts, one, labels) for one in hits],
        "macro_auroc": [resampled.macro_auroc(one) for one in areas],
        "ece": [resampled.ece(counts, *one) for one in zip(confidence, hits)],
    }
    per_class = {f"auroc/{name}": [one[:, c] for one in areas] for c, name in enumerate(class_names)}
    kinds = labels[:, None] == np.arange(stack.shape[2])[None]
    rarest = of_rarest(kinds, class_names, owners)
    # Recalls that are all 0: the bound on their mean is largest where all classes are as rare, so it is that of all.
    present = kinds.any(0)
    rarest["balanced_accuracy"] = int(present.sum()) * min(_independent(kind, owners) for kind in kinds.T[present])
    return rows_by_seed(cell, seeds, {"accuracy": hits}, tables, per_class, resamples, seed, owners, rarest)


def of_rarest(labels: np.ndarray, class_names: Sequence[str], owners: Any = None) -> dict[str, int]:
    """How many examples (owners) there are of the rarer kind, those with a class or those without, by metric.

    Args:
      labels: bool[N, C].
      class_names: of the metrics ``"auroc/<name>"``; the other metrics have the least over all classes.
      owners: i[N], or None.
    """

    each = [min(_independent(kind, owners), _independent(~kind, owners)) for kind in labels.T]
    least = min((few for few in each if few), default=0)
    found = {f"auroc/{name}": few for name, few in zip(class_names, each)}
    return found | dict.fromkeys(("balanced_accuracy", "macro_auroc", "map"), least)


def _independent(chosen: np.ndarray, owners: Any) -> int:
    """How many examples (owners) those chosen, bool[N], are of."""
    return statistics.count_owners(int(chosen.sum()), None if owners is None else np.asarray(owners)[chosen])


def heads_first(logits: Any) -> np.ndarray:
    """Logits [N, C] of one head, or [S, N, C] of S, as f64[S, N, C]."""
    stack = np.asarray(logits, np.float64)
    return stack[None] if stack.ndim == 2 else stack


def check_names(class_names: Sequence[str], stack: np.ndarray) -> None:
    """Raises DataError where names are given, but not one for each class of logits [S, N, C]."""
    if class_names and len(class_names) != stack.shape[2]:
        raise DataError(f"{len(class_names)} class names for {stack.shape[2]} classes")


def draws(count: int, resamples: int, seed: int, strata: Any = None, owners: Any = None) -> np.ndarray:
    """How often each of `count` examples is drawn, f64[1 + resamples, count]; first each once: the figure itself."""
    return np.concatenate([np.ones((1, count)), statistics.draw_counts(count, resamples, seed, strata, owners)])


def rows_by_seed(
    cell: Cell,
    seeds: Sequence[int],
    means: Mapping[str, np.ndarray],
    tables: Mapping[str, Sequence[np.ndarray]],
    per_class: Mapping[str, Sequence[np.ndarray]],
    resamples: int,
    seed: int,
    owners: Any = None,
    rarest: Mapping[str, int] = MappingProxyType({}),
) -> list[Row]:
    """Every figure over all heads, and all but those of classes for each head that is named.

    Args:
      cell: without a seed.
      seeds: S names of the heads, or none.
      means: by metric, values of single examples [S, N], whose mean is the figure.
      tables: by metric and head, the figure on each draw of `draws`, [1 + resamples]. per_class: those of classes.
      resamples, seed: of the bootstrap.
      owners: i[N], as `draws` was given them.
      rarest: by metric, the examples behind its rarest kind (:func:`statistics.bootstrap_metric`, `fewest`).
    """
    count = statistics.count_owners(next(iter(means.values())).shape[1], owners)

    def rows_of(cell: Cell, chosen: slice, tables: Mapping[str, Sequence[np.ndarray]]) -> list[Row]:
        rows = [mean_row(cell, name, x[chosen], resamples, seed, owners) for name, x in means.items()]
        for name, heads in tables.items():
            table = np.stack(heads[chosen], axis=1)
            least = rarest.get(name)
            found = statistics.bootstrap_metric(table[0], table[1:], count, seed, reflected=name == "ece", fewest=least)
            rows.append(interval_row(cell, name, found))
        return rows

    rows = rows_of(cell, slice(None), {**tables, **per_class})
    for index, name in enumerate(seeds):
        rows += rows_of(cell._replace(seed=int(name)), slice(index, index + 1), tables)
    return rows


def mean_row(cell: Cell, metric: str, values: Any, resamples: int = 1000, seed: int = 0, owners: Any = None) -> Row:
    """The mean of per-example values [N] or [S, N] (robust accuracy, recall@k, ...) with its interval; owners i[N]."""
    return interval_row(cell, metric, statistics.bootstrap(values, resamples, seed, owners=owners))
