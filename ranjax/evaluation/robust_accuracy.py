"""Robust accuracy of any classifier at a list of radii, and which example survived which attack, also as CSV.

    found = robust_accuracy(logits_fn, params, images, labels, epsilons=("1/255", "2/255", "4/255"))
    print(found)                                             # accuracy under each attack and under all, by radius
    found.write_csv("robust.csv")                            # a line an example

``logits_fn(params, images f32[B, H, W, C]) -> f32[B, C]`` is the deployed model, as in
:mod:`ranjax.evaluation.white_box`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ranjax.attacks import apgd
from ranjax.attacks import input_checks as checks
from ranjax.attacks import pgd as image
from ranjax.core import files, keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import statistics
from ranjax.evaluation.white_box import Logits, WhiteBox, survivors


@dataclass(frozen=True)
class RobustAccuracy:
    """Who withstood what. An example that an attack broke at a radius counts as broken by it at every larger one.

    Attributes:
      ids: N names.
      labels: i32[N].
      predicted: i32[N], the class named without an attack.
      epsilons: E radii as they were given, rising.
      survived: {attack: bool[E, N]}, right without an attack and under this one.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    epsilons: tuple[Any, ...]
    survived: Mapping[str, np.ndarray]

    @property
    def clean(self) -> np.ndarray:
        """bool[N], right without an attack."""
        return self.predicted == self.labels

    @property
    def worst(self) -> np.ndarray:
        """bool[E, N], right under every attack."""
        return np.logical_and.reduce(list(self.survived.values()))

    @property
    def accuracy(self) -> np.ndarray:
        """f64[E], robust accuracy: the share of examples that are right under every attack."""
        return self.worst.mean(axis=1)

    def interval(self, number: int, level: float = 0.95, clusters: Any = None) -> statistics.Interval:
        """The robust accuracy at radius `number` with its bootstrap interval over the examples.

        With `clusters`, e.g. the patient of each image, over whole clusters (`statistics.bootstrap`).
        """
        return statistics.bootstrap(self.worst[number], level=level, clusters=clusters)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a line an example, whole or not at all.

        Columns: id, label, predicted, clean, ATTACK@EPSILON for every attack and radius, worst@EPSILON (each 1 where
        the example is right, else 0), and broken_at: the least radius at which it is wrong (0: without an attack;
        empty: at none).
        """
        columns = [f"{name}@{epsilon}" for name in (*self.survived, "worst") for epsilon in self.epsilons]
        stacked = np.concatenate([*self.survived.values(), self.worst]).astype(int)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", "label", "predicted", "clean", *columns, "broken_at"])
        ladder = np.concatenate([self.clean[None], self.worst])
        for i, name in enumerate(self.ids):
            wrong = np.flatnonzero(~ladder[:, i])
            broken = "" if not wrong.size else (0, *self.epsilons)[wrong[0]]
            facts = (int(self.labels[i]), int(self.predicted[i]), int(self.clean[i]))
            writer.writerow([name, *facts, *stacked[:, i].tolist(), broken])
        files.write_text(path, text.getvalue())

    def __str__(self) -> str:
        width = max(map(len, (*self.survived, "worst")))
        lines = [f"{'epsilon':{width}} {'0':>8} " + " ".join(f"{epsilon!s:>8}" for epsilon in self.epsilons)]
        for name, hits in (*self.survived.items(), ("worst", self.worst)):
            shares = [self.clean.mean(), *hits.mean(axis=1)]
            lines.append(f"{name:{width}} " + " ".join(f"{100 * share:8.1f}" for share in shares))
        return "\n".join(lines)


def standard_attacks(
    logits_fn: Logits, classes: int, norm: str = "linf", steps: int = 20, restarts: int = 1, batch_size: int = 96
) -> dict[str, WhiteBox]:
    """PGD and APGD on cross-entropy, and APGD on DLR (the margin where there are two classes), each compiled once.

    Args:
      logits_fn: ``(params, images) -> logits``.
      classes: C.
      norm: "linf" or "l2".
      steps: of each attack; PGD's step is 2.5 radii over `steps` (Madry et al. 2018), APGD's its own (Croce and
        Hein 2020).
      restarts: of each attack.
      batch_size: images at a time.
    """
    pgd = image.PGD(1.0, 2.5 / steps, steps, norm=norm, restarts=restarts)  # the radius is set at each call
    auto = apgd.APGD(1.0, steps, norm=norm, restarts=restarts)
    return {
        "pgd": WhiteBox(logits_fn, pgd, batch_size=batch_size),
        "apgd_ce": WhiteBox(logits_fn, auto, apgd.apgd, "cross_entropy", batch_size),
        "apgd_dlr": WhiteBox(logits_fn, auto, apgd.apgd, "dlr" if classes > 2 else "margin", batch_size),
    }


def robust_accuracy(
    logits_fn: Logits,
    params: Any,
    images: Any,
    labels: Any,
    *,
    epsilons: Sequence[float | str],
    attacks: Mapping[str, WhiteBox] | None = None,
    norm: str = "linf",
    ids: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 96,
) -> RobustAccuracy:
    """Attacks every example at every radius, each attack by itself.

    An attack goes on at a radius with those that it has not broken at a smaller one.

    Args:
      logits_fn: ``(params, images) -> logits f32[B, C]``, batch norm in evaluation mode.
      params: of `logits_fn`.
      images: f32[N, H, W, C] in [0, 1].
      labels: i32[N] in [0, C).
      epsilons: rising radii above 0 in pixel units, numbers or "8/255".
      attacks: on the same `logits_fn`, by name, with `settings.with_epsilon`; None: `standard_attacks` of `norm`.
      norm: "linf" or "l2", of the standard attacks.
      ids: N different names, which also decide each example's random start; None: "0", "1", ...
      seed: of the random starts.
      batch_size: images at a time.

    Raises:
      DataError: images outside [0, 1] or not finite, labels or ids that do not fit.
      ConfigError: radii that do not rise from above 0, or are none; no attack.
    """
    if isinstance(epsilons, (str, int, float)):
        raise ConfigError("epsilons", epsilons, "a list of radii, e.g. ('2/255', '4/255')")
    images = np.asarray(checks.validate_images(images, 4))
    names = tuple(str(i) for i in range(len(images))) if ids is None else tuple(ids)
    if len(names) != len(images) or len(set(names)) != len(names):
        raise DataError(f"{len(names)} ids, {len(set(names))} of them different, for {len(images)} images")
    radii = [checks.validate_length(epsilon, "epsilons", norm, positive=True) for epsilon in epsilons]
    if not radii or sorted(set(radii)) != radii:
        raise ConfigError("epsilons", tuple(epsilons), "at least one radius, rising")
    if norm == "l2":
        checks.validate_l2(radii[-1], checks.spread(radii[-1], images, "epsilons"), images)
    logits = _logits(logits_fn, params, images, batch_size)
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape}, one integer for each of {len(images)} images"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"labels lie in {labels.min()}..{labels.max()}, the model has classes 0..{logits.shape[1] - 1}")
    if attacks is None:
        attacks = standard_attacks(logits_fn, logits.shape[1], norm, batch_size=batch_size)
    named = isinstance(attacks, Mapping) and all(isinstance(attack, WhiteBox) for attack in attacks.values())
    if not (named and attacks):
        raise ConfigError(
            "attacks", attacks, "at least one WhiteBox by its name, {'pgd': ...}, or None for the standard ones"
        )
    predicted = logits.argmax(axis=1)
    drawn = keys.example_keys(keys.stream(seed, "robust accuracy"), names)
    survived = {}
    for name, attack in attacks.items():
        found = survivors([attack], params, images, labels, drawn, radii, predicted == labels)
        survived[name] = np.stack([found[radius] for radius in radii])
    return RobustAccuracy(names, labels, predicted, tuple(epsilons), survived)


def _logits(logits_fn: Logits, params: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    """f32[N, C], in batches of one shape."""
    run, count, parts = jax.jit(logits_fn), len(images), []
    for start in range(0, count, batch_size):
        take = np.minimum(np.arange(start, start + batch_size), count - 1)
        parts.append(np.asarray(run(params, images[take]))[: count - start])
    found = np.concatenate(parts)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise DataError(f"logits_fn gives shape {found.shape} and must give [N, C], all numbers finite")
    return found
