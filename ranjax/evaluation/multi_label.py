"""Result rows of a multi-label task: any number of classes may be right, each by the sign of its logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special

from ranjax.core.errors import DataError
from ranjax.evaluation import bootstrap as resampled
from ranjax.evaluation import metrics
from ranjax.evaluation.result_rows import Cell, Row, check_names, draws, heads_first, of_rarest, rows_by_seed


def multi_label_rows(
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
      owners: i[N], what examples belong to that are drawn together, as `classification_rows` takes it.
    """
    stack, labels = heads_first(logits), np.asarray(labels) > 0.5
    if stack.ndim != 3 or stack.shape[1:] != labels.shape or (len(seeds) and len(seeds) != len(stack)):
        raise DataError(
            f"logits {np.shape(logits)}, labels {labels.shape} and {len(seeds)} seeds do not fit each other"
        )
    check_names(class_names, stack)
    counts = draws(len(labels), resamples, seed, owners=owners)
    every = np.repeat(counts, stack.shape[2], axis=1)
    said = stack > 0
    right = said == labels[None]
    confidence = np.minimum(scipy.special.expit(np.abs(stack)), 1.0)
    areas = [resampled.auroc_each(counts, one, labels) for one in stack]
    tables = {
        "balanced_accuracy": [resampled.label_balanced_accuracy(counts, one, labels) for one in said],
        "macro_auroc": [resampled.macro_auroc(one) for one in areas],
        "map": [resampled.macro_auroc(resampled.average_precision_each(counts, one, labels)) for one in stack],
        "ece": [resampled.ece(every, sure.ravel(), one.ravel()) for sure, one in zip(confidence, right)],
    }
    per_class = {f"auroc/{name}": [one[:, c] for one in areas] for c, name in enumerate(class_names)}
    hits = np.stack([metrics.all_right(one, labels) for one in stack])
    means = {"accuracy": hits, "label_accuracy": right.mean(2)}
    rarest = of_rarest(labels, class_names, owners)
    return rows_by_seed(cell, seeds, means, tables, per_class, resamples, seed, owners, rarest)
