"""A classifier under attack: what an attack takes that makes losses of its own, one for each class to reach.

An attack on one loss gets a function ``images -> loss``. APGD-T and FAB-T need more: which classes are nearest, and the
loss towards each of them. `Classifier` gives both, for labels of one class, multi-hot labels, and random models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ranjax.attacks import losses, transforms
from ranjax.attacks.ascent import KeyedLoss, Loss, fold_in
from ranjax.attacks.input_checks import Flags, Keys, PerExample, Pixels, validate_count
from ranjax.attacks.losses import Labels, Logits

Raised = Callable[[jax.Array], jax.Array]
"""``logits f32[B, C] -> f32[B]``, to be raised."""

_TARGETS = 0x54475453  # names the draws by which a random model's targets are chosen


@dataclass(frozen=True)
class Classifier:
    """The deployed model and the labels of a batch.

    Attributes:
      logits_fn: ``images f32[B, ...] -> logits f32[B, C]``; with `draws`, ``(images, keys key[B]) -> logits``.
      labels: i32[B], or multi-hot f32[B, C].
      draws: above 0 for a random model: losses are means over so many draws, fresh at each step.
    """

    logits_fn: Callable[..., jax.Array]
    labels: Labels
    draws: int = 0

    @property
    def multi_label(self) -> bool:
        """True where any number of classes may be right."""
        return jnp.ndim(self.labels) == 2

    def loss(self, raised: Raised) -> Loss:
        """Return ``images -> (loss f32[B], success bool[B])``; of a random model a `KeyedLoss`."""

        def judged(logits: Logits) -> tuple[PerExample, Flags]:
            return raised(logits), losses.is_wrong(logits, self.labels)

        if not self.draws:
            return lambda images: judged(self.logits_fn(images))
        return transforms.expectation(KeyedLoss(lambda images, keys: judged(self.logits_fn(images, keys))), self.draws)

    def named(self, name: str) -> Loss:
        """Return the loss of that name, as `losses.of_classifier` has it."""
        raised = losses.named(name, self.multi_label)
        return self.loss(lambda logits: raised(logits, self.labels))

    def raising(self, loss: str, single: str, several: str) -> Loss:
        """Return the loss named `loss`; where that is empty, `single` or, of multi-hot labels, `several`."""
        return self.named(loss or (several if self.multi_label else single))

    def logits(self, images: Pixels, keys: Keys) -> Logits:
        """Return the logits of these images; of a random model their mean over `draws`."""
        if not self.draws:
            return self.logits_fn(images)
        own = fold_in(keys, _TARGETS)
        numbers = jnp.arange(self.draws, dtype=jnp.uint32)
        return jnp.mean(jax.lax.map(lambda number: self.logits_fn(images, fold_in(own, number)), numbers), axis=0)

    def margins(self, logits: Logits) -> Float[Array, "batch classes"]:
        """Return by how much each class would have to fall short to be reached: above 0 where it is.

        Of labels of one class, z_k - z_y, and minus infinity for the label itself; of multi-hot labels how far class k
        is on the wrong side of 0.
        """
        if self.multi_label:
            return jnp.where(jnp.asarray(self.labels) > 0.5, -logits, logits)
        labels = jnp.asarray(self.labels)
        own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
        return jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits - own)

    def count_targets(self, classes: int, most: int) -> int:
        """Return how many classes can be reached, at most `most`."""
        validate_count(most, "targets", 1)
        return min(most, classes if self.multi_label else classes - 1)

    def targets(self, logits: Logits, most: int) -> Int[Array, "batch targets"]:
        """Return the nearest classes to reach, the nearest first."""
        return jax.lax.top_k(self.margins(logits), self.count_targets(logits.shape[-1], most))[1]

    def margin_to(self, target: Int[Array, "batch"]) -> Raised:
        """Return the margin of one class to reach, as `margins` has it."""
        return lambda logits: jnp.take_along_axis(self.margins(logits), target[:, None], axis=-1)[:, 0]

    def dlr_to(self, target: Int[Array, "batch"]) -> Raised:
        """Return the targeted DLR; the margin where that is undefined: fewer than 4 classes, or multi-hot labels."""

        def raised(logits: Logits) -> PerExample:
            if self.multi_label or logits.shape[-1] < 4:
                return self.margin_to(target)(logits)
            return losses.dlr_targeted(logits, self.labels, target)

        return raised
