"""Result rows of a multi-label task: any number of classes may be right, each by the sign of its logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special

from ranjax.errors import DataError
from ranjax.evaluation import metrics, resampled, statistics
from ranjax.evaluation.rows import Cell, Row, interval_row


def multi_label_rows(
    cell: Cell,
    logits: Any,
    labels: Any,
    seeds: Sequence[int] = (),
    *,
    class_names: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Figures over all seeds and for each of those named, with 95 % bootstrap intervals over examples (and seeds).

    "accuracy": the share of examples with every class right (subset accuracy); "label_accuracy": of single answers (1
    less the Hamming loss); "balanced_accuracy": the mean over classes of (sensitivity + specificity) / 2;
    "macro_auroc"; "map": the mean over classes of the average precision; "ece": of single answers. A class that all or
    none of a resample's examples have does not count there.

    Args:
      cell: without a seed.
      logits: [N, C], or [S, N, C] of S heads.
      labels: multi-hot [N, C].
      seeds: S names of the heads, or none.
      class_names: C names, for rows ``"auroc/<name>"`` over all seeds; none: no such rows.
      resamples, seed: of the bootstrap.
    """
    stack = np.asarray(logits, np.float64)
    stack = stack[None] if stack.ndim == 2 else stack
    labels = np.asarray(labels) > 0.5
    if stack.ndim != 3 or stack.shape[1:] != labels.shape or (len(seeds) and len(seeds) != len(stack)):
        raise DataError(
            f"logits {np.shape(logits)}, labels {labels.shape} and {len(seeds)} seeds do not fit each other"
        )
    if class_names and len(class_names) != stack.shape[2]:
        raise DataError(f"{len(class_names)} class names for {stack.shape[2]} classes")
    count = len(labels)
    # The first row takes every example once: the figure itself.
    counts = np.concatenate([np.ones((1, count)), statistics.draw_counts(count, resamples, seed)])
    said = stack > 0
    confidence = np.minimum(scipy.special.expit(np.abs(stack)), 1.0)

    def by_seed(function: Any) -> np.ndarray:
        return np.stack([function(s) for s in range(len(stack))], axis=1)

    areas = [resampled.auroc_each(counts, one, labels) for one in stack]
    precisions = [resampled.average_precision_each(counts, one, labels) for one in stack]
    every = np.repeat(counts, stack.shape[2], axis=1)
    tables = {
        "balanced_accuracy": by_seed(lambda s: resampled.label_balanced_accuracy(counts, said[s], labels)),
        "macro_auroc": by_seed(lambda s: resampled.macro_auroc(areas[s])),
        "map": by_seed(lambda s: resampled.macro_auroc(precisions[s])),
        "ece": by_seed(lambda s: resampled.ece(every, confidence[s].ravel(), (said[s] == labels).ravel())),
    }
    per_class = {f"auroc/{name}": by_seed(lambda s, c=c: areas[s][:, c]) for c, name in enumerate(class_names)}
    hits = np.stack([metrics.all_right(one, labels) for one in stack])
    shares = (said == labels[None]).mean(2)

    def rows_of(cell: Cell, chosen: slice, tables: dict[str, np.ndarray]) -> list[Row]:
        rows = [
            interval_row(cell, "accuracy", statistics.bootstrap(hits[chosen], resamples, seed)),
            interval_row(cell, "label_accuracy", statistics.bootstrap(shares[chosen], resamples, seed)),
        ]
        for name, table in tables.items():
            found = statistics.bootstrap_metric(table[0, chosen], table[1:, chosen], count, seed)
            rows.append(interval_row(cell, name, found))
        return rows

    rows = rows_of(cell, slice(None), {**tables, **per_class})
    for index, name in enumerate(seeds):
        rows += rows_of(cell._replace(seed=int(name)), slice(index, index + 1), tables)
    return rows
