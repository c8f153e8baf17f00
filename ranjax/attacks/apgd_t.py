"""APGD-T: APGD on the targeted DLR, towards one of the nearest classes after another (Croce & Hein 2020, Section 4)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from ranjax.attacks import input_checks
from ranjax.attacks.apgd import APGD, apgd
from ranjax.attacks.ascent import ImageAttack, fold_in, known, worst_index, worst_of
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Images, Keys, Length, Number, Pixels
from ranjax.core.errors import ConfigError


@input_checks.traced_fields("epsilon")
@dataclass(frozen=True)
class TargetedAPGD(APGD):
    """Settings of `apgd_t`: those of `APGD` for each target, and how many there are.

    Attributes:
      targets: classes to reach, the nearest first.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    targets: int = 9

    def __post_init__(self, eps: Length) -> None:
        super().__post_init__(eps)
        input_checks.validate_count(self.targets, "targets", 1)
        if self.targeted:
            raise ConfigError("targeted", True, "False: the targeted DLR loss is raised, towards its own targets")

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """See `OnAnyModel`."""
        if loss:
            raise ConfigError(
                "loss", loss, "none: this attack makes losses of its own, towards one class after another"
            )
        return apgd_t(model, images, keys, self)

    def with_epsilon(self, epsilon: Length) -> TargetedAPGD:
        """Return the same settings at another radius."""
        return dataclasses.replace(self, epsilon=epsilon)


def towards(
    classifier: Classifier, images: Pixels, keys: Keys, settings: APGD, target: Array, number: Number
) -> ImageAttack:
    """Run APGD towards `target` i32[B]; `number` of the target names the random draws."""
    return apgd(classifier.loss(classifier.dlr_to(target)), images, fold_in(keys, number), settings)


def apgd_t(classifier: Classifier, images: Images, keys: ArrayLike, settings: PyTree) -> ImageAttack:
    """Run APGD towards each of the nearest classes in turn, until every image of the batch is broken.

    An image that one target breaks keeps that result. With fewer than 4 classes, and with multi-hot labels (where a
    target is one class to turn), the margin stands in for the targeted DLR, which is undefined.

    Args:
      classifier: the model and the labels.
      images: f32[B, H, W, C] in [0, 1].
      keys: key[B].
      settings: a `TargetedAPGD`.

    Raises:
      DataError, ConfigError: as `apgd.apgd`.
    """
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    input_checks.validate_settings(settings, ("epsilon", "rho", "targets"), "an apgd_t.TargetedAPGD")
    targets = classifier.targets(classifier.logits(images, keys), settings.targets)

    def one(number: Number) -> ImageAttack:
        target = jnp.take_along_axis(targets, jnp.broadcast_to(number, (images.shape[0], 1)).astype(jnp.int32), axis=1)
        return towards(classifier, images, keys, settings, target[:, 0], number)

    def further(kept: ImageAttack, number: Number) -> tuple[ImageAttack, None]:
        def both() -> ImageAttack:
            pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), kept, one(number))
            # What was broken stays as it is, so that a result does not depend on what else is in the batch.
            better = worst_index(pair.loss, pair.success, pair.finite)
            return worst_of(pair, jnp.where(known(kept.success, kept.loss), 0, better))

        return jax.lax.cond(jnp.all(known(kept.success, kept.loss)), lambda: kept, both), None

    first = one(jnp.zeros((), jnp.uint32))
    return jax.lax.scan(further, first, jnp.arange(1, targets.shape[1], dtype=jnp.uint32))[0]
