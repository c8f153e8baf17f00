"""Classification metrics on NumPy arrays, in float64, of a data set and of its bootstrap resamples.

Scores are logits or probabilities [examples, classes]. Labels are integers [examples], or multi-hot [examples, classes]
where the text says so. Metrics take `counts` f64[draws, examples], how often each resample draws each example
(`statistics.draw_counts`), and return f64[draws]; without counts every example is drawn once, in one draw.
"""

from __future__ import annotations

import numpy as np
import scipy.special
from jaxtyping import Bool, Float64, Int, Int64, Num, Shaped
from numpy.typing import ArrayLike

from ranjax.core.errors import ConfigError, DataError

Counts = Num[np.ndarray, "draws examples"] | None
Draws = Float64[np.ndarray, "draws"]


def softmax(logits: ArrayLike) -> Float64[np.ndarray, "examples classes"]:
    """Return probabilities of logits [examples, classes]."""
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=1)


def correct(scores: ArrayLike, labels: ArrayLike) -> Bool[np.ndarray, "examples"]:
    """Return True where the highest score, the first of several equal ones, is the label's."""
    scores = _scores(scores)
    return scores.argmax(1) == _labels(labels, *scores.shape)


def all_right(logits: ArrayLike, labels: ArrayLike) -> Bool[np.ndarray, "examples"]:
    """Return True where every class is on its side of 0; labels are multi-hot [examples, classes]."""
    logits = _scores(logits)
    return ((logits > 0) == _hot(labels, logits)).all(1)


def confusion(predictions: ArrayLike, labels: ArrayLike, classes: int) -> Int64[np.ndarray, "classes classes"]:
    """Return counts: row the label, column the prediction."""
    predictions = _labels(predictions, np.size(predictions), classes)
    labels = _labels(labels, len(predictions), classes)
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(hits: ArrayLike, labels: ArrayLike, counts: Counts = None) -> Draws:
    """Return the mean recall over the classes drawn; hits bool[examples], labels i[examples]."""
    hits, labels = _marks(hits, "hits"), np.asarray(labels)
    if (labels < 0).any():
        raise DataError(f"label {labels.min()} in row {labels.argmin()} is no class")
    counts = _counts(counts, len(labels))
    member = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    drawn = counts @ member
    recall = counts @ (member * hits[:, None]) / np.where(drawn > 0, drawn, np.nan)
    return np.nanmean(recall, axis=1)


def label_balanced_accuracy(predicted: ArrayLike, labels: ArrayLike, counts: Counts = None) -> Draws:
    """Return the mean over classes of (sensitivity + specificity) / 2; both bool[examples, classes].

    A class of which a resample draws one kind only does not count there.
    """
    predicted, labels = _marks(predicted, "predictions"), _marks(labels, "labels")
    counts = _counts(counts, len(labels))

    def rate(right: np.ndarray, kind: np.ndarray) -> np.ndarray:
        drawn = counts @ kind.astype(np.float64)
        return counts @ (right & kind).astype(np.float64) / np.where(drawn > 0, drawn, np.nan)

    return class_mean((rate(predicted, labels) + rate(~predicted, ~labels)) / 2)


def auroc(scores: ArrayLike, positive: ArrayLike, counts: Counts = None) -> Draws:
    """Return the area under the ROC curve, P(positive's score > negative's) + P(equal) / 2; NaN without both kinds.

    Args:
      scores: [examples], without NaN.
      positive: bool or 0/1 [examples].
      counts: of the resamples; numbers that are no integers are weights.
    """
    scores, positive = np.asarray(scores, np.float64), _marks(positive, "labels")
    if scores.ndim != 1 or scores.shape != positive.shape or np.isnan(scores).any():
        raise DataError(f"auroc needs scores [N] without NaN and labels [N], got {scores.shape}, {positive.shape}")
    drawn, positive, starts = _by_threshold(scores, positive, _counts(counts, len(scores)))
    # Per distinct score: positives there, times negatives below plus half of those level with them.
    up = np.add.reduceat(drawn * positive[None], starts, axis=1)
    down = np.add.reduceat(drawn * ~positive[None], starts, axis=1)
    won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(1)
    pairs = up.sum(1) * down.sum(1)
    return won / np.where(pairs > 0, pairs, np.nan)


def auroc_each(scores: ArrayLike, labels: ArrayLike, counts: Counts = None) -> Float64[np.ndarray, "draws classes"]:
    """Return the area of each class against the rest; NaN where a class has one kind only.

    Args:
      scores: [examples, classes]; for one label an example give probabilities: logits of different examples do not
        compare.
      labels: i[examples], or multi-hot [examples, classes].
      counts: of the resamples.
    """
    scores, labels = _scores(scores), np.asarray(labels)
    if labels.ndim == 1:
        labels = np.eye(scores.shape[1], dtype=bool)[_labels(labels, *scores.shape)]
    truth = _hot(labels, scores)
    return np.stack([auroc(scores[:, c], truth[:, c], counts) for c in range(scores.shape[1])], axis=1)


def macro_auroc(scores: ArrayLike, labels: ArrayLike, counts: Counts = None) -> Draws:
    """Return the mean of `auroc_each` over the classes where it is defined; NaN where there is none."""
    return class_mean(auroc_each(scores, labels, counts))


def average_precision_each(
    scores: ArrayLike, labels: ArrayLike, counts: Counts = None
) -> Float64[np.ndarray, "draws classes"]:
    """Return the average precision of each class, NaN where no positive is drawn; labels multi-hot.

    The sum over thresholds of precision times the rise in recall, equal scores at one threshold (as scikit-learn).
    """
    scores = _scores(scores)
    truth, counts = _hot(labels, scores), _counts(counts, len(scores))
    each = []
    for column, positive in zip(scores.T, truth.T):
        drawn, positive, starts = _by_threshold(-column, positive, counts)
        hit = np.add.reduceat(drawn * positive[None], starts, axis=1)
        above = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
        precision = np.cumsum(hit, axis=1) / np.where(above > 0, above, 1)
        total = hit.sum(1)
        each.append((precision * hit).sum(1) / np.where(total > 0, total, np.nan))
    return np.stack(each, axis=1)


def class_mean(each: Float64[np.ndarray, "draws classes"]) -> Draws:
    """Return the mean over the classes where a figure is defined (not NaN); NaN where there is none."""
    defined = ~np.isnan(each)
    total = np.where(defined, each, 0).sum(1)
    return total / np.where(defined.any(1), defined.sum(1), np.nan)


def calibration_bins(confidence: ArrayLike, hits: ArrayLike, bins: int = 15) -> Float64[np.ndarray, "bins 3"]:
    """Return the reliability diagram: (count, mean confidence, accuracy) of each bin, the latter two NaN in empty ones.

    Args:
      confidence: [examples] in [0, 1].
      hits: bool or 0/1 [examples].
      bins: how many of equal width: (i/n, (i+1)/n], with 0 in the first.
    """
    index, confidence, hits = _binned(confidence, hits, bins)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    divisor = np.where(count > 0, count, np.nan)
    sums = (np.bincount(index, values, minlength=bins) / divisor for values in (confidence, hits))
    return np.stack([count, *sums], axis=1)


def ece(confidence: ArrayLike, hits: ArrayLike, bins: int = 15, counts: Counts = None) -> Draws:
    """Return the expected calibration error: mean over examples of their bin's |accuracy - confidence|.

    See `calibration_bins`.
    """
    index, confidence, hits = _binned(confidence, hits, bins)
    counts = _counts(counts, len(hits))
    gap = (hits - confidence)[:, None] * (index[:, None] == np.arange(bins)[None])
    return np.abs(counts @ gap).sum(1) / counts.sum(1)


def _by_threshold(
    scores: np.ndarray, positive: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts and labels in the order of the scores, and where each distinct score begins."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return counts[:, order], positive[order], np.flatnonzero(np.diff(group[order], prepend=-1))


def _binned(confidence: ArrayLike, hits: ArrayLike, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bin of each example, the confidences and the hits as f64."""
    confidence, hits = np.asarray(confidence, np.float64), np.asarray(hits, np.float64)
    if bins < 1:
        raise ConfigError("bins", bins, "a number of at least 1")
    if confidence.shape != hits.shape or confidence.ndim != 1 or not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError(f"expected confidences [N] in [0, 1] and hits [N], got {confidence.shape}, {hits.shape}")
    return np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int), confidence, hits


def _counts(counts: Counts, examples: int) -> np.ndarray:
    return np.ones((1, examples)) if counts is None else counts


def _scores(scores: ArrayLike) -> Float64[np.ndarray, "examples classes"]:
    array = np.asarray(scores, np.float64)
    if array.ndim != 2 or array.shape[0] == 0:
        raise DataError(f"scores have shape {array.shape}, expected [N, C] with N >= 1")
    if np.isnan(array).any():
        raise DataError(f"scores hold NaN, first in row {np.argwhere(np.isnan(array))[0][0]}")
    return array


def _labels(labels: ArrayLike, count: int, classes: int) -> Int[np.ndarray, "examples"]:
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"labels are {array.dtype} of shape {array.shape}, expected integers of shape ({count},)")
    outside = np.flatnonzero((array < 0) | (array >= classes))
    if outside.size:
        raise DataError(f"label {array[outside[0]]} in row {outside[0]} is not in 0..{classes - 1}")
    return array


def _hot(labels: ArrayLike, scores: Shaped[np.ndarray, "examples classes"]) -> Bool[np.ndarray, "examples classes"]:
    array = np.asarray(labels)
    if array.shape != scores.shape:
        raise DataError(f"labels have shape {array.shape}, the scores {scores.shape}")
    return _marks(array, "labels")


def _marks(values: ArrayLike, what: str) -> Bool[np.ndarray, "..."]:
    """Return marks 0 and 1 as bool. Raises DataError for any other value: -1, for one, is no negative label."""
    array = np.asarray(values)
    if array.dtype != bool and (outside := ~((array == 0) | (array == 1))).any():
        place = np.argwhere(outside)[0]
        raise DataError(f"{what} hold {array[tuple(place)]} in row {place[0]}, expected 0 or 1")
    return array.astype(bool)
