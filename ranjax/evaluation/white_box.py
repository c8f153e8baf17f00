"""White-box robustness, end to end: the attack differentiates through encoder and head together.

    attack = WhiteBox(logits_fn, image.PGD(epsilon="4/255", step_size="1/255", steps=10, restarts=2))
    found = attack(params, images, labels, keys)             # params: encoder and head, as one pytree
    found.correct.mean()                                     # robust accuracy: right before and after

``logits_fn(params, images f32[B, H, W, C]) -> f32[B, C]`` is the deployed model, batch norm in evaluation mode.
Parameters are arguments, so one `WhiteBox` compiles once for all heads of one shape, all seeds, all upstream ratios and
all epsilons. :mod:`ranjax.attacks.masking` says whether such a figure is to be believed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ranjax.attacks import losses, transforms
from ranjax.attacks import pgd as image
from ranjax.attacks.ascent import KeyedLoss
from ranjax.core.errors import ConfigError, DataError

Logits = Callable[..., jax.Array]
RowFunction = Callable[[Any, Any], Any]
MapRows = Callable[[RowFunction, int], RowFunction]
"""``(fn(shared, rows) -> rows, batch size) -> the same function of any number of rows``: where the work is done."""


_JUDGE = 0x4A554447  # names the draw that a random model is judged by, apart from those of the attack's steps


class Robustness(NamedTuple):
    """What one attack did to N examples; every example counts once.

    Attributes:
      clean_correct: bool[N].
      correct: bool[N], right before the attack and on the worst iterate of all restarts.
      clean_logits, logits: f32[N, C], before and on the adversarial image.
      loss: f32[N], on the adversarial image.
      finite: bool[N], False where a loss or gradient was not finite, so that the image came back clean: not robustness.
      images: f32[N, H, W, C], or None where they were not asked for.
    """

    clean_correct: np.ndarray
    correct: np.ndarray
    clean_logits: np.ndarray
    logits: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    images: np.ndarray | None = None


class WhiteBox:
    """An attack on a classifier, compiled once per shape of parameters and micro-batch.

    Args:
      logits_fn: ``(params, images) -> logits``; with `draws`, ``(params, images, keys key[B]) -> logits``. Where a call
        gives rows `beside`, ``((params, beside), images)``.
      settings: of the attack, a pytree whose leaves (epsilon, step size) may change without compiling.
      attack: ``(loss_fn, images, keys, settings) -> result`` with fields `images`, `loss`, `finite`; the loss function
        gives ``(loss f32[B], success bool[B])``. E.g. `image.pgd`, `apgd.apgd`.
      loss: "cross_entropy", "dlr" or "margin"; multi-label tasks: "binary_cross_entropy".
      batch_size: images at a time (on each device); the last micro-batch is filled up with copies that do not count.
      draws: above 0 for a model with a random or test-time part: the attack goes through it and raises the mean over
        this many draws at each step (expectation over transformations, Athalye et al. 2018, arXiv 1707.07397). The
        model is then judged on one draw of its own, which the attacker does not see.
      map_rows: shares the rows out, e.g. over the devices of a mesh; by default one device takes them all.
    """

    def __init__(
        self,
        logits_fn: Logits,
        settings: Any,
        attack: Callable[..., Any] = image.pgd,
        loss: str = "cross_entropy",
        batch_size: int = 96,
        draws: int = 0,
        map_rows: MapRows | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError("batch_size", batch_size, "at least 1")
        if draws < 0:
            raise ConfigError("draws", draws, "0 or more")
        self.settings, self.batch_size, self.multi_label = settings, batch_size, loss == "binary_cross_entropy"

        def loss_of(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
            return losses.of_classifier(lambda x: x, labels, loss)(logits)

        def run(shared: Any, rows: Any) -> Any:
            (params, settings), (images, labels, keys, beside) = shared, rows
            params = params if beside is None else (params, beside)
            loss_fn: Any
            if draws:
                own = jax.vmap(lambda key: jax.random.fold_in(key, _JUDGE))(keys)

                def deployed(x: jax.Array) -> jax.Array:
                    return logits_fn(params, x, own)

                keyed = KeyedLoss(lambda x, k: loss_of(logits_fn(params, x, k), labels))
                loss_fn = transforms.expectation(keyed, draws)
            else:
                deployed = functools.partial(logits_fn, params)

                def loss_fn(x: jax.Array) -> tuple[jax.Array, jax.Array]:
                    return loss_of(deployed(x), labels)

            result = attack(loss_fn, images, keys, settings)
            clean, attacked = deployed(images), deployed(result.images)
            before = ~losses.is_wrong(clean, labels)
            # The kept iterate is wrong wherever any was; the clean image is one the attacker may always choose.
            return (
                before,
                before & ~losses.is_wrong(attacked, labels),
                clean,
                attacked,
                result.loss,
                result.finite,
                result.images,
            )

        self._run = jax.jit(run)
        self._mapped = self._alone if map_rows is None else map_rows(run, batch_size)

    def _alone(self, shared: Any, rows: Any) -> tuple[np.ndarray, ...]:
        count, parts = len(rows[0]), []
        for start in range(0, count, self.batch_size):
            take = np.minimum(np.arange(start, start + self.batch_size), count - 1)
            outputs = self._run(shared, jax.tree.map(lambda x: x[take], rows))  # noqa: B023
            parts.append([np.asarray(output)[: count - start] for output in outputs])
        return tuple(np.concatenate(field) for field in zip(*parts))

    def __call__(
        self,
        params: Any,
        images: Any,
        labels: Any,
        keys: jax.Array,
        *,
        beside: Any = None,
        settings: Any = None,
        keep_images: bool = False,
    ) -> Robustness:
        """Attacks N images.

        Args:
          params: of `logits_fn`.
          images: f32[N, H, W, C] in [0, 1].
          labels: i32[N], or f32[N, C] multi-hot.
          keys: key[N] from ``keys.example_keys``: the result of an example does not depend on its batch.
          beside: what the model is given beside each image and the attacker leaves be, e.g. the embedding of a question
            about it: an array (or a tree of them) with N rows.
          settings: others of the same kind, e.g. ``settings.with_epsilon(...)``.
          keep_images: return the adversarial images.

        Raises:
          DataError: lengths that differ, labels that are no classes.
        """
        images = np.asarray(images, np.float32)
        labels = np.asarray(labels, np.float32 if self.multi_label else np.int32)
        count = len(images)
        if count == 0 or len(labels) != count or keys.shape != (count,) or labels.ndim != 1 + self.multi_label:
            raise DataError(f"images {images.shape}, labels {labels.shape} and keys {keys.shape} do not fit each other")
        if not self.multi_label and labels.min() < 0:
            raise DataError(f"label {labels.min()} in row {labels.argmin()}: leave out rows that the task has not")
        shared = (params, self.settings if settings is None else settings)
        if any(len(leaf) != count for leaf in jax.tree.leaves(beside)):
            raise DataError(f"{[len(x) for x in jax.tree.leaves(beside)]} rows beside {count} images")
        outputs = self._mapped(shared, (images, labels, keys, beside))
        return Robustness(*outputs if keep_images else outputs[:-1])

    def curve(
        self, params: Any, images: Any, labels: Any, keys: jax.Array, epsilons: Sequence[float]
    ) -> list[Robustness]:
        """One result for each radius above 0, with the step in proportion; nothing compiles anew."""
        return [
            self(params, images, labels, keys, settings=self.settings.with_epsilon(epsilon)) for epsilon in epsilons
        ]


def worst_case(results: Sequence[Robustness]) -> Robustness:
    """The worst of several attacks on the same examples: right only where right under all of them.

    Logits, loss and images of an example are those of the first attack that broke it, else of the first attack.

    Raises:
      DataError: no result, or results of different examples.
    """
    if not results or any(not np.array_equal(r.clean_correct, results[0].clean_correct) for r in results):
        raise DataError("worst_case needs results of the same examples under one model")
    correct = np.stack([r.correct for r in results])
    first = np.where(correct.all(0), 0, correct.argmin(0))

    def of_first(name: str) -> Any:
        fields = [getattr(r, name) for r in results]
        return None if any(f is None for f in fields) else np.stack(fields)[first, np.arange(correct.shape[1])]

    return results[0]._replace(
        correct=correct.all(0),
        logits=of_first("logits"),
        loss=of_first("loss"),
        finite=np.stack([r.finite for r in results]).all(0),
        images=of_first("images"),
    )


def survivors(
    attacks: Sequence[WhiteBox],
    params: Any,
    images: Any,
    labels: Any,
    keys: jax.Array,
    epsilons: Sequence[float],
    alive: Any,
    beside: Any = None,
) -> dict[float, np.ndarray]:
    """Who is still right at each radius under every attack: {epsilon: bool[N]}, which only falls as epsilon rises.

    Radii are taken from the least. What broke an example in a smaller ball lies in the larger one, too, and one attack
    that breaks it is enough, so only those still right are attacked again.

    Args:
      attacks: on one model; each scales its step with the radius where it has one.
      params, images, labels, keys: as `WhiteBox.__call__`.
      epsilons: above 0, in pixel units.
      alive: bool[N], e.g. who is right without an attack.
      beside: as `WhiteBox.__call__`.

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
            own = jax.tree.map(lambda x: x[rows], beside)  # noqa: B023
            found_ = attack(params, images[rows], labels[rows], keys[rows], beside=own, settings=settings)
            left[rows] &= found_.correct
        found[epsilon] = left.copy()
    return found
