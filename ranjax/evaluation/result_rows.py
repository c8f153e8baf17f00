"""Result rows: one figure each, with where it comes from and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict, cast

import numpy as np
import scipy.special
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike

from ranjax.core.errors import DataError
from ranjax.evaluation import metrics, statistics


class Row(TypedDict):
    """One row of results.json.

    Keys: where the figure comes from (see `Cell`); metric; value, with the ends of its 95 % interval; n, the
      independent
    examples behind it. A figure that is not finite is None, as JSON has no NaN. Rows of the worst group name it.
    """

    condition: str
    ratio: float
    method: str
    task: str
    split: str
    attack: str
    seed: int | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    group: NotRequired[str]


FIELDS = tuple(name for name in Row.__annotations__ if name != "group")


class Cell(NamedTuple):
    """Where figures come from; `seed` is None for a figure without one or over all seeds."""

    condition: str
    ratio: float
    method: str
    task: str
    split: str
    attack: str = "none"
    seed: int | None = None


Clusters = ArrayLike | None
"""The cluster id of each example, e.g. its patient, drawn as a whole; None: all examples are independent."""


Number = float | int | np.number


def row(
    cell: Cell,
    metric: str,
    value: Number,
    low: Number | None = None,
    high: Number | None = None,
    n: int | np.integer = 0,
) -> Row:
    """Return one row."""

    def number(x: Number | None) -> float | None:
        return None if x is None or not math.isfinite(x) else float(x)

    if not metric:
        raise DataError(f"a row of {cell} needs the name of its metric")
    where = cell._replace(ratio=float(cell.ratio), seed=None if cell.seed is None else int(cell.seed))._asdict()
    figures = {"metric": metric, "value": number(value), "low": number(low), "high": number(high), "n": int(n)}
    return cast(Row, where | figures)


def interval_row(cell: Cell, metric: str, interval: statistics.Interval) -> Row:
    """Return the row of a figure with its interval."""
    return row(cell, metric, *interval)


def mean_row(
    cell: Cell, metric: str, values: ArrayLike, resamples: int = 1000, seed: int = 0, clusters: Clusters = None
) -> Row:
    """Return the mean of per-example values [N] or [S, N] (robust accuracy, recall@k, ...) with its interval."""
    return interval_row(cell, metric, statistics.bootstrap(values, resamples, seed, clusters=clusters))


class _Figures(NamedTuple):
    """Figures of a task: values of single examples by metric; by metric and head, the figure on each draw."""

    means: dict[str, np.ndarray]
    tables: dict[str, list[np.ndarray]]
    areas: list[np.ndarray]
    rarest: dict[str, int]


def classification_rows(
    cell: Cell,
    logits: ArrayLike,
    labels: ArrayLike,
    seeds: Sequence[int] = (),
    *,
    class_names: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> list[Row]:
    """Return accuracy, balanced accuracy, macro and per-class AUROC and ECE, over all seeds and for each of them.

    Of a multi-label task, any number of classes may be right, each by the sign of its logit. "accuracy" is then the
    share of examples with every class right (subset accuracy); "label_accuracy" that of single answers (1 less the
    Hamming loss); "balanced_accuracy" the mean over classes of (sensitivity + specificity) / 2; "map" the mean over
    classes of the average precision; "ece" of single answers. A class that all or none of a resample's examples have
    does not count there.

    Every row has a 95 % bootstrap interval over examples, of one label stratified by class but for accuracy; rows over
    several seeds have one over examples and seeds jointly. ECE's is reflected, and an AUROC or balanced accuracy of 0
    or 1 has the bound of its rarest class (`statistics.bootstrap_metric`).

    Args:
      cell: without a seed.
      logits: [N, C], or [S, N, C] of S heads.
      labels: i[N], or multi-hot [N, C].
      seeds: S names of the heads, or none.
      class_names: C names, for rows ``"auroc/<name>"`` over all seeds; none: no such rows.
      resamples, seed: of the bootstrap.
      clusters: where given, resamples draw whole clusters (and are not stratified), and n counts clusters.
    """
    stack, labels = heads_first(logits), np.asarray(labels)
    multi_label = labels.ndim == 2
    fits = stack.ndim == 3 and labels.shape == (stack.shape[1:] if multi_label else stack.shape[1:2])
    if not fits or (len(seeds) and len(seeds) != len(stack)):
        found = f"logits {np.shape(logits)}, labels {labels.shape} and {len(seeds)} seeds"
        raise DataError(f"{found} do not fit each other, expected [S, N, C], [N] or [N, C], and S")
    if class_names and len(class_names) != stack.shape[2]:
        raise DataError(f"{len(class_names)} class names for {stack.shape[2]} classes")
    strata = None if multi_label or clusters is not None else labels
    counts = draws(len(labels), resamples, seed, strata, clusters)
    figures_of = _multi_label_figures if multi_label else _single_label_figures
    figures = figures_of(stack, labels, counts, class_names, clusters)
    per_class = {f"auroc/{name}": [one[:, c] for one in figures.areas] for c, name in enumerate(class_names)}
    count = statistics.count_clusters(len(labels), clusters)

    def rows_of(cell: Cell, chosen: slice, tables: Mapping[str, Sequence[np.ndarray]]) -> list[Row]:
        rows = [
            mean_row(cell, name, values[chosen], resamples, seed, clusters) for name, values in figures.means.items()
        ]
        for name, heads in tables.items():
            table, fewest = np.stack(heads[chosen], axis=1), figures.rarest.get(name)
            interval = statistics.bootstrap_metric(
                table[0], table[1:], count, seed, reflected=name == "ece", fewest=fewest
            )
            rows.append(interval_row(cell, name, interval))
        return rows

    # Every figure over all heads; all but those of classes for each head that is named.
    rows = rows_of(cell, slice(None), {**figures.tables, **per_class})
    for index, name in enumerate(seeds):
        rows += rows_of(cell._replace(seed=int(name)), slice(index, index + 1), figures.tables)
    return rows


def _single_label_figures(
    stack: np.ndarray, labels: np.ndarray, counts: np.ndarray, class_names: Sequence[str], clusters: Clusters
) -> _Figures:
    hits = np.stack([metrics.correct(one, labels) for one in stack])
    probabilities = np.stack([metrics.softmax(one) for one in stack])
    confidence = np.minimum(probabilities.max(2), 1.0)
    areas = [metrics.auroc_each(one, labels, counts) for one in probabilities]
    tables = {
        "balanced_accuracy": [metrics.balanced_accuracy(one, labels, counts) for one in hits],
        "macro_auroc": [metrics.class_mean(one) for one in areas],
        "ece": [metrics.ece(*one, counts=counts) for one in zip(confidence, hits)],
    }
    present = labels[:, None] == np.arange(stack.shape[2])[None]
    rarest = count_rarest(present, class_names, clusters)
    # Recalls that are all 0: the bound on their mean is largest where all classes are as rare, so it is that of all.
    occurring = present.any(0)
    least = min(_independent(members, clusters) for members in present.T[occurring])
    rarest["balanced_accuracy"] = int(occurring.sum()) * least
    return _Figures({"accuracy": hits}, tables, areas, rarest)


def _multi_label_figures(
    stack: np.ndarray, labels: np.ndarray, counts: np.ndarray, class_names: Sequence[str], clusters: Clusters
) -> _Figures:
    labels, predicted = labels > 0.5, stack > 0
    right = predicted == labels[None]
    confidence = np.minimum(scipy.special.expit(np.abs(stack)), 1.0)
    # Calibration is of single answers: an example is drawn with all of its own.
    answer_counts = np.repeat(counts, stack.shape[2], axis=1)
    areas = [metrics.auroc_each(one, labels, counts) for one in stack]
    tables = {
        "balanced_accuracy": [metrics.label_balanced_accuracy(one, labels, counts) for one in predicted],
        "macro_auroc": [metrics.class_mean(one) for one in areas],
        "map": [metrics.class_mean(metrics.average_precision_each(one, labels, counts)) for one in stack],
        "ece": [metrics.ece(p.ravel(), hit.ravel(), counts=answer_counts) for p, hit in zip(confidence, right)],
    }
    means = {"accuracy": right.all(2), "label_accuracy": right.mean(2)}
    return _Figures(means, tables, areas, count_rarest(labels, class_names, clusters))


def count_rarest(
    present: Bool[np.ndarray, "examples classes"], class_names: Sequence[str], clusters: Clusters = None
) -> dict[str, int]:
    """Count the independent examples with a class or without it, the rarer of both, by metric.

    Args:
      present: which example has which class.
      class_names: of the metrics ``"auroc/<name>"``; the other metrics have the least over all classes.
      clusters: cluster ids of the examples.
    """
    each = [min(_independent(members, clusters), _independent(~members, clusters)) for members in present.T]
    least = min((few for few in each if few), default=0)
    by_class = {f"auroc/{name}": few for name, few in zip(class_names, each)}
    return by_class | dict.fromkeys(("balanced_accuracy", "macro_auroc", "map"), least)


def _independent(chosen: Bool[np.ndarray, "examples"], clusters: Clusters) -> int:
    """Count the chosen examples, or the clusters they are of."""
    return statistics.count_clusters(int(chosen.sum()), None if clusters is None else np.asarray(clusters)[chosen])


def heads_first(logits: ArrayLike) -> Float64[np.ndarray, "..."]:
    """Return logits [N, C] of one head, or [S, N, C] of S, as f64[S, N, C]."""
    stack = np.asarray(logits, np.float64)
    return stack[None] if stack.ndim == 2 else stack


def draws(
    count: int, resamples: int, seed: int, strata: ArrayLike | None = None, clusters: Clusters = None
) -> Float64[np.ndarray, "draws examples"]:
    """Return how often each draw takes each of `count` examples; the first takes each once: the figure itself."""
    return np.concatenate([np.ones((1, count)), statistics.draw_counts(count, resamples, seed, strata, clusters)])
