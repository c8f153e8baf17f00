"""Classification metrics on NumPy arrays, in float64.

Scores are logits or probabilities [N, C]; labels i[N], or multi-hot [N, C] where the name says multi-label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
import scipy.stats

from ranjax.core.errors import ConfigError, DataError


def _scores(scores: Any) -> np.ndarray:
    array = np.asarray(scores, np.float64)
    if array.ndim != 2 or array.shape[0] == 0:
        raise DataError(f"scores have shape {array.shape}, [N, C] with N >= 1 is needed")
    if np.isnan(array).any():
        raise DataError(f"scores hold NaN, first in row {np.argwhere(np.isnan(array))[0][0]}")
    return array


def _labels(labels: Any, count: int, classes: int | None = None) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"labels are {array.dtype} of shape {array.shape}, integers of shape ({count},) are needed")
    if classes is not None and ((array < 0) | (array >= classes)).any():
        bad = np.flatnonzero((array < 0) | (array >= classes))[0]
        raise DataError(f"label {array[bad]} in row {bad} is not in 0..{classes - 1}")
    return array


def softmax(logits: Any) -> np.ndarray:
    """Probabilities f64[N, C] of logits [N, C]."""
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=1)


def correct(scores: Any, labels: Any) -> np.ndarray:
    """bool[N]: is the highest score, the first of several equal ones, the label's?"""
    scores = _scores(scores)
    return scores.argmax(1) == _labels(labels, len(scores), scores.shape[1])


def all_right(logits: Any, labels: Any) -> np.ndarray:
    """bool[N]: is every class on its side of 0? Logits [N, C], labels multi-hot [N, C]."""
    logits, labels = _scores(logits), np.asarray(labels)
    if labels.shape != logits.shape:
        raise DataError(f"labels have shape {labels.shape}, the scores {logits.shape}")
    return ((logits > 0) == (labels > 0.5)).all(1)


def accuracy(predictions: Any, labels: Any) -> float:
    """Share of predictions i[N] equal to labels i[N]."""
    predictions = np.asarray(predictions)
    return float((_labels(predictions, len(predictions)) == _labels(labels, len(predictions))).mean())


def balanced_accuracy(predictions: Any, labels: Any) -> float:
    """Mean recall over the classes that occur in `labels`; predictions i[N], labels i[N]."""
    predictions = np.asarray(predictions)
    labels = _labels(labels, len(predictions))
    return float(np.mean([(predictions[labels == c] == c).mean() for c in np.unique(labels)]))


def confusion(predictions: Any, labels: Any, classes: int) -> np.ndarray:
    """Counts i64[C, C]: row the label, column the prediction."""
    predictions = _labels(predictions, len(np.asarray(predictions)), classes)
    labels = _labels(labels, len(predictions), classes)
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def auroc(scores: Any, positive: Any, weights: Any = None) -> float:
    """Area under the ROC curve: P(positive's score > negative's) + P(equal) / 2.

    Args:
      scores: [N].  positive: bool or 0/1 [N].  weights: [N] of the examples, or None.

    Returns:
      The area, or NaN where one kind is absent.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive).astype(bool)
    if scores.ndim != 1 or scores.shape != positive.shape or np.isnan(scores).any():
        raise DataError(f"auroc needs scores [N] without NaN and labels [N], got {scores.shape}, {positive.shape}")
    if positive.all() or not positive.any():
        return float("nan")
    if weights is None:
        ranks = scipy.stats.rankdata(scores)
        count = positive.sum()
        return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))
    weights = np.asarray(weights, np.float64)
    values, index = np.unique(scores, return_inverse=True)
    negative = np.bincount(index, weights * ~positive, minlength=len(values))
    below = np.cumsum(negative) - negative / 2
    return float((weights[positive] * below[index[positive]]).sum() / (weights[positive].sum() * negative.sum()))


def auroc_each(scores: Any, labels: Any) -> np.ndarray:
    """Area per class, f64[C], one class against the rest; NaN where a class has one kind only.

    Args:
      scores: [N, C]; for one label an example give probabilities: logits of different examples do not compare.
      labels: i[N], or multi-hot [N, C].
    """
    scores = _scores(scores)
    labels = np.asarray(labels)
    if labels.ndim == 1:
        labels = np.eye(scores.shape[1], dtype=bool)[_labels(labels, len(scores), scores.shape[1])]
    if labels.shape != scores.shape:
        raise DataError(f"labels have shape {labels.shape}, the scores {scores.shape}")
    return np.array([auroc(scores[:, c], labels[:, c]) for c in range(scores.shape[1])])


def macro_auroc(scores: Any, labels: Any) -> float:
    """Mean of `auroc_each` over the classes where it is defined; NaN where there is none."""
    each = auroc_each(scores, labels)
    defined = ~np.isnan(each)
    return float(each[defined].mean()) if defined.any() else float("nan")


def bin_index(confidence: np.ndarray, bins: int, right: bool = True) -> np.ndarray:
    """The bin i[N] of each confidence [N] in [0, 1]; see `calibration_bins`."""
    scaled = confidence * bins
    return np.clip(np.ceil(scaled) - 1 if right else np.floor(scaled), 0, bins - 1).astype(int)


def calibration_bins(confidence: Any, hit: Any, bins: int = 15, right: bool = True) -> np.ndarray:
    """The reliability diagram: f64[bins, 3] of (count, mean confidence, accuracy), the latter two NaN in empty bins.

    Args:
      confidence: [N] in [0, 1].  hit: bool or 0/1 [N].
      bins: of equal width.
      right: bins are (i/n, (i+1)/n] with 0 in the first; otherwise [i/n, (i+1)/n) with 1 in the last.
    """
    confidence, hit = np.asarray(confidence, np.float64), np.asarray(hit, np.float64)
    if bins < 1:
        raise ConfigError("bins", bins, "at least 1")
    if confidence.shape != hit.shape or confidence.ndim != 1 or not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError(f"confidences [N] in [0, 1] and hits [N] are needed, got {confidence.shape}, {hit.shape}")
    index = bin_index(confidence, bins, right)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    divisor = np.where(count > 0, count, np.nan)
    sums = (np.bincount(index, values, minlength=bins) / divisor for values in (confidence, hit))
    return np.stack([count, *sums], axis=1)


def ece(confidence: Any, hit: Any, bins: int = 15, right: bool = True) -> float:
    """Expected calibration error: mean over examples of their bin's |accuracy - confidence|; see `calibration_bins`."""
    table = calibration_bins(confidence, hit, bins, right)
    filled = table[table[:, 0] > 0]
    return float((filled[:, 0] * np.abs(filled[:, 2] - filled[:, 1])).sum() / filled[:, 0].sum())


def ece_of_logits(logits: Any, labels: Any, bins: int = 15) -> float:
    """`ece` of the highest softmax probability; logits [N, C], labels i[N]."""
    return ece(np.minimum(softmax(logits).max(1), 1.0), correct(logits, labels), bins)


def worst_group(values: Any, groups: Any, smallest: int = 1) -> tuple[float, str, dict[str, tuple[float, int]]]:
    """The lowest mean over groups of examples.

    Args:
      values: [N], one figure an example, e.g. `correct`.
      groups: N names.
      smallest: groups with fewer examples are listed, but cannot be the worst.

    Returns:
      (lowest mean, its group's name, {group: (mean, count)}).

    Raises:
      DataError: no group is large enough.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups, dtype=str)
    if values.shape != groups.shape or values.ndim != 1:
        raise DataError(f"values and groups must be of one shape [N], got {values.shape}, {groups.shape}")
    table = {str(g): (float(values[groups == g].mean()), int((groups == g).sum())) for g in np.unique(groups)}
    large = {name: mean for name, (mean, count) in table.items() if count >= smallest}
    if not large:
        largest = max((count for _, count in table.values()), default=0)
        raise DataError(f"no group has {smallest} examples; the largest has {largest}")
    worst = min(large, key=lambda name: large[name])
    return large[worst], worst, table
