"""Result rows of a multi-label task: any number of classes may be right, each by the sign of its logit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from ranjax.core.errors import DataError
from ranjax.evaluation import metrics
from ranjax.evaluation.result_rows import (
    Cell,
    Clusters,
    Row,
    check_names,
    count_rarest,
    draws,
    heads_first,
    rows_by_seed,
)


def multi_label_rows(
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
    """Return figures over all seeds and for each of them, with 95 % bootstrap intervals over examples (and seeds).

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
      clusters: cluster ids of the examples, as `classification_rows` takes them.
    """
    stack, labels = heads_first(logits), np.asarray(labels) > 0.5
    if stack.ndim != 3 or stack.shape[1:] != labels.shape or (len(seeds) and len(seeds) != len(stack)):
        shapes = f"logits {np.shape(logits)}, labels {labels.shape} and {len(seeds)} seeds"
        raise DataError(f"{shapes} do not fit each other, expected [S, N, C], [N, C] and S")
    check_names(class_names, stack)
    predicted = stack > 0
    right = predicted == labels[None]
    confidence = np.minimum(scipy.special.expit(np.abs(stack)), 1.0)
    counts = draws(len(labels), resamples, seed, clusters=clusters)
    # Calibration is of single answers: an example is drawn with all of its own.
    answer_counts = np.repeat(counts, stack.shape[2], axis=1)
    areas = [metrics.auroc_each(one, labels, counts) for one in stack]
    tables = {
        "balanced_accuracy": [metrics.label_balanced_accuracy(one, labels, counts) for one in predicted],
        "macro_auroc": [metrics.class_mean(one) for one in areas],
        "map": [metrics.class_mean(metrics.average_precision_each(one, labels, counts)) for one in stack],
        "ece": [metrics.ece(p.ravel(), hit.ravel(), counts=answer_counts) for p, hit in zip(confidence, right)],
    }
    per_class = {f"auroc/{name}": [one[:, c] for one in areas] for c, name in enumerate(class_names)}
    means = {"accuracy": right.all(2), "label_accuracy": right.mean(2)}
    rarest = count_rarest(labels, class_names, clusters)
    return rows_by_seed(cell, seeds, means, tables, per_class, resamples, seed, clusters, rarest)
