"""Intervals and tests: percentile bootstrap over examples and seeds, paired differences, Holm's correction.

Everything is seeded and works on per-example values [N] or [S, N] (S seeds, the same examples). Examples that are not
independent, such as the questions about one image, are drawn as whole clusters where cluster ids are given. Metrics
that are no mean of per-example values (AUROC, balanced accuracy, ECE) are in `ranjax.evaluation.metrics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int
from numpy.typing import ArrayLike

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation.exact_shares import clopper_pearson, is_rare, never_seen


class Interval(NamedTuple):
    """A figure with its interval, and n, the examples (or seeds) behind it."""

    value: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """A paired difference a - b, or another contrast: value, interval, two-sided p, effect size, n."""

    value: float
    low: float
    high: float
    p: float
    effect: float
    n: int


class RunInterval(NamedTuple):
    """The mean of independent runs: value, interval, two-sided p against 0, effect size (mean / standard deviation)."""

    value: float
    low: float
    high: float
    p: float
    effect: float


FEW = 30
"""Below so many independent things a bootstrap promises too much: it rejects a true null in up to a tenth of trials."""


def _values(values: ArrayLike, name: str = "values") -> Float64[np.ndarray, "seeds examples"]:
    """Return [N] or [S, N] as f64[S, N]."""
    array = np.asarray(values, np.float64)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise DataError(
            f"{name} have shape {np.shape(values)}, expected finite numbers [N] or [seeds, N], none of them 0"
        )
    return array


def _check(resamples: int, level: float | int) -> None:
    if resamples < 10:
        raise ConfigError("resamples", resamples, "a number of at least 10")
    if not 0 < level < 1:
        raise ConfigError("level", level, "a number between 0 and 1, e.g. 0.95")


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _percentiles(draws: np.ndarray, level: float | int) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def draw_counts(
    count: int, resamples: int, seed: int = 0, strata: ArrayLike | None = None, clusters: ArrayLike | None = None
) -> Float64[np.ndarray, "{resamples} {count}"]:
    """Return how often each of N examples is drawn in each resample (with replacement).

    Args:
      count: N.
      resamples, seed: how many, and of which stream.
      strata: i[N], each stratum is resampled within itself, so that no class goes missing.
      clusters: [N], the cluster id of each example, e.g. the image of each question: whole clusters are drawn, as many
        as there are, with all their examples. Rows sum to N without them, and to about N on average with them.

    Raises:
      DataError: shapes that do not fit, or strata and clusters at once.
    """
    if clusters is not None:
        if strata is not None:
            raise DataError("strata and clusters are given at once: a cluster's examples may be of several strata")
        number, index = _numbered(clusters, count)
        return draw_counts(number, resamples, seed)[:, index]
    rng = _generator(seed)
    groups = [np.arange(count)]
    if strata is not None:
        strata = np.asarray(strata)
        if strata.shape != (count,):
            raise DataError(f"strata have shape {strata.shape}, expected ({count},)")
        groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    counts = np.zeros((resamples, count))
    for group in groups:
        size = len(group)
        picks = rng.integers(0, size, (resamples, size)) + size * np.arange(resamples)[:, None]
        counts[:, group] = np.bincount(picks.ravel(), minlength=resamples * size).reshape(resamples, size)
    return counts


def _numbered(clusters: ArrayLike, count: int) -> tuple[int, Int[np.ndarray, "{count}"]]:
    """Return the number of clusters, and the clusters of the examples counted from 0."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if index.shape != (count,):
        raise DataError(f"clusters have shape {np.shape(clusters)}, expected ({count},)")
    return len(names), index


def count_clusters(count: int, clusters: ArrayLike | None = None) -> int:
    """Count the independent observations among N examples: their clusters, or N without cluster ids."""
    return count if clusters is None else _numbered(clusters, count)[0]


def over_drawn_seeds(
    by_seed: Float64[np.ndarray, "resamples seeds"], seed: int = 0
) -> Float64[np.ndarray, "resamples"]:
    """Return the mean of resampled figures over as many seeds, drawn with replacement anew in each resample."""
    resamples, seeds = by_seed.shape
    if seeds == 1:
        return by_seed[:, 0]
    chosen = _generator(seed + 1).integers(0, seeds, (resamples, seeds))
    return np.take_along_axis(by_seed, chosen, axis=1).mean(1)


def resampled_means(
    values: ArrayLike, resamples: int = 1000, seed: int = 0, clusters: ArrayLike | None = None
) -> Float64[np.ndarray, "{resamples}"]:
    """Return bootstrap means of values [N] or [S, N].

    Each resample draws N examples with replacement (or whole clusters, `draw_counts`), the same ones for every seed
    (they share the test set), and, of several seeds, S seeds with replacement.
    """
    array = _values(values)
    counts = draw_counts(array.shape[1], resamples, seed, clusters=clusters)
    return over_drawn_seeds(counts @ array.T / counts.sum(1, keepdims=True), seed)


def bootstrap(
    values: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float | int = 0.95,
    clusters: ArrayLike | None = None,
) -> Interval:
    """Return the mean of values [N] or [S, N] with its percentile interval over examples, and jointly over seeds where
    S > 1.

    With `clusters` [N], the cluster id of each example (the image of each question or caption), whole clusters are
    drawn (the cluster bootstrap, Field & Welsh 2007), and n is their number; else n is N. A share of values that are 0
    or 1 with fewer than `exact_shares.RARE` successes or failures has the exact interval of Clopper and Pearson. Of
    several seeds or of clusters the mean stands for the share of n examples, and the bootstrap's interval is kept
    where it is wider. Other values that are all equal, or one example, have the value itself for an interval: say so
    beside it.
    """
    _check(resamples, level)
    array = _values(values)
    low, high = _percentiles(resampled_means(array, resamples, seed, clusters), level)
    value, count = float(array.mean()), count_clusters(array.shape[1], clusters)
    if is_rare(value, count) and ((array == 0) | (array == 1)).all():
        exact = clopper_pearson(value * count, count, level)
        plain = len(array) == 1 and clusters is None
        low, high = exact if plain else (min(low, exact[0]), max(high, exact[1]))
    return Interval(value, min(low, value), max(high, value), count)


def bootstrap_metric(
    values: ArrayLike,
    draws: ArrayLike,
    n: int,
    seed: int = 0,
    level: float | int = 0.95,
    *,
    reflected: bool = False,
    fewest: int | None = None,
) -> Interval:
    """Return a metric that is no mean over examples, with its percentile interval.

    Args:
      values: [S], the metric on all N examples for each seed.
      draws: [R, S], the metric on each resample (`ranjax.evaluation.metrics`). Resamples where it is NaN, as a
        class is missing from them, are left out.
      reflected: for a metric of absolute values such as ECE, which resampling raises above the metric itself just as
        sampling raises that above the truth: the basic interval ``2 value - percentile`` in place of the percentile
        one, from 0 up and always with the value in it.
      fewest: for a mean of shares over kinds of examples, as AUROC and recall are: how many examples of the rarest kind
        are behind it. Where all draws are the same, such as 0 or 1, or 0.5 where one class is always named, either end
        is `never_seen` of them away: so many shares that are all 0 say no more, however many there are of another kind.

    Returns:
      Interval of the mean over seeds; low and high are NaN where half of the resamples or more are undefined.
    """
    values, by_seed = np.asarray(values, np.float64), np.asarray(draws, np.float64)
    if by_seed.ndim != 2 or values.shape != by_seed.shape[1:]:
        raise DataError(f"expected values [S] and draws [R, S], got {values.shape} and {by_seed.shape}")
    _check(len(by_seed), level)
    defined = by_seed[~np.isnan(by_seed).any(1)]
    value = float(values.mean())
    if 2 * len(defined) <= len(by_seed):
        return Interval(value, float("nan"), float("nan"), n)
    low, high = _percentiles(over_drawn_seeds(defined, seed), level)
    if fewest and np.allclose(defined, value, rtol=0, atol=1e-12):
        unseen = never_seen(fewest, level)
        return Interval(value, max(value - unseen, 0.0), min(value + unseen, 1.0), n)
    if reflected:
        low, high = min(max(2 * value - high, 0.0), value), max(2 * value - low, value)
    return Interval(value, low, high, n)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float | int = 0.95,
    clusters: ArrayLike | None = None,
) -> Difference:
    """Return the mean of a - b over the same examples (and seeds), with its interval and a test against 0.

    Args:
      a, b: [N] or [S, N], of one shape; row and column of both are the same seed and example.
      resamples, seed, level, clusters: as `contrast` takes them.
    """
    return contrast([(1.0, a), (-1.0, b)], resamples, seed, level, clusters)


def contrast(
    terms: Sequence[tuple[float, ArrayLike]],
    resamples: int = 1000,
    seed: int = 0,
    level: float | int = 0.95,
    clusters: ArrayLike | None = None,
    against: float = 0.0,
) -> Difference:
    """Return the mean of a weighted sum of values over the same examples (and seeds), with its interval and a test.

    Args:
      terms: (weight, [N] or [S, N]) of one shape; row and column of all are the same seed and example.
      resamples, seed, level: of the bootstrap.
      clusters: [N], cluster ids as `bootstrap` takes them: whole clusters are drawn, the signs of their examples are
        flipped as one in the test below, and n is their number.
      against: the value that is tested against.

    Returns:
      Difference; `p` is the two-sided bootstrap p value (share of resamples on the other side of `against`, doubled,
      one added to numerator and denominator). Where no resample crosses it that share says no more than "below
      2 / (resamples + 1)", which a correction over a long table would never let stand: there it is the normal tail of
      the paired test whose null leaves the sign of each example's difference free, which for right and wrong answers
      of independent examples is McNemar's (plus the variance over seeds). With fewer than `FEW` examples (clusters) it
      is no less than the share of random flips of these signs that lead as far from it, which holds for any number
      (Fisher's randomisation test; five that all agree show no difference). `effect` is the mean of an example over its
      standard deviation (0 where there is no difference at all, infinite where it is the same for every example). A sum
      of shares in [0, 1] that is the same on every example has an interval as wide as `never_seen` leaves it, within
      what such a sum can be.
    """
    _check(resamples, level)
    each = [(weight, _values(values, f"term {number}")) for number, (weight, values) in enumerate(terms, start=1)]
    if len({values.shape for _, values in each}) > 1:
        raise DataError(f"terms are not paired: shapes {', '.join(str(values.shape) for _, values in each)}")
    sums = sum((weight * values for weight, values in each), np.zeros(()))
    gap = sums - against
    # The bootstrap of the mean, and the share of resamples on its other side of 0.
    draws = resampled_means(gap, resamples, seed, clusters)
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    beyond, of_example, count = float(gap.mean()), gap.mean(0), count_clusters(gap.shape[1], clusters)
    value = float(sums.mean())
    spread = float(of_example.std(ddof=1)) if len(of_example) > 1 else 0.0
    effect = 0.0 if value == 0 else float(value / spread) if spread > 0 else float(np.copysign(np.inf, value))
    p = min(1.0, 2 * (tail + 1) / (resamples + 1))
    # The paired test, and Fisher's for few clusters.
    together = of_example if clusters is None else np.bincount(_numbered(clusters, gap.shape[1])[1], of_example)
    if tail == 0:
        square = float(np.square(together).sum()) / gap.shape[1] ** 2
        square += float(gap.mean(1).var(ddof=1)) / len(gap) if len(gap) > 1 else 0.0
        p = math.erfc(abs(beyond) / math.sqrt(2 * square))
    if count < FEW:
        p = max(p, _flipped(together, resamples, seed))
    # The interval; one without width is as wide as unseen events leave it.
    low, high = (end + against for end in _percentiles(draws, level))
    shares = all(((values >= 0) & (values <= 1)).all() for _, values in each)
    least, most = (sum(weight for weight, _ in each if sign * weight > 0) for sign in (-1, 1))
    if shares and value == round(value) and (sums == value).all():
        unseen = never_seen(count, level)
        low, high = max(value - unseen, float(least)), min(value + unseen, float(most))
    return Difference(value, low, high, float(p), effect, count)


def share_of_difference(
    part: ArrayLike,
    whole: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float | int = 0.95,
    clusters: ArrayLike | None = None,
) -> Interval:
    """Return the mean of one difference as a share of another's, such as the part of a damage that is repaired.

    Args:
      part, whole: [N] or [S, N] of one shape, differences of the same examples (and seeds).
      resamples, seed, level, clusters: as for `bootstrap`.

    Returns:
      Interval over resamples of both together; its ends are NaN where one resample in 40 or more has a whole of 0 or
      less: a share of nothing has no bounds. The value is NaN where the whole is not above 0.
    """
    _check(resamples, level)
    above, below = (resampled_means(values, resamples, seed, clusters) for values in (part, whole))
    first, second = _values(part), _values(whole)
    count, mean = count_clusters(second.shape[1], clusters), float(second.mean())
    value = float(first.mean()) / mean if mean > 0 else float("nan")
    defined = below > 0
    if mean <= 0 or 40 * (~defined).sum() >= resamples:
        return Interval(value, float("nan"), float("nan"), count)
    return Interval(value, *_percentiles(above[defined] / below[defined], level), count)


def _flipped(differences: np.ndarray, resamples: int, seed: int) -> float:
    """Return the share of sign flips of f64[N] whose sum is as far from 0 as theirs: of all flips, or of some drawn."""
    differences = differences[differences != 0]
    if len(differences) <= 12:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(differences))))
    else:
        signs = _generator(seed).choice((-1.0, 1.0), (resamples, len(differences)))
    return float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean())


def student(values: Sequence[float] | np.ndarray, level: float | int = 0.95, least: float = 0.0) -> RunInterval:
    """Return the mean of independent runs with Student's interval and test.

    For few observations, such as upstream runs: a bootstrap has too little to draw from. Values that are all
    equal have, without `least`, an interval of no width, p 1 or 0, and the effect NaN.

    Args:
      values: one a run.
      level: of the interval.
      least: the standard deviation is taken to be at least this. A run's own sampling error belongs here: independent
        runs vary by it at least, so a smaller spread of two or three is luck, and would make certain what is not.

    Raises:
      DataError: fewer than two finite values.
    """
    import scipy.stats

    array = np.asarray(values, np.float64)
    count = array.size
    if array.ndim != 1 or count < 2 or not np.isfinite(array).all():
        raise DataError(f"an interval over runs needs two or more of them, one finite figure each; found {values!r}")
    mean, spread = float(array.mean()), max(float(array.std(ddof=1)), least)
    if spread == 0:
        return RunInterval(mean, mean, mean, 1.0 if mean == 0 else 0.0, float("nan"))
    error = spread / np.sqrt(count)
    half = float(error * scipy.stats.t.ppf((1 + level) / 2, count - 1))
    p = float(2 * scipy.stats.t.sf(abs(mean) / error, count - 1))
    return RunInterval(mean, mean - half, mean + half, p, mean / spread)


def sampling_error(intervals: Sequence[tuple[float, float]], level: float | int = 0.95) -> float:
    """Return the root mean square of the standard errors behind the runs' own intervals (low, high); 0 without any."""
    import scipy.stats

    widths = np.array([high - low for low, high in intervals if math.isfinite(high - low)], np.float64)
    if not widths.size:
        return 0.0
    return float(np.sqrt(np.mean(np.square(widths / (2 * scipy.stats.norm.ppf((1 + level) / 2))))))


def holm(p_values: Sequence[float] | np.ndarray) -> Float64[np.ndarray, "tests"]:
    """Return p values adjusted for their number (Holm 1979), in their order, to compare with the family's alpha."""
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"expected p values [K] in [0, 1], got {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return adjusted
