"""Attacks on images in [0, 1]: PGD and its relatives, each a composition run by `ranjax.attacks.ascent.ascend`.

    from ranjax.attacks import PGD, jitted, losses

    settings = PGD(epsilon="8/255", step_size="2/255", steps=10)
    attack = jitted(lambda params, x, labels: losses.cross_entropy(model(params, x), labels), settings)
    result = attack(params, images, keys, labels)          # compiled at the first call, checked at every one

Epsilon is in pixel units; normalisation belongs to the model. `pgd` itself is pure: inside your own ``jax.jit``, call
it with a closure over traced parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import optax
from jaxtyping import ArrayLike, PyTree

from ranjax.attacks import input_checks, losses, projections, starts
from ranjax.attacks import steps as step_rules
from ranjax.attacks.any_model import OnAnyModel
from ranjax.attacks.ascent import KEEP, ImageAttack, Loss, ascend
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Images, Keys, Length, Pixels
from ranjax.core.errors import ConfigError


@input_checks.traced_fields("epsilon", "step_size", "momentum")
@dataclass(frozen=True)
class PGD(OnAnyModel):
    """Settings of projected gradient ascent (Madry et al. 2018, arXiv 1706.06083); call them on a model to run it.

    A pytree whose leaves are `epsilon`, `step_size` and `momentum`: pass it through ``jit`` to change these without
    compiling again. With plain numbers it is hashable, too.

    Attributes:
      epsilon: radius in pixel units: a number, "8/255", or an array per example [B, 1, 1, 1] or (linf) per pixel.
      step_size: length of a step in pixel units, likewise; None takes 2.5 radii over `steps`.
      steps: gradient evaluations per restart.
      norm: "linf" (sign steps) or "l2" (normalised steps).
      start: "uniform" in the ball, or "none": the clean image.
      restarts: independent starts, of which the worst case is kept.
      targeted: lower the loss (of the target) instead of raising it; success is where the target is reached.
      keep: the iterate to return: "best" per example, "best_batch" (for losses that couple rows) or "last".
      momentum: decay mu of MI-FGSM's gradient accumulation; None for plain gradients.
      eps: another name of `epsilon`, in its place.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    epsilon: Length = None
    step_size: Length = None
    steps: int = 10
    norm: str = "linf"
    start: str = "uniform"
    restarts: int = 1
    targeted: bool = False
    keep: str = "best"
    momentum: Length = None
    eps: dataclasses.InitVar[Length] = None

    def __post_init__(self, eps: Length) -> None:
        input_checks.validate_search(self, ("uniform", "none"), eps)
        input_checks.validate_choice(self.keep, "keep", KEEP)
        decay = self.momentum
        if decay is not None and not input_checks.is_traced(decay) and (isinstance(decay, str) or not decay >= 0):
            raise ConfigError("momentum", decay, "None, or 0 or more")
        step_size = self.step_size
        if step_size is None:
            step_size = 2.5 * self.epsilon / max(self.steps, 1)
            if isinstance(step_size, float):  # at epsilon 0 any step is projected onto the point
                step_size = min(step_size or 1.0, 1.0) if self.norm == "linf" else step_size or 1.0
        step_size = input_checks.validate_length(step_size, "step_size", self.norm, positive=True)
        object.__setattr__(self, "step_size", step_size)

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """See `OnAnyModel`."""
        return pgd(model.raising(loss, "cross_entropy", "binary_cross_entropy"), images, keys, self)

    def with_epsilon(self, epsilon: Length) -> PGD:
        """Return the same settings at another radius, with the step in proportion; this one's epsilon is above 0."""
        if isinstance(self.epsilon, float) and self.epsilon == 0:
            raise ConfigError("epsilon", self.epsilon, "a number above 0, to scale the step by")
        epsilon = input_checks.validate_length(epsilon, "epsilon", self.norm)
        step_size = epsilon * (self.step_size / self.epsilon)
        if self.norm == "linf" and isinstance(step_size, float):
            step_size = min(step_size, 1.0)  # from anywhere in the box a step of 1 leads to its edge, as any longer one
        return dataclasses.replace(self, epsilon=epsilon, step_size=step_size)


def pgd(
    loss_fn: Loss,
    images: Images,
    keys: ArrayLike,
    settings: PyTree,
    *,
    mask: ArrayLike | None = None,
    surrogate: Loss | None = None,
    initial: ArrayLike | None = None,
) -> ImageAttack:
    """Run projected gradient ascent: x <- clip(Proj_eps(x + step_size * d(gradient)), 0, 1).

    The direction d is the sign (linf) or g / ||g||_2 (l2). Pure; the caller jits (or uses `jitted`). At ``epsilon = 0``
    the images come back bit-equal.

    Args:
      loss_fn: ``images -> f32[B]`` to be raised, or ``images -> (f32[B], success bool[B])``; see `ascend`, also for
        losses that couple the rows of a batch.
      images: f32[B, H, W, C] (or any layout with the batch first) in [0, 1].
      keys: key[B] from ``keys.example_keys``: the result of an example does not depend on its batch.
      settings: a `PGD`.
      mask, surrogate, initial: see `ascend`.

    Raises:
      DataError: images outside [0, 1], NaN, integers, a wrong rank; keys that are not one per example.
      ConfigError: settings of another attack; an epsilon, step_size or mask of a shape that does not broadcast; an L2
        ball without one radius an image, or beyond any image.
    """
    images = input_checks.validate_images(images)
    expected = "a pgd.PGD (with an apgd.APGD: attack=apgd.apgd)"
    input_checks.validate_settings(settings, ("epsilon", "step_size", "keep"), expected)
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    size = input_checks.broadcast_per_example(settings.step_size, images, "step_size")
    linf = settings.norm == "linf"
    step = step_rules.sign(size) if linf else step_rules.normalised_l2(size)
    uniform = starts.uniform_linf if linf else starts.uniform_l2
    return ascend(
        loss_fn,
        images,
        keys,
        rule=step if settings.momentum is None else optax.chain(step_rules.l1_momentum(settings.momentum), step),
        projection=projections.linf(epsilon) if linf else projections.l2(epsilon),
        start=starts.clean if settings.start == "none" else uniform(epsilon),
        measure=projections.linf_norm if linf else projections.l2_norm,
        steps=settings.steps,
        restarts=settings.restarts,
        keep=settings.keep,
        targeted=settings.targeted,
        mask=mask,
        surrogate=surrogate,
        initial=initial,
    )


def fgsm(epsilon: Length, norm: str = "linf", targeted: bool = False) -> PGD:
    """Return settings of the fast gradient sign method (Goodfellow et al. 2015): one step of length epsilon."""
    radius = input_checks.validate_length(epsilon, "epsilon", norm)
    # At epsilon 0 any step is projected onto the point.
    step_size = np.where(np.asarray(radius) > 0, radius, 1.0) if np.ndim(radius) else radius or 1.0
    return PGD(epsilon, step_size, 1, norm=norm, start="none", targeted=targeted, keep="last")


def bim(epsilon: Length, step_size: Length, steps: int, norm: str = "linf", targeted: bool = False) -> PGD:
    """Return settings of the basic iterative method (Kurakin et al. 2017): from the clean image, last iterate kept."""
    return PGD(epsilon, step_size, steps, norm=norm, start="none", targeted=targeted, keep="last")


def mi_fgsm(
    epsilon: Length, steps: int, decay: float | int = 1.0, step_size: Length = None, targeted: bool = False
) -> PGD:
    """Return settings of MI-FGSM (Dong et al. 2018, arXiv 1710.06081): accumulated gradients, step epsilon / steps."""
    input_checks.validate_count(steps, "steps", 1)
    size = input_checks.validate_length(epsilon, "epsilon", "linf") / steps if step_size is None else step_size
    return PGD(epsilon, size, steps, start="none", targeted=targeted, keep="last", momentum=decay)


def embedding_attack(
    features_fn: Callable[[jax.Array], jax.Array],
    images: Images,
    keys: ArrayLike,
    settings: PGD,
    loss: str = "cosine",
    *,
    mask: ArrayLike | None = None,
) -> ImageAttack:
    """Drive the embedding away from the clean image's own; no label is needed.

    Args:
      features_fn: ``images -> f32[B, D]``.
      images, keys, mask: as for `pgd`.
      settings: a `PGD` that starts at random: at the clean image itself the gradient of these losses is 0 but for
        rounding, which a sign blows up to full steps.
      loss: "cosine", "squared_distance" (FARE) or "coattack_kl".

    Raises:
      ConfigError: an unknown loss, or settings without a random start.
    """
    input_checks.validate_choice(loss, "loss", losses.NEEDS_RANDOM_START)
    if settings.start == "none":
        hint = "At the clean image its gradient is rounding noise."
        raise ConfigError("start", "none", f"'uniform' for the loss {loss!r}", hint)
    images = input_checks.validate_images(images)
    clean = jax.lax.stop_gradient(features_fn(images))
    return pgd(lambda x: getattr(losses, loss)(features_fn(x), clean), images, keys, settings, mask=mask)
