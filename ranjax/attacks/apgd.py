"""APGD: projected gradient ascent without a step size to choose (Croce & Hein 2020, arXiv 2003.01690, Algorithm 1).

The step starts at 2 epsilon and halves, per example, at checkpoints where progress stalls. The numbers follow the
public AutoAttack code: momentum 0.75, rho 0.75, windows of 22 %, 19 %, 16 %, ... and never under 6 % of the steps (in
whole steps, rounded down, where the paper rounds checkpoints up), a start on the ball's surface. Two differences: the
first window's first comparison is with the loss at the start, where that code reads an entry that was never written;
and the gradient at the last iterate, which nothing uses, is not computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Shaped

from ranjax.attacks import apgd_l1, input_checks, losses, projections, starts
from ranjax.attacks.any_model import OnAnyModel
from ranjax.attacks.ascent import (
    ImageAttack,
    Iterate,
    Loss,
    Run,
    choose,
    expand_like,
    finalize,
    fold_in,
    is_better,
    known,
    mask_outside,
    negate_success,
    refuse_probabilities_of,
    score,
    score_and_gradient,
    usable_gradient,
    worst_index,
    worst_of,
)
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Flags, Images, Keys, Length, Number, PerExample, Pixels
from ranjax.core.errors import ConfigError

MOMENTUM = 0.75


@input_checks.traced_fields("epsilon")
@dataclass(frozen=True)
class APGD(OnAnyModel):
    """Settings of `apgd`, which can be called on a model; a pytree whose only leaf is `epsilon`.

    Attributes:
      epsilon: radius in pixel units: a number, "8/255", or an array per example [B, 1, 1, 1] or (linf) per pixel.
      steps: gradient evaluations per restart.
      norm: "linf", "l2" or "l1" (see `ranjax.attacks.apgd_l1`).
      start: "surface" of the ball (as the public code), "uniform" within it (not l1), or "none".
      restarts: independent starts, of which the worst case is kept per example.
      targeted: lower the loss (of the target) instead of raising it; success is where the target is reached.
      rho: the share of rising steps in a window at or below which the step is halved (not l1).
      shrinking: under l1, spend 60 % of the steps at three and two radii first, as AutoAttack does.
      eps: another name of `epsilon`, in its place.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    epsilon: Length = None
    steps: int = 100
    norm: str = "linf"
    start: str = "surface"
    restarts: int = 1
    targeted: bool = False
    rho: float | int = 0.75
    shrinking: bool = False
    eps: dataclasses.InitVar[Length] = None

    def __post_init__(self, eps: Length) -> None:
        starting = ("surface", "none") if self.norm == "l1" else ("surface", "uniform", "none")
        input_checks.validate_search(self, starting, eps, input_checks.ALL_NORMS)
        if self.shrinking and self.norm != "l1":
            raise ConfigError("shrinking", True, f"False under the norm {self.norm!r}")
        if isinstance(self.rho, str) or not 0 < self.rho < 1:
            raise ConfigError("rho", self.rho, "a share above 0 and below 1")

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """See `OnAnyModel`."""
        return apgd(model.raising(loss, "cross_entropy", "binary_cross_entropy"), images, keys, self)

    def with_epsilon(self, epsilon: Length) -> APGD:
        """Return the same settings at another radius."""
        return dataclasses.replace(self, epsilon=epsilon)


def schedule(steps: int) -> tuple[Bool[np.ndarray, "steps"], Int[np.ndarray, "steps"]]:
    """Return at which iterates 0..steps-1 the step may be halved, and the number of steps of that window."""
    window, least, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    check, since = np.zeros(steps, bool), np.zeros(steps, np.int32)
    at = window
    while at < steps:
        check[at], since[at] = True, window
        window = max(window - shrink, least)
        at += window
    return check, since


class _State(NamedTuple):
    current: jax.Array  # f32[B, ...]
    previous: jax.Array
    kept: Iterate  # to return: success first
    top: Iterate  # to go back to: the highest loss, whether it succeeds or not
    top_gradient: jax.Array
    size: jax.Array  # step in units of epsilon, [B]
    last_loss: jax.Array
    rises: jax.Array  # since the last checkpoint, [B]
    top_at_check: jax.Array
    halved_at_check: jax.Array
    finite: jax.Array


def _start(first: Pixels, loss_type: jnp.dtype) -> _State:
    batch = first.shape[0]
    lowest, no = jnp.full(batch, -jnp.inf, loss_type), jnp.zeros(batch, bool)
    nothing = Iterate(first, lowest, no)
    return _State(
        current=first,
        previous=first,
        kept=nothing,
        top=nothing,
        top_gradient=jnp.zeros_like(first),
        size=jnp.full(batch, 2, first.dtype),
        last_loss=lowest,
        rises=jnp.zeros(batch, loss_type),
        top_at_check=lowest,
        halved_at_check=~no,
        finite=~no,
    )


def _record(state: _State, new: Iterate, gradient: Pixels, usable: Flags, number: Number) -> _State:
    """Take a scored iterate into the state: what is kept, the top, and the number of rises."""
    higher = new.raised > state.top.raised
    rises = state.rises + (new.raised > state.last_loss).astype(new.raised.dtype)
    # The first iterate is no rise: nothing came before it, and it sets what the first checkpoint compares with.
    is_first = number == 0
    return state._replace(
        kept=choose(is_better(new, state.kept, False), new, state.kept),
        top=choose(higher, new, state.top),
        top_gradient=jnp.where(expand_like(higher, gradient), gradient, state.top_gradient),
        rises=jnp.where(is_first, 0, rises),
        last_loss=new.raised,
        top_at_check=jnp.where(is_first, new.raised, state.top_at_check),
        finite=state.finite & usable,
    )


def _halve(state: _State, window: Float[Array, ""], rho: float) -> tuple[Flags, _State]:
    """Halve the step after too few rises, or no better top since a checkpoint that left the step alone."""
    stalled = state.rises <= rho * window
    stuck = ~state.halved_at_check & (state.top_at_check >= state.top.raised)
    halve = stalled | stuck
    return halve, state._replace(
        size=jnp.where(halve, state.size / 2, state.size),
        rises=jnp.zeros_like(state.rises),
        top_at_check=state.top.raised,
        halved_at_check=halve,
    )


def _run(
    loss_fn: Loss,
    keys: Keys,
    first: Pixels,
    inside: Callable[[jax.Array], jax.Array],
    epsilon: Float[Array, "..."],
    settings: APGD,
    free: Bool[Array, "..."] | None,
) -> Run:
    """Run Algorithm 1 once from `first`; `inside` is the projection, `free` the pixels that may change."""
    direction = -1 if settings.targeted else 1
    check, since = schedule(settings.steps)
    unit_step = jnp.sign if settings.norm == "linf" else projections.unit_l2

    def step(
        state: _State, now: tuple[Number, Bool[Array, ""], Number]
    ) -> tuple[_State, tuple[PerExample, PerExample]]:
        number, at_check, window = now
        # Score the iterate.
        loss, success, gradient = score_and_gradient(loss_fn, state.current, keys, number + 1)
        gradient, usable = usable_gradient(loss, direction * gradient, free)
        state = _record(state, Iterate(state.current, direction * loss, success), gradient, usable, number)
        # At a checkpoint, halve the step and go back to the top where progress stalled.
        halve, after = _halve(state, window.astype(state.last_loss.dtype), settings.rho)
        state = jax.tree.map(lambda a, b: jnp.where(at_check, a, b), after, state)
        back = expand_like(halve & at_check, state.current)
        current = jnp.where(back, state.top.images, state.current)
        gradient = jnp.where(back, state.top_gradient, gradient)
        # Step along the gradient, with momentum from the second step on (equation 3).
        ahead = inside(current + expand_like(state.size, current) * epsilon * unit_step(gradient))
        share = jnp.where(number == 0, 1.0, MOMENTUM).astype(current.dtype)
        following = inside(current + share * (ahead - current) + (1 - share) * (current - state.previous))
        return state._replace(current=following, previous=current), (loss, projections.l2_norm(gradient))

    loss_type = jax.eval_shape(lambda x: score(loss_fn, x, keys, 0)[0], first).dtype
    numbers = jnp.arange(settings.steps, dtype=jnp.uint32)
    at_checks = (numbers, jnp.asarray(check), jnp.asarray(since))
    state, (trace, gradient_norm) = jax.lax.scan(step, _start(first, loss_type), at_checks)
    loss, success = score(loss_fn, state.current, keys, settings.steps + 1)
    last = Iterate(state.current, direction * loss, known(success, loss))
    kept = choose(is_better(last, state.kept, False), last, state.kept)
    return Run(*kept, jnp.concatenate([trace, loss[None]]), gradient_norm, state.finite & jnp.isfinite(loss))


def apgd(
    loss_fn: Loss, images: Images, keys: ArrayLike, settings: PyTree, *, mask: ArrayLike | None = None
) -> ImageAttack:
    """Run Auto-PGD on any loss per example; the best iterate is returned, one that succeeds before any that does not.

    Args:
      loss_fn: as for `pgd.pgd`; rows must not be coupled. `losses.of_classifier` gives it for a classifier.
      images: f32[B, H, W, C] in [0, 1].
      keys: key[B].
      settings: an `APGD`.
      mask: as for `pgd.pgd`.

    Raises:
      DataError, ConfigError: as `pgd.pgd`.
    """
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    input_checks.validate_settings(settings, ("epsilon", "rho"), "an apgd.APGD")
    refuse_probabilities_of(loss_fn, images, keys)
    if settings.targeted:
        loss_fn = negate_success(loss_fn)
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    free, inside = mask_outside(images, projections.ball(settings.norm, epsilon), mask)
    surface = {"linf": starts.surface_linf(epsilon), "l2": starts.surface_l2(epsilon), "l1": starts.gaussian}
    uniform = starts.uniform_linf if settings.norm == "linf" else starts.uniform_l2
    named = {"surface": surface[settings.norm], "uniform": uniform(epsilon), "none": starts.clean}
    direction = -1 if settings.targeted else 1

    def within(radius: Float[Array, "..."]) -> Callable[[jax.Array], jax.Array]:
        return mask_outside(images, projections.l1(radius), mask)[1]

    def run(start_keys: Keys, loss_keys: Keys) -> Run:
        first = named[settings.start](start_keys, images)
        if settings.norm == "l1":
            ball = (epsilon, settings.steps, settings.shrinking, within)
            return apgd_l1.run(loss_fn, loss_keys, images, first, *ball, direction, free)
        return _run(loss_fn, loss_keys, inside(first), inside, epsilon, settings, free)

    measure = projections.norm_of(settings.norm)
    return finalize(loss_fn, images, keys, run, measure, settings.restarts, "best", direction)


def apgd_targeted(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: Images,
    labels: Shaped[Array | np.ndarray, "..."],
    keys: ArrayLike,
    settings: APGD,
    *,
    classes: int = 9,
    mask: ArrayLike | None = None,
) -> ImageAttack:
    """Run APGD on the targeted DLR loss towards each of the best wrong classes of the clean image; the worst is kept.

    An example is attacked once per target class; a run that changes the class is preferred to any that does not, then
    the one with the highest loss. ``trace`` and ``loss`` are those of the run that is kept. Fewer than ``classes + 1``
    classes: all.

    Args:
      logits_fn: ``images -> logits f32[B, C]``, at least 4 classes.
      images, keys, mask: as for `apgd`.
      labels: i32[B].
      settings: an `APGD` that is not targeted.
      classes: target classes an example.

    Raises:
      ConfigError: fewer than 4 classes, or settings that ask to lower the loss.
    """
    input_checks.validate_settings(settings, ("epsilon", "rho"), "an apgd.APGD")
    if settings.targeted:
        raise ConfigError("targeted", True, "False: the targeted DLR loss is raised, towards its own targets")
    input_checks.validate_count(classes, "classes", 1)
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    logits = logits_fn(images)
    losses.dlr_targeted(logits, labels, labels)  # refuses too few classes before anything runs
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    _, targets = jax.lax.top_k(others, min(classes, logits.shape[-1] - 1))

    def towards(number: Number) -> ImageAttack:
        target = targets[:, number]

        def loss_fn(images: Pixels) -> tuple[PerExample, Flags]:
            logits = logits_fn(images)
            return losses.dlr_targeted(logits, labels, target), losses.is_wrong(logits, labels)

        return apgd(loss_fn, images, fold_in(keys, number), settings, mask=mask)

    return worst_case(jax.lax.map(towards, jnp.arange(targets.shape[1], dtype=jnp.uint32)))


def worst_case(attacks: ImageAttack) -> ImageAttack:
    """Return, of attacks stacked on a leading axis, per example the one that succeeds, then that of the highest loss.

    Raises:
      ConfigError: attacks on a loss that does not state success.
    """
    if attacks.success is None:
        raise ConfigError("loss", "one without success", "a loss function that returns (loss, success)")
    return worst_of(attacks, worst_index(attacks.loss, attacks.success, attacks.finite))
