"""Few examples a class, chosen by a keyed hash of their ids: nested, and independent of order and of other examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Int

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.keys import stable_hash


def _by_class(ids: Sequence[str], labels: ArrayLike, seed: int) -> list[np.ndarray]:
    labels = np.asarray(labels)
    several = labels.ndim == 2 and len(labels) == len(ids)
    if not several and (labels.shape != (len(ids),) or not np.issubdtype(labels.dtype, np.integer)):
        raise DataError(f"{len(ids)} ids need as many integer labels, got {labels.dtype} of shape {labels.shape}")
    if len(set(ids)) != len(ids):
        raise DataError("ids are not unique, so that a choice by id is none of examples")
    order = np.array([(stable_hash(f"few-shot/{seed}/{i}"), i) for i in ids], dtype=[("hash", "u4"), ("id", "O")])
    order = np.argsort(order, order=("hash", "id"))
    if several:
        return [order[labels[order, c] > 0.5] for c in range(labels.shape[1])]
    return [order[labels[order] == c] for c in np.unique(labels[labels >= 0])]


def shots(ids: Sequence[str], labels: ArrayLike, count: int, seed: int = 0) -> Int[np.ndarray, " chosen"]:
    """Rows i64 of `count` examples of each class, ascending; those for a smaller count are among them.

    Args:
      ids: N ids that last.
      labels: i[N]; rows below 0 are not part of the task and never chosen. Or multi-hot [N, C]: the first `count`
        of every class together, so that an example counts for each of its classes and a class may get more.

    Raises:
      DataError: a class has fewer examples than `count`.
      ConfigError: `count` is below 1.
    """
    if count < 1:
        raise ConfigError("shots", count, "at least 1")
    classes = _by_class(ids, labels, seed)
    names = range(len(classes)) if np.ndim(labels) == 2 else [np.asarray(labels)[rows[0]] for rows in classes]
    for label, rows in zip(names, classes):
        if len(rows) < count:
            raise DataError(f"class {label} has {len(rows)} examples, fewer than {count} shots")
    return np.unique(np.concatenate([rows[:count] for rows in classes])) if classes else np.zeros(0, np.int64)


def share(ids: Sequence[str], labels: ArrayLike, part: float, seed: int = 0) -> Int[np.ndarray, " chosen"]:
    """Rows i64 of that share of each class, rounded up, so at least one example; nested and ascending like `shots`.

    Of multi-hot labels: that share of each class together, examples without any class as one more.

    Raises:
      ConfigError: `part` is not above 0 and at most 1.
    """
    if not 0 < part <= 1:
        raise ConfigError("share", part, "above 0 and at most 1")
    classes = _by_class(ids, labels, seed)
    if np.ndim(labels) == 2:
        none = ~(np.asarray(labels) > 0.5).any(axis=1)
        classes += _by_class(ids, np.where(none, 0, -1), seed)
    # Less a hair, so that a tenth of thirty stays three in floating point.
    chosen = [rows[: max(1, math.ceil(part * len(rows) - 1e-9))] for rows in classes]
    return np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
