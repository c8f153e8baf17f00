"""The one loop of the gradient attacks: a loss raised by any step rule from any start, within any projection.

An attack is a composition (start x step rule x projection x loss); `ascend` runs it. `ranjax.attacks.pgd` names the
usual compositions, and a new one is a new argument here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ranjax.attacks import input_checks as checks
from ranjax.attacks.projections import Projection, l2_norm, pixel_axes
from ranjax.attacks.starts import Start
from ranjax.core.errors import DataError

# images f32[B, ...] -> loss f32[B], or (loss f32[B], success bool[B]).
Loss = Callable[..., Any]
KEEP = ("best", "last", "best_batch")
_CLEAN = 0xFFFFFFFF  # the random stream that scores the clean images; runs count from 0


@dataclass(frozen=True)
class KeyedLoss:
    """A loss with random draws of its own: ``function(images, keys key[B])``, fresh keys at each step.

    What `ranjax.attacks.transforms` returns; an attack recognises it and passes the keys.
    """

    function: Loss

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@dataclass(frozen=True)
class SummedLoss(KeyedLoss):
    """A loss that is a sum over parts, whose gradient is taken part by part, so that one part's activations are held.

    Attributes:
      part: ``(images, keys, number) -> (loss f32[B], success bool[B] or None)``; `number` is traced, from 0 on.
      count: of the parts.
      judge: success bool[count, B] of the parts to that of the whole, bool[B].
    """

    part: Callable[..., tuple[jax.Array, jax.Array | None]]
    count: int
    judge: Callable[[jax.Array], jax.Array]


def summed(
    part: Callable[..., tuple[jax.Array, jax.Array | None]], count: int, judge: Callable[[jax.Array], jax.Array]
) -> SummedLoss:
    """The `SummedLoss` of these parts; as a plain function it sums the parts in turn."""

    def whole(images: jax.Array, keys: jax.Array) -> Any:
        losses, success = jax.lax.map(lambda number: part(images, keys, number), jnp.arange(count, dtype=jnp.uint32))
        total = jnp.sum(losses, axis=0)
        return total if success is None else (total, judge(success))

    return SummedLoss(whole, part, count, judge)


def turned(loss_fn: Loss) -> Loss:
    """The loss of a targeted run: it succeeds where the given one does not, so where the target is the top class."""

    def turn(result: Any) -> Any:
        return (result[0], ~result[1]) if isinstance(result, tuple) else result

    if isinstance(loss_fn, SummedLoss):

        def part(*args: Any) -> tuple[jax.Array, jax.Array | None]:
            loss, success = loss_fn.part(*args)
            return loss, None if success is None else ~success

        return SummedLoss(lambda *args: turn(loss_fn(*args)), part, loss_fn.count, lambda found: ~loss_fn.judge(~found))
    if isinstance(loss_fn, KeyedLoss):
        return KeyedLoss(lambda *args: turn(loss_fn(*args)))
    return lambda images: turn(loss_fn(images))


class ImageAttack(NamedTuple):
    """What an attack on B images gives back; a pytree of arrays.

    Attributes:
      images: f32[B, ...], the adversarial images, of the shape and dtype of the clean ones.
      loss: f32[B], the loss of `images` as recorded at that iterate, in the sign of the loss function.
      clean_loss: f32[B], the loss of the clean images.
      trace: f32[steps + 1, B], the loss at the start and after each step (of the surrogate, where one is given).
      norm: f32[B], the realised distance of `images` to the clean ones.
      gradient_norm: f32[steps, B], L2 norm of the gradient at each step; exactly 0 hints at gradient masking.
      finite: bool[B], False where the loss or a gradient was NaN or infinite; such an image comes back clean.
      success: bool[B], where the loss function says so (targeted: where it does not, see `ascend`), else None.
      clean_success: bool[B], the same of the clean images: wrong before the attack, which is no merit of the attack.
    """

    images: jax.Array
    loss: jax.Array
    clean_loss: jax.Array
    trace: jax.Array
    norm: jax.Array
    gradient_norm: jax.Array
    finite: jax.Array
    success: jax.Array | None = None
    clean_success: jax.Array | None = None


class Kept(NamedTuple):
    """An iterate with its raised loss and its success."""

    images: jax.Array
    raised: jax.Array
    success: jax.Array


def fold(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """One new key per example."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, jnp.asarray(number, jnp.uint32))


def as_rows(flags: jax.Array, images: jax.Array) -> jax.Array:
    """[B] reshaped to broadcast against images [B, ...]."""
    return flags.reshape(flags.shape + (1,) * (images.ndim - 1))


def score(
    loss_fn: Loss, images: jax.Array, keys: jax.Array, number: int | jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The loss f32[B] and, where the loss function returns a pair, the success bool[B]; `number` names its draws."""
    # Keys are folded for random losses only: the generator is most of what a small program compiles.
    result = loss_fn(images, fold(keys, number)) if isinstance(loss_fn, KeyedLoss) else loss_fn(images)
    loss, success = result if isinstance(result, tuple) else (result, None)
    if jnp.shape(loss) != images.shape[:1]:
        allowed = f"one loss per example, {images.shape[:1]}"
        raise DataError(f"the loss function gave shape {jnp.shape(loss)}, allowed: {allowed}.")
    return loss, success


def score_and_gradient(
    loss_fn: Loss, images: jax.Array, keys: jax.Array, number: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Loss f32[B], success bool[B] (False where unknown) and the gradient f32[B, ...] of the sum of the losses."""
    if not isinstance(loss_fn, SummedLoss):
        return _differentiate(lambda images: score(loss_fn, images, keys, number), images)
    own, part = fold(keys, number), loss_fn.part

    def add(total: jax.Array, index: jax.Array) -> Any:
        loss, success, gradient = _differentiate(lambda images: part(images, own, index), images)
        return total + gradient, (loss, success)

    numbers = jnp.arange(loss_fn.count, dtype=jnp.uint32)
    gradient, (losses, success) = jax.lax.scan(add, jnp.zeros_like(images), numbers)
    return jnp.sum(losses, axis=0), loss_fn.judge(success), gradient


def _differentiate(
    loss_fn: Callable[[jax.Array], tuple[jax.Array, jax.Array | None]], images: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def total(images: jax.Array) -> Any:
        loss, success = loss_fn(images)
        known = jnp.zeros(loss.shape, bool) if success is None else success
        return jnp.sum(loss), (loss, known)

    (_, (loss, success)), gradient = jax.value_and_grad(total, has_aux=True)(images)
    return loss, success, gradient


def is_better(new: Kept, old: Kept, whole_batch: bool) -> jax.Array:
    """bool[B]: which examples of `new` to keep. Success comes first, then the raised loss; NaN is never better."""
    if whole_batch:
        return jnp.broadcast_to(jnp.mean(new.raised) > jnp.mean(old.raised), new.raised.shape)
    higher = jnp.where(new.success == old.success, new.raised > old.raised, new.success)
    return higher & ~jnp.isnan(new.raised)


def choose(better: jax.Array, new: Kept, old: Kept) -> Kept:
    """Row by row `new` where `better`, else `old`."""
    images = jnp.where(as_rows(better, new.images), new.images, old.images)
    return Kept(images, *(jnp.where(better, a, b) for a, b in zip(new[1:], old[1:])))


class Run(NamedTuple):
    """One run from one start, or (with a leading axis on every field) several."""

    kept: Kept
    trace: jax.Array
    gradient_norm: jax.Array
    finite: jax.Array


def usable_gradient(loss: jax.Array, gradient: jax.Array, free: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The gradient, 0 where a pixel is not free and in rows that hold NaN or infinity; bool[B]: the other rows."""
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient), axis=pixel_axes(gradient))
    used = as_rows(finite, gradient) if free is None else as_rows(finite, gradient) & free
    return jnp.where(used, gradient, 0), finite


def _run(
    follow: Loss,
    images: jax.Array,
    keys: jax.Array,
    rule: optax.GradientTransformation,
    inside: Callable[[jax.Array], jax.Array],
    first: jax.Array,
    steps: int,
    keep: str,
    direction: int,
    free: jax.Array | None,
) -> Run:
    """One ascent from `first`; `follow` is the loss whose gradient is followed."""

    def record(kept: Kept, new: Kept) -> Kept:
        return new if keep == "last" else choose(is_better(new, kept, keep == "best_batch"), new, kept)

    def step(carry, number):
        current, state, kept, finite = carry
        loss, success, gradient = score_and_gradient(follow, current, keys, number + 1)
        gradient, usable = usable_gradient(loss, direction * gradient, free)
        kept = record(kept, Kept(current, direction * loss, success))
        update, state = rule.update(gradient, state, current)
        return (inside(current + update), state, kept, finite & usable), (loss, l2_norm(gradient))

    batch = images.shape[0]
    loss_type = jax.eval_shape(lambda x: score(follow, x, keys, 0)[0], images).dtype
    kept = Kept(first, jnp.full(batch, -jnp.inf, loss_type), jnp.zeros(batch, bool))
    carry = (first, rule.init(first), kept, jnp.ones(batch, bool))
    carry, (losses, gradient_norm) = jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.uint32))
    last, _, kept, finite = carry
    loss, success = score(follow, last, keys, steps + 1)
    success = jnp.zeros(batch, bool) if success is None else success
    kept = record(kept, Kept(last, direction * loss, success))
    return Run(kept, jnp.concatenate([losses, loss[None]]), gradient_norm, finite & jnp.isfinite(loss))


def _worst_case(runs: Run, keep: str) -> Run:
    """Of runs stacked over restarts, the worst case: per example, or (best_batch) of the mean."""
    raised, success = runs.kept.raised, runs.kept.success
    if keep == "best_batch":
        mean = jnp.where(jnp.all(runs.finite, axis=1), jnp.mean(raised, axis=1), -jnp.inf)
        index = jnp.broadcast_to(jnp.argmax(mean), raised.shape[1:])
    else:
        ranked = jnp.where(success | ~jnp.any(success, axis=0, keepdims=True), raised, -jnp.inf)
        index = jnp.argmax(jnp.where(runs.finite, ranked, -jnp.inf), axis=0)
    rows = jnp.arange(index.shape[0])

    def pick(stacked: jax.Array, batch_axis: int) -> jax.Array:
        moved = jnp.moveaxis(stacked, batch_axis, 1)  # [restarts, B, ...]
        return jnp.moveaxis(moved[index, rows], 0, batch_axis - 1)

    kept = Kept(*(pick(part, 1) for part in runs.kept))
    return Run(kept, pick(runs.trace, 2), pick(runs.gradient_norm, 2), pick(runs.finite, 1))


def within(
    images: jax.Array, projection: Projection, mask: Any
) -> tuple[jax.Array | None, Callable[[jax.Array], jax.Array]]:
    """The mask as bool of the rank of the images (or None), and the projection that keeps masked pixels bit-equal."""
    if mask is None:
        return None, lambda candidate: projection(candidate, images)
    free = checks.spread(mask, images, "mask") != 0
    return free, lambda candidate: jnp.where(free, projection(candidate, images), images)


def _recorded(
    loss_fn: Loss, images: jax.Array, keys: jax.Array, result: Run, direction: int
) -> tuple[jax.Array, jax.Array]:
    """Loss and success of what is returned: as recorded, and those of the clean image where a row was not finite.

    The clean images are scored only if there is such a row: who does not read the clean losses does not pay for them.
    """

    def recorded() -> tuple[jax.Array, jax.Array]:
        return direction * result.kept.raised, result.kept.success

    def with_clean() -> tuple[jax.Array, jax.Array]:
        clean, success = score(loss_fn, images, keys, _CLEAN)
        known = jnp.zeros(clean.shape, bool) if success is None else success
        kept = recorded()
        return jnp.where(result.finite, kept[0], clean), jnp.where(result.finite, kept[1], known)

    return jax.lax.cond(jnp.all(result.finite), recorded, with_clean)


def conclude(
    loss_fn: Loss,
    images: jax.Array,
    keys: jax.Array,
    run: Callable[[jax.Array, jax.Array], Run],
    measure: Callable[[jax.Array], jax.Array],
    restarts: int,
    keep: str,
    direction: int,
    rescore: bool = False,
) -> ImageAttack:
    """Does ``run(start_keys, loss_keys)`` per restart and states the worst case, scored anew if `rescore`."""

    def numbered(number: int | jax.Array) -> Run:
        return run(fold(keys, 2 * number), fold(keys, 2 * number + 1))

    if restarts == 1:
        result = numbered(0)
    else:
        result = _worst_case(jax.lax.map(numbered, jnp.arange(restarts, dtype=jnp.uint32)), keep)
    clean_loss, clean_success = score(loss_fn, images, keys, _CLEAN)
    adversarial = jnp.where(as_rows(result.finite, images), result.kept.images, images)
    if rescore:
        loss, success = score(loss_fn, adversarial, keys, _CLEAN)
    else:
        loss, success = _recorded(loss_fn, images, keys, result, direction)
        success = None if clean_success is None else success
    return ImageAttack(
        images=adversarial,
        loss=loss,
        clean_loss=clean_loss,
        trace=result.trace,
        norm=measure(adversarial - images),
        gradient_norm=result.gradient_norm,
        finite=result.finite,
        success=success,
        clean_success=clean_success,
    )


def ascend(
    loss_fn: Loss,
    images: Any,
    keys: jax.Array,
    *,
    rule: optax.GradientTransformation,
    projection: Projection,
    start: Start,
    measure: Callable[[jax.Array], jax.Array],
    steps: int,
    restarts: int = 1,
    keep: str = "best",
    targeted: bool = False,
    mask: Any = None,
    surrogate: Loss | None = None,
    initial: jax.Array | None = None,
) -> ImageAttack:
    """Raises `loss_fn` from the clean images; pure, traceable, compiled once whatever the number of steps and restarts.

    Each loss of the batch has its own gradient as long as rows are not coupled; where they are (InfoNCE), the gradient
    is that of the **sum**, an example's result depends on its batch-mates, and ``keep="best"`` may mix iterates that
    never stood together: take ``keep="best_batch"`` there.

    Args:
      loss_fn: ``images -> f32[B]``, raised (lowered where `targeted`), or ``images -> (f32[B], success bool[B])``: then
        an iterate that succeeds is preferred to any that does not. `targeted` turns both round: success is then where
        the flag, of the target, is False. A `KeyedLoss` gets fresh keys at each step.
      images: f32[B, ...] in [0, 1]; not changed.
      keys: key[B], one per example: start, restarts and random losses draw from it.
      rule: how a gradient becomes a step, see `ranjax.attacks.steps`.
      projection: applied to the start and after every step, see `ranjax.attacks.projections`.
      start: see `ranjax.attacks.starts`.
      measure: the realised norm f32[B] of a perturbation.
      steps: gradient evaluations per restart; 0 returns the projected start.
      restarts: independent runs, of which the worst case is kept per example (per batch under "best_batch").
      keep: the iterate to return: "best" loss per example, "best_batch" mean loss, or the "last".
      mask: True (or non-zero) where a pixel may change; broadcasts as `checks.spread` says. Others stay bit-equal.
      surrogate: the loss whose gradient is followed and whose values are traced, e.g. a bfloat16 form; `loss_fn` then
        scores only the clean and the returned images.
      initial: f32[B, ...], a start that stands in for `start` (projected all the same).

    Raises:
      DataError: images or keys that `checks` refuse. ConfigError: counts or shapes that are not allowed.
    """
    images = checks.validate_images(images)
    checks.validate_keys(keys, images.shape[0])
    checks.validate_count(steps, "steps", 0)
    checks.validate_count(restarts, "restarts", 1)
    checks.validate_choice(keep, "keep", KEEP)
    direction = -1 if targeted else 1
    if targeted:
        loss_fn, surrogate = turned(loss_fn), None if surrogate is None else turned(surrogate)
    free, inside = within(images, projection, mask)
    begin = None if initial is None else checks.validate_initial(initial, images)

    def run(start_keys: jax.Array, loss_keys: jax.Array) -> Run:
        first = start(start_keys, images) if begin is None else begin
        follow = loss_fn if surrogate is None else surrogate
        return _run(follow, images, loss_keys, rule, inside, inside(first), steps, keep, direction, free)

    return conclude(loss_fn, images, keys, run, measure, restarts, keep, direction, rescore=surrogate is not None)
