"""Robust accuracy of any classifier at a list of radii, and which example survived which attack, also as CSV.

    found = robust_accuracy(logits_fn, params, images, labels, epsilons=("1/255", "2/255", "4/255"))
    print(found)                                             # accuracy under each attack and under all, by radius
    found.write_csv("robust.csv")                            # a line an example

`logits_fn(params, images f32[B, H, W, C]) -> f32[B, C]` is the deployed model, as in `ranjax.evaluation.white_box`.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, PyTree, Shaped

from ranjax.attacks import input_checks, masking
from ranjax.attacks.attack_table import ATTACKS
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.minimal import validate_radii
from ranjax.core import files, keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.settings import read
from ranjax.evaluation import statistics
from ranjax.evaluation.white_box import Logits, WhiteBox, survivors
from ranjax.training.row_map import RowFunction, RowMap

STANDARD = ("standard",)
"""Attacks that `robust_accuracy` tries by default: the suite of APGD-CE, APGD-T and Square with 1000 queries."""
GRADIENT_FREE = ("square",)
ALONE = 0.02  # share of the images broken without gradients alone, from which on gradients count as masked


@dataclass(frozen=True)
class RobustAccuracy:
    """Which examples withstood which attack. One that an attack broke at a radius counts as broken at every larger one.

    Attributes:
      ids: N names.
      labels: the classes.
      predicted: the classes named without an attack.
      epsilons: E radii as they were given, rising.
      survived: {attack: bool[E, N]}, right without an attack and under this one.
      notes: what speaks against believing the figure: gradients of exactly 0, probabilities, what only Square broke.
    """

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " examples"]
    predicted: Int[np.ndarray, " examples"]
    epsilons: tuple[float | int | str, ...]
    survived: Mapping[str, Bool[np.ndarray, "epsilons examples"]]
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> Bool[np.ndarray, " examples"]:
        """Where the model is right without an attack."""
        return self.predicted == self.labels

    @property
    def worst(self) -> Bool[np.ndarray, "epsilons examples"]:
        """Where the model is right under every attack."""
        return np.all(list(self.survived.values()), axis=0)

    @property
    def accuracy(self) -> Float64[np.ndarray, " epsilons"]:
        """Robust accuracy: the share of examples that are right under every attack."""
        return self.worst.mean(axis=1)

    def interval(
        self, number: int, level: float = 0.95, clusters: Int[np.ndarray, " examples"] | None = None
    ) -> statistics.Interval:
        """Return the robust accuracy at radius `number` with its bootstrap interval over the examples.

        With `clusters`, e.g. the patient of each image, over whole clusters (`statistics.bootstrap`).
        """
        return statistics.bootstrap(self.worst[number], level=level, clusters=clusters)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line an example, whole or not at all.

        Columns: id, label, predicted, clean, ATTACK@EPSILON for every attack and radius, worst@EPSILON (each 1 where
        the example is right, else 0), and broken_at: the least radius at which it is wrong (0: without an attack;
        empty: at none).
        """
        columns = [f"{name}@{epsilon}" for name in (*self.survived, "worst") for epsilon in self.epsilons]
        right = np.concatenate([self.clean[None], *self.survived.values(), self.worst]).astype(int)
        # The first wrong step of a ladder whose last one, above all radii, is wrong for all.
        ladder = np.concatenate([self.clean[None], self.worst, np.zeros((1, len(self.ids)), bool)])
        broken = [(0, *self.epsilons, "")[step] for step in ladder.argmin(axis=0)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", "label", "predicted", "clean", *columns, "broken_at"])
        for name, *facts, own, least in zip(self.ids, self.labels, self.predicted, right.T.tolist(), broken):
            writer.writerow([name, *facts, *own, least])
        files.write_text(path, text.getvalue())

    def __str__(self) -> str:
        width = max(map(len, (*self.survived, "worst")))
        lines = [f"{'epsilon':{width}} {'0':>8} " + " ".join(f"{epsilon!s:>8}" for epsilon in self.epsilons)]
        for name, hits in (*self.survived.items(), ("worst", self.worst)):
            shares = [self.clean.mean(), *hits.mean(axis=1)]
            lines.append(f"{name:{width}} " + " ".join(f"{100 * share:8.1f}" for share in shares))
        return "\n".join([*lines, *(f"WARNING: {note}" for note in self.notes)])


def standard_attacks(
    logits_fn: Logits,
    classes: int,
    names: Sequence[str] = STANDARD,
    *,
    norm: str = "linf",
    steps: int = 20,
    restarts: int = 1,
    batch_size: int = 96,
) -> dict[str, WhiteBox]:
    """Return attacks of the table `ATTACKS` by name, each compiled once.

    Args:
      logits_fn: `(params, images) -> logits`.
      classes: number of classes; DLR needs three, and with two the margin stands in for it.
      names: of the attacks, "standard" for the suite, or `module:NAME` of your own.
      norm: "linf" or "l2".
      steps: of each attack that has steps; a step is 2.5 radii over `steps` (Madry et al. 2018), APGD chooses its own.
      restarts: of each attack.
      batch_size: images at a time.

    Raises:
      ConfigError: an unknown attack, or one that does not take these restarts or this norm.
    """
    found = {}
    for name in ATTACKS.expand(names):
        attack = ATTACKS.resolve(name, "attacks")
        schedule = {"steps": steps, "step": str(2.5 / steps)}  # the radius is set at each call, here it is 1
        settings: Any = read(attack.settings, schedule) if attack.settings else None
        at = attack.at(settings, 1.0, norm=norm, restarts=restarts)
        found[attack.name] = WhiteBox(logits_fn, at, attack.run, attack.loss_for(classes), batch_size)
    return found


def robust_accuracy(
    logits_fn: Logits,
    params: PyTree,
    images: Float[Array | np.ndarray, "examples height width channels"],
    labels: Shaped[Array | np.ndarray, "..."],
    *,
    epsilons: Sequence[float | int | str],
    attacks: Mapping[str, WhiteBox] | Sequence[str] = STANDARD,
    norm: str = "linf",
    ids: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 96,
) -> RobustAccuracy:
    """Attack every example at every radius, each attack by itself, and say whether gradients may be masked.

    An attack goes on at a radius with those that it has not broken at a smaller one. What speaks against the figure
    is a warning, and stands in `notes`: it is looked for whichever attacks are given.

    Args:
      logits_fn: `(params, images) -> logits f32[B, C]`, batch norm in evaluation mode.
      params: of `logits_fn`.
      images: f32[N, H, W, C] in [0, 1].
      labels: i32[N] in [0, C).
      epsilons: rising radii above 0 in pixel units, numbers or "8/255".
      attacks: names for `standard_attacks`, or your own on the same `logits_fn`, {name: `WhiteBox`}.
      norm: "linf" or "l2", of attacks by name.
      ids: N different names, which also decide each example's random start; None: "0", "1", ...
      seed: of the random starts.
      batch_size: images at a time.

    Raises:
      DataError: images outside [0, 1] or not finite, labels or ids that do not fit.
      ConfigError: radii that do not rise from above 0, or are none; no attack.
    """
    images = np.asarray(input_checks.validate_images(images, 4))
    names = input_checks.example_names(ids, len(images))
    radii = validate_radii(epsilons, norm)
    input_checks.broadcast_radius(radii[-1], norm, jnp.asarray(images))
    logits: np.ndarray = RowMap(lambda params, x: logits_fn(params, x), None, batch_size)(params, images)
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise DataError(f"logits_fn gives shape {logits.shape} and must give [N, C], all numbers finite")
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape}, one integer for each of {len(images)} images"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"labels lie in {labels.min()}..{labels.max()}, the model has classes 0..{logits.shape[1] - 1}")
    if not attacks or isinstance(attacks, str):
        raise ConfigError("attacks", attacks, "names of attacks, at least one, or {name: WhiteBox}")
    if not isinstance(attacks, Mapping):
        attacks = standard_attacks(logits_fn, logits.shape[1], attacks, norm=norm, batch_size=batch_size)
    predicted = logits.argmax(axis=1)
    drawn = keys.example_keys(keys.stream(seed, "robust accuracy"), names)
    survived = {}
    for name, attack in attacks.items():
        found = survivors([attack], params, images, labels, drawn, radii, predicted == labels)
        survived[name] = np.stack([found[radius] for radius in radii])
    flat: np.ndarray = RowMap(_has_no_gradient(logits_fn), None, batch_size)(
        params, (images, labels.astype(np.int32), drawn)
    )
    notes = _notes(logits, predicted == labels, flat, survived, epsilons)
    for note in notes:
        warnings.warn(f"robust accuracy: {note}", stacklevel=2)
    return RobustAccuracy(names, labels, predicted, tuple(epsilons), survived, notes)


def _has_no_gradient(logits_fn: Logits) -> RowFunction:
    def zero_gradients(params: PyTree, rows: PyTree) -> Array:
        images, labels, drawn = rows
        return masking.has_no_gradient(Classifier(lambda x: logits_fn(params, x), labels), images, drawn)

    return zero_gradients


def _notes(
    logits: np.ndarray,
    right: np.ndarray,
    flat: np.ndarray,
    survived: Mapping[str, np.ndarray],
    epsilons: Sequence[float | int | str],
) -> tuple[str, ...]:
    """Return in words what speaks against believing the figure."""
    notes = []
    if masking.are_probabilities(logits, False):
        notes.append("the model gives probabilities, not logits, whose gradients vanish")
    if count := int((flat & right).sum()):
        notes.append(
            f"{count} of {int(right.sum())} right images have a gradient of exactly 0: attacks by gradients say "
            "nothing there, and the figure is an upper bound"
        )
    gradients = [rows for name, rows in survived.items() if name not in GRADIENT_FREE]
    searches = [rows for name, rows in survived.items() if name in GRADIENT_FREE]
    if gradients and searches:
        alone = (np.all(gradients, axis=0) & ~np.all(searches, axis=0)).mean(axis=1)
        if alone.max() > ALONE:
            notes.append(
                f"Square alone broke {alone.max():.0%} of the images at {epsilons[int(alone.argmax())]}: gradients are "
                "masked or followed too shortly, and the figure is an upper bound"
            )
    return tuple(notes)
