"""Exact intervals of rare shares, where a bootstrap has too few successes or failures to draw from."""

from __future__ import annotations

import scipy.special

RARE = 10
"""Fewer successes or failures than this are rare: a percentile bootstrap of 3 % of 128 covers 88 % in place of 95."""


def clopper_pearson(successes: float, count: int, level: float | int = 0.95) -> tuple[float, float]:
    """Return the two-sided exact interval of a share (Clopper & Pearson 1934): it covers at least `level`.

    Args:
      successes: from 0 to `count`; the mean of several heads need not be whole.
      count: independent examples.
      level: of the interval.
    """
    tail, failures = (1 - level) / 2, count - successes
    low = 0.0 if successes <= 0 else float(scipy.special.betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures <= 0 else float(scipy.special.betaincinv(successes + 1, failures, 1 - tail))
    return low, high


def is_rare(share: float, count: int) -> bool:
    """Return whether a share of `count` examples has fewer than `RARE` successes or failures."""
    return min(share, 1 - share) * count < RARE


def never_seen(count: int, level: float | int = 0.95) -> float:
    """Return the upper end of the two-sided exact interval of an event that none of `count` examples shows.

    About 3.7 / count at 95 %.
    """
    return clopper_pearson(0, count, level)[1]
