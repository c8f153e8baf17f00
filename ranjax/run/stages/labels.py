"""Whether the labels of the splits allow what adapt and evaluate are asked for: seen before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.prepared import PreparedSet
from ranjax.data.sources import Source
from ranjax.methods import few_shot
from ranjax.methods.table import selected
from ranjax.run.schema import RunConfig
from ranjax.run.schema.adapt_keys import Adapt

TESTS = ("test", "ood_test")


def of_splits(prepared: PreparedSet, multi_label: bool) -> dict[str, np.ndarray]:
    """Return bool[N, C] of each split's examples of the task: those with one label, or all whose labels are known."""
    found = {}
    for name in ("adapt", "validation", *TESTS):
        if name not in prepared.splits:
            continue
        source = prepared.splits[name]
        if multi_label:
            found[name] = np.stack(source.column("labels"))[known(source)] > 0.5
        else:
            labels = np.asarray(source.column("label"))
            found[name] = labels[labels >= 0][:, None] == np.arange(len(prepared.classes))[None]
    return found


def known(source: Source) -> Bool[np.ndarray, " examples"]:
    """Return whether every class of an example is known: absent is not what nobody has marked, or marked uncertain."""
    return np.array(["unknown" not in group for group in source.column("group")], bool)


def left_out(prepared: PreparedSet) -> list[str]:
    """Return, by split, how many examples the multi-label task leaves out, see `known`."""
    counts = {name: int((~known(prepared.splits[name])).sum()) for name in prepared.splits if name != "train"}
    words = "examples of which a class is unknown leave the multi-label task"
    return [f"split {name!r}: {count} {words}" for name, count in counts.items() if count]


def refuse(config: RunConfig, prepared: PreparedSet) -> dict[str, np.ndarray]:
    """Return the labels of all splits, or refuse them as `check` and `check_chosen` do."""
    found = of_splits(prepared, config.adapt.task == "multi")
    check(config.adapt, found, prepared.classes)
    if config.adapt.task == "multi":
        source = prepared.splits["adapt"]
        ids = [name for name, there in zip(source.ids, known(source)) if there]
        check_chosen(config.adapt, config.seed, ids, found["adapt"], prepared.classes)
    return found


def check(adapt: Adapt, labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Refuse splits, as `of_splits` gives them, that methods could not be fitted or evaluated on.

    Raises:
      DataError: a split without an example of the task; a class that adapt cannot learn, as no example or every one has
        it; a validation split that tells no two classes apart.
      ConfigError: more `adapt.shots` than the rarest class has.
    """
    for split, found in labels.items():
        if not len(found):
            wanted = "of the task" if adapt.task == "multi" else f"with exactly one of the classes {tuple(classes)}"
            raise DataError(f"split {split!r} has no example {wanted}")
    if not _trains(adapt):
        return
    counts = labels["adapt"].sum(0)
    for count, name in zip(counts, classes):
        if count == 0 or (adapt.task == "multi" and count == len(labels["adapt"])):
            which = f"{'no' if count == 0 else 'every'} example of split 'adapt' has class {name!r}"
            mend = "name other classes of the data, or give that split examples with it and without"
            raise DataError(f"{which}, so no method can learn it: {mend}")
    _check_shots(adapt, counts, classes)
    if _both(labels["validation"]).any():
        return
    if adapt.task == "multi":
        raise DataError("split 'validation' has no class that some of its examples have and others have not")
    alone = classes[int(labels["validation"].sum(0).argmax())]
    raise DataError(f"split 'validation' has examples of class {alone!r} alone; choosing epochs needs two classes")


def _trains(adapt: Adapt) -> bool:
    """Return whether some method learns from labels: those at test time do not."""
    return any(method.family != "test_time" for method in selected(adapt.methods).values())


def _check_shots(adapt: Adapt, counts: np.ndarray, classes: Sequence[str]) -> None:
    count, name = min(zip(counts.tolist(), classes), key=lambda pair: pair[0])
    if adapt.shots > count:
        allowed = f"at most {count}: split 'adapt' has no more examples of class {name!r}"
        raise ConfigError("adapt.shots", adapt.shots, allowed)


def check_chosen(adapt: Adapt, seed: int, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise ConfigError where each of the multi-hot examples that `adapt.shots` or `adapt.share` chooses has some
    class.
    """
    rows = chosen(adapt, seed, ids, labels, classes)
    every = np.flatnonzero(labels[rows].all(axis=0))
    if every.size and _trains(adapt):
        key, value = ("adapt.shots", adapt.shots) if adapt.shots else ("adapt.share", adapt.share)
        allowed = f"more: every example that it leaves ({len(rows)}) has class {classes[every[0]]!r}"
        raise ConfigError(key, value, allowed)


def chosen(adapt: Adapt, seed: int, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the rows of the labelled examples that `adapt.shots` or `adapt.share` leaves, i64.

    Raises:
      ConfigError: a class has fewer examples than shots.
    """
    if adapt.shots:
        several = labels.ndim == 2
        counts = labels.sum(0).astype(int) if several else np.bincount(labels[labels >= 0], minlength=len(classes))
        _check_shots(adapt, counts, classes)
        return few_shot.shots(ids, labels, adapt.shots, seed)
    if adapt.share < 1:
        return few_shot.share(ids, labels, adapt.share, seed)
    return np.arange(len(ids))


def notes(labels: Mapping[str, np.ndarray], classes: Sequence[str], multi_label: bool) -> list[str]:
    """Return what figures of these splits lack, each with what is done instead."""
    found = []
    for split, rows in labels.items():
        here = _both(rows) if multi_label else np.asarray(rows.any(axis=0))
        absent = [repr(name) for name, there in zip(classes, here) if not there]
        if split == "adapt" or not absent:
            continue
        lacks = "with and without" if multi_label else "of"
        start = f"split {split!r} has no examples {lacks} {', '.join(absent)}"
        if split == "validation":
            found.append(f"{start}: epochs and settings are chosen by the other classes")
        elif here.sum() < 2 - multi_label:
            found.append(f"{start}: AUROC is not defined there, and accuracy is how often the one class is named")
        else:
            found.append(f"{start}: balanced accuracy and AUROC are means over the other classes")
    return found


def _both(rows: np.ndarray) -> np.ndarray:
    """Return bool[C], whether some row has the class and some row has not."""
    return np.asarray(rows.any(axis=0) & ~rows.all(axis=0))
