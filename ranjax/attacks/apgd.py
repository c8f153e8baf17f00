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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks import input_checks as checks
from ranjax.attacks import losses, projections, starts
from ranjax.attacks.ascent import (
    ImageAttack,
    Kept,
    Loss,
    Run,
    as_rows,
    choose,
    conclude,
    fold,
    is_better,
    score,
    score_and_gradient,
    turned,
    usable_gradient,
    within,
)
from ranjax.core.errors import ConfigError

MOMENTUM = 0.75


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class APGD:
    """Settings of `apgd`; a pytree whose only leaf is `epsilon`.

    Attributes:
      epsilon: radius in pixel units: a number, "8/255", or an array per example [B, 1, 1, 1] or (linf) per pixel.
      steps: gradient evaluations per restart.
      norm: "linf" or "l2".
      start: "surface" of the ball (as the public code), "uniform" within it, or "none".
      restarts: independent starts, of which the worst case is kept per example.
      targeted: lower the loss (of the target) instead of raising it; success is where the target is reached.
      rho: the share of rising steps in a window at or below which the step is halved.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    epsilon: Any
    steps: int = 100
    norm: str = "linf"
    start: str = "surface"
    restarts: int = 1
    targeted: bool = False
    rho: float = 0.75

    def __post_init__(self) -> None:
        checks.validate_choice(self.norm, "norm", checks.NORMS)
        checks.validate_choice(self.start, "start", ("surface", "uniform", "none"))
        checks.validate_count(self.steps, "steps", 0)
        checks.validate_count(self.restarts, "restarts", 1)
        checks.validate_restarts(self.restarts, self.start)
        if isinstance(self.rho, str) or not 0 < self.rho < 1:
            raise ConfigError("rho", self.rho, "a share above 0 and below 1")
        object.__setattr__(self, "epsilon", checks.validate_length(self.epsilon, "epsilon", self.norm))

    def with_epsilon(self, epsilon: Any) -> APGD:
        """The same settings at another radius."""
        return dataclasses.replace(self, epsilon=epsilon)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return checks.flatten_settings(self, ("epsilon",))

    @classmethod
    def tree_unflatten(cls, rest: tuple[Any, ...], leaves: tuple[Any, ...]) -> APGD:
        return checks.unflatten_settings(cls, rest, leaves)


def schedule(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """At which iterates 0..steps-1 the step may be halved, bool[steps], and the steps of that window, i32[steps]."""
    window, least, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    check, since = np.zeros(steps, bool), np.zeros(steps, np.int32)
    at = window
    while at < steps:
        check[at], since[at] = True, window
        window = max(window - shrink, least)
        at += window
    return check, since


class _State(NamedTuple):
    current: jax.Array
    previous: jax.Array
    kept: Kept  # to return: success first
    top: Kept  # to go back to: the highest loss, whether it succeeds or not
    top_gradient: jax.Array
    size: jax.Array  # step in units of epsilon, [B]
    last_loss: jax.Array
    rises: jax.Array  # since the last checkpoint, [B]
    top_at_check: jax.Array
    halved_at_check: jax.Array
    finite: jax.Array


def _halve(state: _State, window: jax.Array, rho: float) -> tuple[jax.Array, _State]:
    """Where to halve the step: too few rises, or no better top since a checkpoint that left the step alone."""
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
    keys: jax.Array,
    first: jax.Array,
    inside: Callable[[jax.Array], jax.Array],
    epsilon: jax.Array,
    settings: APGD,
    free: jax.Array | None,
) -> Run:
    direction = -1 if settings.targeted else 1
    check, since = schedule(settings.steps)

    def unit_step(gradient: jax.Array) -> jax.Array:
        if settings.norm == "linf":
            return jnp.sign(gradient)
        length = projections.l2_norm(gradient, keepdims=True)
        return gradient / jnp.where(length > 0, length, jnp.ones_like(length))

    def step(state: _State, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[_State, tuple[jax.Array, jax.Array]]:
        number, at_check, window = now
        loss, success, gradient = score_and_gradient(loss_fn, state.current, keys, number + 1)
        gradient, usable = usable_gradient(loss, direction * gradient, free)
        raised = direction * loss
        new = Kept(state.current, raised, success)
        higher = raised > state.top.raised
        state = state._replace(
            kept=choose(is_better(new, state.kept, False), new, state.kept),
            top=choose(higher, new, state.top),
            top_gradient=jnp.where(as_rows(higher, gradient), gradient, state.top_gradient),
            rises=state.rises + (raised > state.last_loss).astype(raised.dtype),
            last_loss=raised,
            finite=state.finite & usable,
        )
        # The first iterate is no rise: nothing came before it, and it sets what the first checkpoint compares with.
        state = state._replace(
            rises=jnp.where(number == 0, 0, state.rises),
            top_at_check=jnp.where(number == 0, raised, state.top_at_check),
        )
        halve, after = _halve(state, window.astype(raised.dtype), settings.rho)
        state = jax.tree.map(lambda a, b: jnp.where(at_check, a, b), after, state)
        back = as_rows(halve & at_check, state.current)
        current = jnp.where(back, state.top.images, state.current)
        gradient = jnp.where(back, state.top_gradient, gradient)
        ahead = inside(current + as_rows(state.size, current) * epsilon * unit_step(gradient))
        share = jnp.where(number == 0, 1.0, MOMENTUM).astype(current.dtype)
        moved = inside(current + share * (ahead - current) + (1 - share) * (current - state.previous))
        return state._replace(current=moved, previous=current), (loss, projections.l2_norm(gradient))

    batch = first.shape[0]
    loss_type = jax.eval_shape(lambda x: score(loss_fn, x, keys, 0)[0], first).dtype
    lowest, no = jnp.full(batch, -jnp.inf, loss_type), jnp.zeros(batch, bool)
    nothing = Kept(first, lowest, no)
    state = _State(
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
    numbers = jnp.arange(settings.steps, dtype=jnp.uint32)
    state, (trace, gradient_norm) = jax.lax.scan(step, state, (numbers, jnp.asarray(check), jnp.asarray(since)))
    loss, success = score(loss_fn, state.current, keys, settings.steps + 1)
    last = Kept(state.current, direction * loss, no if success is None else success)
    kept = choose(is_better(last, state.kept, False), last, state.kept)
    return Run(kept, jnp.concatenate([trace, loss[None]]), gradient_norm, state.finite & jnp.isfinite(loss))


def apgd(loss_fn: Loss, images: Any, keys: jax.Array, settings: APGD, *, mask: Any = None) -> ImageAttack:
    """Auto-PGD on any loss per example; the best iterate is returned, one that succeeds before any that does not.

    Args:
      loss_fn: as for `image.pgd`; rows must not be coupled. `losses.of_classifier` gives it for a classifier.
      images: f32[B, H, W, C] in [0, 1]. keys: key[B]. settings: an `APGD`. mask: as for `image.pgd`.

    Raises:
      DataError, ConfigError: as `image.pgd`.
    """
    images = checks.validate_images(images)
    checks.validate_keys(keys, images.shape[0])
    checks.validate_settings(settings, ("epsilon", "rho"), "an apgd.APGD")
    if settings.targeted:
        loss_fn = turned(loss_fn)
    epsilon = checks.spread(settings.epsilon, images, "epsilon")
    linf = settings.norm == "linf"
    if not linf:
        checks.validate_l2(settings.epsilon, epsilon, images)
    free, inside = within(images, projections.linf(epsilon) if linf else projections.l2(epsilon), mask)
    named = {
        "surface": starts.surface_linf if linf else starts.surface_l2,
        "uniform": starts.uniform_linf if linf else starts.uniform_l2,
        "none": lambda _: starts.clean,
    }
    start = named[settings.start](epsilon)

    def run(start_keys: jax.Array, loss_keys: jax.Array) -> Run:
        return _run(loss_fn, loss_keys, inside(start(start_keys, images)), inside, epsilon, settings, free)

    measure = projections.linf_norm if linf else projections.l2_norm
    direction = -1 if settings.targeted else 1
    return conclude(loss_fn, images, keys, run, measure, settings.restarts, "best", direction)


def apgd_targeted(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: Any,
    labels: jax.Array,
    keys: jax.Array,
    settings: APGD,
    *,
    classes: int = 9,
    mask: Any = None,
) -> ImageAttack:
    """APGD on the targeted DLR loss towards each of the `classes` best wrong classes of the clean image; the worst is
    kept.

    An example is attacked once per target class; a run that changes the class is preferred to any that does not, then
    the one with the highest loss. ``trace`` and ``loss`` are those of the run that is kept. Fewer than ``classes + 1``
    classes: all.

    Args:
      logits_fn: ``images -> logits f32[B, C]``, at least 4 classes. labels: i32[B].

    Raises:
      ConfigError: fewer than 4 classes, or settings that ask to lower the loss.
    """
    checks.validate_settings(settings, ("epsilon", "rho"), "an apgd.APGD")
    if settings.targeted:
        raise ConfigError("targeted", True, "False: the targeted DLR loss is raised, towards its own targets")
    checks.validate_count(classes, "classes", 1)
    images = checks.validate_images(images)
    logits = logits_fn(images)
    losses.dlr_targeted(logits, labels, labels)  # refuses too few classes before anything runs
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    _, targets = jax.lax.top_k(others, min(classes, logits.shape[-1] - 1))

    def towards(number: jax.Array) -> ImageAttack:
        target = targets[:, number]

        def loss_fn(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_fn(images)
            return losses.dlr_targeted(logits, labels, target), losses.is_wrong(logits, labels)

        return apgd(loss_fn, images, fold(keys, number), settings, mask=mask)

    return worst_of(jax.lax.map(towards, jnp.arange(targets.shape[1], dtype=jnp.uint32)))


def worst_of(attacks: ImageAttack) -> ImageAttack:
    """Of attacks stacked on a leading axis, per example the one that succeeds, then the one with the highest loss."""
    loss, success = attacks.loss, attacks.success
    if success is None:
        raise ConfigError("loss", "one without success", "a loss function that returns (loss, success)")
    ranked = jnp.where(success | ~jnp.any(success, axis=0, keepdims=True), loss, -jnp.inf)
    index = jnp.argmax(jnp.where(attacks.finite, ranked, -jnp.inf), axis=0)
    rows = jnp.arange(index.shape[0])
    picked = {}
    for name, value in attacks._asdict().items():
        batch_axis = 2 if name in ("trace", "gradient_norm") else 1
        picked[name] = jnp.moveaxis(jnp.moveaxis(value, batch_axis, 1)[index, rows], 0, batch_axis - 1)
    return ImageAttack(**picked)
