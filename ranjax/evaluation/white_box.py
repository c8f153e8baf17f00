"""White-box robustness, end to end: the attack differentiates through encoder and head together.

    attack = WhiteBox(logits_fn, PGD(epsilon="4/255", step_size="1/255", steps=10, restarts=2))
    found = attack(params, images, labels, keys)             # params: encoder and head, as one pytree
    found.correct.mean()                                     # robust accuracy: right before and after

`logits_fn(params, images f32[B, H, W, C]) -> f32[B, C]` is the deployed model, batch norm in evaluation mode.
Parameters are arguments, so one `WhiteBox` compiles once for all heads of one shape, all seeds, all upstream ratios and
all epsilons. `ranjax.attacks.masking` says whether such a figure is to be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from ranjax.attacks import losses
from ranjax.attacks.ascent import ImageAttack
from ranjax.attacks.attack_table import CLASSIFIER, AtRadius
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.pgd import pgd
from ranjax.core import precision
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.keys import take
from ranjax.training.row_map import RowFunction, RowMap

Logits = Callable[..., Float[Array, "batch classes"]]
MapRows = Callable[[RowFunction, int], RowFunction]
"""`(fn(shared, rows) -> rows, batch size) -> the same function of any number of rows`: where the work is done."""
_JUDGE = 0x4A554447  # names the draw that a random model is judged by, apart from those of the attack's steps


def judging(keys: Key[Array, " examples"]) -> Key[Array, " examples"]:
    """Return the keys of the draw that a random model is judged by, which no attack sees."""
    return jax.vmap(lambda key: jax.random.fold_in(key, _JUDGE))(keys)


class Robustness(NamedTuple):
    """What one attack did to N examples; every example counts once.

    Attributes:
      clean_correct: right without an attack.
      correct: right before the attack and on the worst iterate of all restarts.
      clean_logits, logits: before and on the adversarial image.
      loss: on the adversarial image.
      finite: False where a loss or gradient was not finite, so that the image came back clean: not robustness.
      images: the adversarial images, or None where they were not requested.
    """

    clean_correct: Bool[np.ndarray, " examples"]
    correct: Bool[np.ndarray, " examples"]
    clean_logits: Float[np.ndarray, "examples classes"]
    logits: Float[np.ndarray, "examples classes"]
    loss: Float[np.ndarray, " examples"]
    finite: Bool[np.ndarray, " examples"]
    images: Float[np.ndarray, "examples height width channels"] | None = None


class WhiteBox:
    """An attack on a classifier, compiled once per shape of parameters and micro-batch.

    Args:
      logits_fn: `(params, images) -> logits`; with `draws`, `(params, images, keys key[B]) -> logits`. Where a call
        gives side inputs, `((params, side_inputs), images)`.
      settings: of the attack, a pytree whose leaves (epsilon, step size) may change without compiling.
      attack: `(loss_fn, images, keys, settings) -> ImageAttack`; the loss function gives `(loss f32[B], success
        bool[B])`. E.g. the `run` of an entry of `attack_table.ATTACKS`.
      loss: "cross_entropy", "dlr" or "margin"; multi-label tasks: "binary_cross_entropy" or "margin_of_any"; or
        "classifier" for an attack that takes a `Classifier` in the place of a loss.
      batch_size: images at a time (on each device); the last micro-batch is filled up with copies that do not count.
      draws: above 0 for a model with a random or test-time part: the attack goes through it and raises the mean over
        this many draws at each step (expectation over transformations, Athalye et al. 2018, arXiv 1707.07397). The
        model is then judged on one draw of its own, which the attacker does not see.
      map_rows: shares the rows out, e.g. over the devices of a mesh; by default one device takes them all.
    """

    def __init__(
        self,
        logits_fn: Logits,
        settings: AtRadius,
        attack: Callable[..., ImageAttack] = pgd,
        loss: str = "cross_entropy",
        batch_size: int = 96,
        draws: int = 0,
        map_rows: MapRows | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError("batch_size", batch_size, "at least 1")
        if draws < 0:
            raise ConfigError("draws", draws, "0 or more")
        self.settings, self.batch_size, self._loss = settings, batch_size, loss

        def white_box(shared: PyTree, rows: PyTree) -> tuple[jax.Array, ...]:
            (params, settings), (images, labels, keys, side_inputs) = shared, rows
            params = params if side_inputs is None else (params, side_inputs)
            judged = (judging(keys),) if draws else ()

            @precision.exact
            def deployed(x: jax.Array) -> jax.Array:
                return logits_fn(params, x, *judged)

            model = Classifier(lambda x, *drawn: logits_fn(params, x, *drawn), labels, draws)
            result = attack(model if loss == CLASSIFIER else model.named(loss), images, keys, settings)
            clean, attacked = deployed(images), deployed(result.images)
            before = ~losses.is_wrong(clean, labels)
            # The kept iterate is wrong wherever any was; the clean image is one the attacker may always choose.
            correct = before & ~losses.is_wrong(attacked, labels)
            return before, correct, clean, attacked, result.loss, result.finite, result.images

        self._mapped = RowMap(white_box, None, batch_size) if map_rows is None else map_rows(white_box, batch_size)

    def __call__(
        self,
        params: PyTree,
        images: Float[Array | np.ndarray, "examples height width channels"],
        labels: Shaped[Array | np.ndarray, "..."],
        keys: Key[Array, " examples"],
        *,
        side_inputs: PyTree = None,
        settings: AtRadius | None = None,
        keep_images: bool = False,
    ) -> Robustness:
        """Attack N images.

        Args:
          params: of `logits_fn`.
          images: in [0, 1].
          labels: classes i32[N], or multi-hot f32[N, C].
          keys: from `keys.example_keys`: the result of an example does not depend on its batch.
          side_inputs: further inputs of the model that the attacker leaves as they are, e.g. the embedding of a
            question
            about each image: an array (or a tree of them) with N rows.
          settings: others of the same kind, e.g. `settings.with_epsilon(...)`.
          keep_images: return the adversarial images.

        Raises:
          DataError: lengths that differ, labels that are no classes.
        """
        images = np.asarray(images, np.float32)
        multi_label = self._loss in losses.MULTI_LABEL or (self._loss == CLASSIFIER and np.ndim(labels) == 2)
        labels = np.asarray(labels, np.float32 if multi_label else np.int32)
        count = len(images)
        if count == 0 or len(labels) != count or keys.shape != (count,) or labels.ndim != 1 + multi_label:
            raise DataError(f"images {images.shape}, labels {labels.shape} and keys {keys.shape} do not fit each other")
        if not multi_label and labels.min() < 0:
            raise DataError(
                f"label {labels.min()} in row {labels.argmin()}: leave out rows without a class of the task"
            )
        rows = [len(leaf) for leaf in jax.tree.leaves(side_inputs)]
        if any(length != count for length in rows):
            raise DataError(f"{rows} rows of side inputs for {count} images")
        shared = (params, self.settings if settings is None else settings)
        outputs = self._mapped(shared, (images, labels, keys, side_inputs))
        return Robustness(*outputs if keep_images else outputs[:-1])


def survivors(
    attacks: Sequence[WhiteBox],
    params: PyTree,
    images: Float[Array | np.ndarray, "examples height width channels"],
    labels: Shaped[Array | np.ndarray, "..."],
    keys: Key[Array, " examples"],
    epsilons: Sequence[float],
    alive: Bool[Array | np.ndarray, " examples"],
    side_inputs: PyTree = None,
) -> dict[float, Bool[np.ndarray, " examples"]]:
    """Return which examples are still right at each radius under every attack; they only become fewer with the radius.

    Radii are taken from the least. What broke an example in a smaller ball lies in the larger one, too, and one attack
    that breaks it is enough, so only those still right are attacked again.

    Args:
      attacks: on one model; each scales its step with the radius where it has one.
      params, images, labels, keys, side_inputs: as `WhiteBox.__call__`.
      epsilons: above 0, in pixel units.
      alive: e.g. where the model is right without an attack.

    Raises:
      ConfigError: a radius that is not above 0.
    """
    images, labels = np.asarray(images, np.float32), np.asarray(labels)
    left, found = np.array(alive, bool), {}
    for epsilon in sorted(epsilons):
        if not epsilon > 0:
            raise ConfigError("epsilons", epsilon, "radii above 0")
        for attack in attacks:
            rows = np.flatnonzero(left)
            if not rows.size:
                break
            settings = attack.settings.with_epsilon(epsilon)
            own = jax.tree.map(lambda x: x[rows], side_inputs)  # noqa: B023
            result = attack(params, images[rows], labels[rows], take(keys, rows), side_inputs=own, settings=settings)
            left[rows] &= result.correct
        found[epsilon] = left.copy()
    return found
