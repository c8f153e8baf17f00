"""The attacks of AutoAttack with their published settings, each as parts to be run on the survivors of the last."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ranjax.attacks import apgd_t, fab, square
from ranjax.attacks.apgd import APGD, apgd
from ranjax.attacks.apgd_t import TargetedAPGD
from ranjax.attacks.ascent import Iterate, fold_in, known, score
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.fab import FAB
from ranjax.attacks.square import Square

CHUNK = 250  # queries of Square after which survivors are packed anew

Found = tuple[jax.Array, jax.Array]
"""Images f32[B, ...] to go on from, and whether they are wrong bool[B]."""


@dataclass(frozen=True)
class Part:
    """One attack of the ensemble: what runs on the survivors, so many times, each time with another number.

    Attributes:
      name: e.g. "apgd_t".
      settings: of the attack, a pytree whose leaf is epsilon.
      count: how often: restarts, target classes, or chunks of queries.
      run: ``(classifier, images, keys, settings, number, latest images) -> Found``.
    """

    name: str
    settings: PyTree
    count: int
    run: Callable[..., Found]


def _gradient(
    loss: str, model: Classifier, images: Array, keys: Array, settings: APGD, number: Array, latest: Array
) -> Found:
    del latest
    result = apgd(model.named(loss), images, fold_in(keys, number), settings)
    return result.images, known(result.success, result.loss)


def _towards(
    model: Classifier, images: Array, keys: Array, settings: TargetedAPGD, number: Array, latest: Array
) -> Found:
    del latest
    targets = model.targets(model.logits(images, keys), settings.targets)
    target = jnp.take(targets, number.astype(jnp.int32), axis=1)
    result = apgd_t.towards(model, images, keys, settings, target, number)
    return result.images, known(result.success, result.loss)


def _boundary(model: Classifier, images: Array, keys: Array, settings: FAB, number: Array, latest: Array) -> Found:
    del latest
    target, restart = None, number
    if settings.targets:
        targets = model.targets(model.logits(images, keys), settings.targets)
        place = (number % targets.shape[1]).astype(jnp.int32)
        target, restart = jnp.take(targets, place, axis=1), number // targets.shape[1]
    run = fab.run_towards(model, images, fold_in(keys, number), settings, target, restart > 0)
    epsilon = jnp.broadcast_to(jnp.asarray(settings.epsilon, images.dtype), images.shape[:1])
    return run.images, run.success & (-run.raised <= epsilon)


def _random_search(
    model: Classifier, images: Array, keys: Array, settings: Square, number: Array, latest: Array
) -> Found:
    loss = model.named("margin_of_any" if model.multi_label else "margin")
    first = square.begin(loss, images, keys, settings)
    start = jnp.where(number == 0, first.images, latest)
    value, success = score(loss, start, keys, number * CHUNK)
    so_far, count = Iterate(start, value, known(success, value)), min(CHUNK, settings.queries)
    best, _ = square.query(loss, images, keys, settings, so_far, number * CHUNK, count)
    return best.images, best.success


def part_of(
    name: str, classes: int, multi_label: bool, *, version: str, norm: str, epsilon: float, steps: int, queries: int
) -> Part:
    """Return an attack with the settings of a version of AutoAttack; fewer classes have fewer targets.

    Args:
      name: of the attack, e.g. "apgd_t".
      classes, multi_label: of the classifier.
      version, norm, epsilon, steps, queries: as `autoattack.AutoAttack` takes them.
    """
    plus, l1 = version == "plus", norm == "l1"
    ball: dict[str, Any] = {"norm": norm, "steps": steps}
    gradient: dict[str, Any] = {**ball, "shrinking": l1}
    reachable = classes if multi_label else classes - 1
    targets = min(5 if l1 and not plus else 9, reachable)
    restarts = 1 if version == "rand" else 5 if plus or l1 else 1
    if name in ("apgd_ce", "apgd_dlr"):
        loss = {"apgd_ce": "cross_entropy", "apgd_dlr": "dlr" if classes > 2 else "margin"}[name]
        if multi_label:
            loss = {"apgd_ce": "binary_cross_entropy", "apgd_dlr": "margin_of_any"}[name]
        return Part(name, APGD(epsilon, **gradient), restarts, functools.partial(_gradient, loss))
    if name == "apgd_t":
        return Part(name, TargetedAPGD(epsilon, **gradient, targets=targets), targets, _towards)
    if name == "square":
        chunks = max(queries // CHUNK, 1)
        return Part(name, Square(epsilon, queries, norm), chunks, _random_search)
    targets = min(9, reachable) if name == "fab_t" else 0
    return Part(name, FAB(epsilon, **ball, targets=targets), targets or (5 if plus else 1), _boundary)
