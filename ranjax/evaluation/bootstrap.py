"""Metrics of many bootstrap resamples at once: counts f64[R, N] of `statistics.draw_counts` -> f64[R].

With one row of ones each equals its namesake in :mod:`ranjax.evaluation.metrics`.
"""

from __future__ import annotations

import numpy as np

from ranjax.evaluation import metrics


def balanced_accuracy(counts: np.ndarray, hits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean recall over the classes drawn; hits bool[N], labels i[N]."""
    member = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    drawn = counts @ member
    recall = counts @ (member * hits[:, None]) / np.where(drawn > 0, drawn, np.nan)
    return np.nanmean(recall, axis=1)


def auroc(counts: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties counted half, NaN where one kind is not drawn; scores [N], positive bool[N]."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    group, positive, drawn = group[order], np.asarray(positive, bool)[order], counts[:, order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    # Per distinct score: positives there, times negatives below plus half of those level with them.
    up = np.add.reduceat(drawn * positive[None], starts, axis=1)
    down = np.add.reduceat(drawn * ~positive[None], starts, axis=1)
    won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(1)
    pairs = up.sum(1) * down.sum(1)
    return won / np.where(pairs > 0, pairs, np.nan)


def auroc_each(counts: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area per class f64[R, C], NaN where a class has one kind only; scores [N, C], labels i[N] or multi-hot [N, C]."""
    classes = scores.shape[1]
    truth = labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(classes)[None]
    return np.stack([auroc(counts, scores[:, c], truth[:, c]) for c in range(classes)], axis=1)


def average_precision_each(counts: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision per class f64[R, C], NaN where no positive is drawn; scores [N, C], labels multi-hot [N, C].

    The sum over thresholds of precision times the rise in recall, equal scores at one threshold (as scikit-learn).
    """
    truth = labels.astype(bool)
    return np.stack([_average_precision(counts, scores[:, c], truth[:, c]) for c in range(scores.shape[1])], axis=1)


def _average_precision(counts: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    _, group = np.unique(-scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    group, positive, drawn = group[order], positive[order], counts[:, order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    hit = np.add.reduceat(drawn * positive[None], starts, axis=1)
    said = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
    precision = np.cumsum(hit, axis=1) / np.where(said > 0, said, 1)
    total = hit.sum(1)
    return (precision * hit).sum(1) / np.where(total > 0, total, np.nan)


def label_balanced_accuracy(counts: np.ndarray, said: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over classes of (sensitivity + specificity) / 2, over classes with both kinds; said, labels bool[N, C]."""
    labels = labels.astype(bool)

    def rate(right: np.ndarray, kind: np.ndarray) -> np.ndarray:
        drawn = counts @ kind.astype(np.float64)
        return counts @ (right & kind).astype(np.float64) / np.where(drawn > 0, drawn, np.nan)

    return macro_auroc((rate(said, labels) + rate(~said, ~labels)) / 2)


def macro_auroc(each: np.ndarray) -> np.ndarray:
    """Mean f64[R] of `auroc_each` over the classes where it is defined, else NaN."""
    defined = ~np.isnan(each)
    total = np.where(defined, each, 0).sum(1)
    return total / np.where(defined.any(1), defined.sum(1), np.nan)


def ece(counts: np.ndarray, confidence: np.ndarray, hits: np.ndarray, bins: int = 15) -> np.ndarray:
    """Expected calibration error with bins (i/n, (i+1)/n]; confidence [N] in [0, 1], hits bool[N]."""
    index = metrics.bin_index(confidence, bins)
    member = index[:, None] == np.arange(bins)[None]
    gap = (hits.astype(np.float64) - confidence)[:, None] * member
    return np.abs(counts @ gap).sum(1) / counts.sum(1)
