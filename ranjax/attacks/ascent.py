"""The one loop of the gradient attacks: a loss raised by any step rule from any start, within any projection.

An attack is a composition (start x step rule x projection x loss); `ascend` runs it. `ranjax.attacks.pgd` names the
usual compositions, and a new one is a new argument here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ranjax.attacks import input_checks, probabilities
from ranjax.attacks.input_checks import Flags, Images, Keys, Number, PerExample, Pixels
from ranjax.attacks.projections import Projection, l2_norm, pixel_axes
from ranjax.attacks.starts import Start
from ranjax.core.errors import DataError

Value = jax.Array | tuple[jax.Array, jax.Array]
"""The loss f32[B], or (loss f32[B], success bool[B])."""
Loss = Callable[..., Value]
"""``images f32[B, ...] -> Value``; a `KeyedLoss` is given keys as well."""
Scored = tuple[PerExample, Flags | None]
KEEP = ("best", "last", "best_batch")
_CLEAN = 0xFFFFFFFF  # the random stream that scores the clean images; runs count from 0


@dataclass(frozen=True)
class KeyedLoss:
    """A loss with random draws of its own: ``function(images, keys key[B])``, fresh keys at each step.

    Functions of `ranjax.attacks.transforms` return it; an attack recognises it and passes the keys.
    """

    function: Loss

    def __call__(self, *args: object) -> Value:
        return self.function(*args)


@dataclass(frozen=True)
class SummedLoss(KeyedLoss):
    """A loss that is a sum over parts, whose gradient is taken part by part, so that one part's activations are held.

    Attributes:
      part: ``(images, keys, number) -> (loss f32[B], success bool[B] or None)``; `number` is traced, from 0 on.
      count: of the parts.
      judge: success bool[count, B] of the parts to that of the whole, bool[B].
    """

    part: Callable[[jax.Array, jax.Array, jax.Array], Scored]
    count: int
    judge: Callable[[jax.Array], jax.Array]


def summed(
    part: Callable[[jax.Array, jax.Array, jax.Array], Scored], count: int, judge: Callable[[jax.Array], jax.Array]
) -> SummedLoss:
    """Return the `SummedLoss` of these parts; as a plain function it sums the parts in turn."""

    def whole(images: Pixels, keys: Keys) -> Value:
        losses, success = jax.lax.map(lambda number: part(images, keys, number), jnp.arange(count, dtype=jnp.uint32))
        total = jnp.sum(losses, axis=0)
        return total if success is None else (total, judge(success))

    return SummedLoss(whole, part, count, judge)


def negate_success(loss_fn: Loss) -> Loss:
    """Return the loss of a targeted run: it succeeds where the given one does not, so where the target is reached."""

    def negate(result: Value) -> Value:
        return (result[0], ~result[1]) if isinstance(result, tuple) else result

    if isinstance(loss_fn, SummedLoss):
        inner = loss_fn

        def part(images: Pixels, keys: Keys, number: Number) -> Scored:
            loss, success = inner.part(images, keys, number)
            return loss, None if success is None else ~success

        return SummedLoss(lambda *args: negate(inner(*args)), part, inner.count, lambda found: ~inner.judge(~found))
    if isinstance(loss_fn, KeyedLoss):
        return KeyedLoss(lambda *args: negate(loss_fn(*args)))
    return lambda images: negate(loss_fn(images))


class ImageAttack(NamedTuple):
    """The result of an attack on B images; a pytree of arrays.

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


class Iterate(NamedTuple):
    """Images f32[B, ...] with their raised loss f32[B] (its sign turned in a targeted run) and success bool[B]."""

    images: jax.Array
    raised: jax.Array
    success: jax.Array


class Run(NamedTuple):
    """One run from one start, or (with a leading axis on every field) several: the kept iterate and its record."""

    images: jax.Array
    raised: jax.Array
    success: jax.Array
    trace: jax.Array
    gradient_norm: jax.Array
    finite: jax.Array


Stacked = TypeVar("Stacked", Run, ImageAttack)


def batch_axis(field: str) -> int:
    """Return the axis of the batch in a field of `ImageAttack` or `Run`: first in images, last in all others."""
    return 0 if field == "images" else -1


def worst_of(runs: Stacked, index: Int[Array, "batch"]) -> Stacked:
    """Return, per example, the run `index` of runs stacked on a leading axis."""
    rows = jnp.arange(index.shape[0])

    def pick(field: str, value: jax.Array | None) -> PyTree:
        if value is None:
            return None
        axis = batch_axis(field) % (value.ndim - 1) + 1
        return jnp.moveaxis(jnp.moveaxis(value, axis, 1)[index, rows], 0, axis - 1)

    return type(runs)(*(pick(name, value) for name, value in zip(runs._fields, runs)))


def worst_index(
    loss: Float[Array, "runs batch"], success: Bool[Array, "runs batch"], finite: Bool[Array, "runs batch"]
) -> Int[Array, "batch"]:
    """Return, per example, the run that succeeds, then the one of highest loss; runs that are not finite come last."""
    ranked = jnp.where(success | ~jnp.any(success, axis=0, keepdims=True), loss, -jnp.inf)
    return jnp.argmax(jnp.where(finite, ranked, -jnp.inf), axis=0)


def fold_in(keys: Keys, number: ArrayLike) -> Keys:
    """Return one new key per example."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, jnp.asarray(number, jnp.uint32))


def expand_like(rows: PerExample | Flags, images: Pixels) -> Array:
    """Return one number per example, reshaped to broadcast against images."""
    return rows.reshape(rows.shape + (1,) * (images.ndim - 1))


def score(loss_fn: Loss, images: Pixels, keys: Keys, number: ArrayLike) -> Scored:
    """Return the loss and, where the loss function returns a pair, the success; `number` names its draws.

    Raises:
      DataError: the loss function does not give one loss per example.
    """
    # Keys are folded for random losses only: the generator is most of what a small program compiles.
    result = loss_fn(images, fold_in(keys, number)) if isinstance(loss_fn, KeyedLoss) else loss_fn(images)
    loss, success = result if isinstance(result, tuple) else (result, None)
    if jnp.shape(loss) != images.shape[:1]:
        expected = f"one loss per example, {images.shape[:1]}"
        raise DataError(f"the loss function gave shape {jnp.shape(loss)}, expected {expected}.")
    return loss, success


def score_and_gradient(
    loss_fn: Loss, images: Pixels, keys: Keys, number: ArrayLike
) -> tuple[PerExample, Flags, Pixels]:
    """Return the loss, the success (False where unknown) and the gradient of the sum of the losses."""
    if not isinstance(loss_fn, SummedLoss):
        return _differentiate(lambda images: score(loss_fn, images, keys, number), images)
    own, summed_loss = fold_in(keys, number), loss_fn

    # Part by part, gradients included: a scan under one gradient would hold the activations of all parts.
    def add(total: Pixels, index: Number) -> tuple[Pixels, tuple[PerExample, Flags]]:
        loss, success, gradient = _differentiate(lambda images: summed_loss.part(images, own, index), images)
        return total + gradient, (loss, success)

    numbers = jnp.arange(loss_fn.count, dtype=jnp.uint32)
    gradient, (losses, success) = jax.lax.scan(add, jnp.zeros_like(images), numbers)
    return jnp.sum(losses, axis=0), loss_fn.judge(success), gradient


def _differentiate(loss_fn: Callable[[jax.Array], Scored], images: Pixels) -> tuple[PerExample, Flags, Pixels]:
    def total(images: Pixels) -> tuple[Float[Array, ""], tuple[PerExample, Flags]]:
        loss, success = loss_fn(images)
        return jnp.sum(loss), (loss, known(success, loss))

    (_, (loss, success)), gradient = jax.value_and_grad(total, has_aux=True)(images)
    return loss, success, gradient


def known(success: Flags | None, loss: PerExample) -> Flags:
    """Return the success, False everywhere where the loss function does not state it."""
    return jnp.zeros(loss.shape, bool) if success is None else success


def is_better(new: Iterate, old: Iterate, whole_batch: bool) -> Flags:
    """Return which examples of `new` to keep. Success comes first, then the raised loss; NaN is never better."""
    if whole_batch:
        return jnp.broadcast_to(jnp.mean(new.raised) > jnp.mean(old.raised), new.raised.shape)
    higher = jnp.where(new.success == old.success, new.raised > old.raised, new.success)
    return higher & ~jnp.isnan(new.raised)


def choose(better: Flags, new: Iterate, old: Iterate) -> Iterate:
    """Return, row by row, `new` where `better`, else `old`."""
    images = jnp.where(expand_like(better, new.images), new.images, old.images)
    return Iterate(images, *(jnp.where(better, a, b) for a, b in zip(new[1:], old[1:])))


def usable_gradient(loss: PerExample, gradient: Pixels, free: Bool[Array, "..."] | None) -> tuple[Pixels, Flags]:
    """Return the gradient, 0 where a pixel is not free and in rows with NaN or infinity, and which rows have none."""
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient), axis=pixel_axes(gradient))
    used = expand_like(finite, gradient) if free is None else expand_like(finite, gradient) & free
    return jnp.where(used, gradient, 0), finite


def mask_outside(
    images: Pixels, projection: Projection, mask: ArrayLike | None
) -> tuple[Bool[Array, "..."] | None, Callable[[jax.Array], jax.Array]]:
    """Return the mask as bool of the rank of the images, and the projection that leaves pixels outside it bit-equal."""
    if mask is None:
        return None, lambda candidate: projection(candidate, images)
    free = input_checks.broadcast_per_example(mask, images, "mask") != 0
    return free, lambda candidate: jnp.where(free, projection(candidate, images), images)


def _run(
    follow: Loss,
    images: Pixels,
    keys: Keys,
    rule: optax.GradientTransformation,
    inside: Callable[[jax.Array], jax.Array],
    first: Pixels,
    steps: int,
    keep: str,
    direction: int,
    free: Bool[Array, "..."] | None,
) -> Run:
    """Run one ascent from `first`; `follow` is the loss whose gradient is followed, `inside` the projection."""
    State = tuple[jax.Array, optax.OptState, Iterate, jax.Array]

    def record(kept: Iterate, new: Iterate) -> Iterate:
        return new if keep == "last" else choose(is_better(new, kept, keep == "best_batch"), new, kept)

    def step(carry: State, number: Number) -> tuple[State, tuple[PerExample, PerExample]]:
        current, state, kept, finite = carry
        loss, success, gradient = score_and_gradient(follow, current, keys, number + 1)
        gradient, usable = usable_gradient(loss, direction * gradient, free)
        kept = record(kept, Iterate(current, direction * loss, success))
        update, state = rule.update(gradient, state, current)
        return (inside(current + update), state, kept, finite & usable), (loss, l2_norm(gradient))

    batch = images.shape[0]
    loss_type = jax.eval_shape(lambda x: score(follow, x, keys, 0)[0], images).dtype
    kept = Iterate(first, jnp.full(batch, -jnp.inf, loss_type), jnp.zeros(batch, bool))
    carry = (first, rule.init(first), kept, jnp.ones(batch, bool))
    carry, (losses, gradient_norm) = jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.uint32))
    # The last iterate has a loss, too, but nobody needs its gradient.
    last, _, kept, finite = carry
    loss, success = score(follow, last, keys, steps + 1)
    kept = record(kept, Iterate(last, direction * loss, known(success, loss)))
    return Run(*kept, jnp.concatenate([losses, loss[None]]), gradient_norm, finite & jnp.isfinite(loss))


def _worst_restart(runs: Run, keep: str) -> Run:
    """Return the worst case of stacked restarts: per example, or (best_batch) the restart of the highest mean."""
    if keep != "best_batch":
        return worst_of(runs, worst_index(runs.raised, runs.success, runs.finite))
    mean = jnp.where(jnp.all(runs.finite, axis=1), jnp.mean(runs.raised, axis=1), -jnp.inf)
    return worst_of(runs, jnp.broadcast_to(jnp.argmax(mean), runs.raised.shape[1:]))


def _recorded(loss_fn: Loss, images: Pixels, keys: Keys, result: Run, direction: int) -> tuple[PerExample, Flags]:
    """Return loss and success as recorded, and those of the clean image where a row was not finite.

    The clean images are scored only if there is such a row: a caller that reads no clean loss does not pay for it.
    """
    recorded = direction * result.raised, result.success

    def with_clean() -> tuple[PerExample, Flags]:
        clean, success = score(loss_fn, images, keys, _CLEAN)
        others = clean, known(success, clean)
        return jax.tree.map(lambda own, other: jnp.where(result.finite, own, other), recorded, others)

    return jax.lax.cond(jnp.all(result.finite), lambda: recorded, with_clean)


def finalize(
    loss_fn: Loss,
    images: Pixels,
    keys: Keys,
    run: Callable[[jax.Array, jax.Array], Run],
    measure: Callable[[jax.Array], jax.Array],
    restarts: int,
    keep: str,
    direction: int,
    rescore: bool = False,
) -> ImageAttack:
    """Call ``run(start_keys, loss_keys)`` once a restart and return the worst case, scored anew if `rescore`."""

    def numbered(number: ArrayLike) -> Run:
        return run(fold_in(keys, 2 * number), fold_in(keys, 2 * number + 1))

    if restarts == 1:
        result = numbered(0)
    else:
        result = _worst_restart(jax.lax.map(numbered, jnp.arange(restarts, dtype=jnp.uint32)), keep)
    clean_loss, clean_success = score(loss_fn, images, keys, _CLEAN)
    adversarial = jnp.where(expand_like(result.finite, images), result.images, images)
    if rescore:
        loss, success = score(loss_fn, adversarial, keys, _CLEAN)
    else:
        loss, success = _recorded(loss_fn, images, keys, result, direction)
        success = None if clean_success is None else success
    norm, record = measure(adversarial - images), (result.gradient_norm, result.finite)
    return ImageAttack(adversarial, loss, clean_loss, result.trace, norm, *record, success, clean_success)


def refuse_probabilities_of(loss_fn: Loss, images: Pixels, keys: Keys) -> None:
    """Raise DataError where a loss takes probabilities for logits; inside `jit` it is taken on trust."""
    probabilities.refuse_probabilities(loss_fn, images, *((keys,) if isinstance(loss_fn, KeyedLoss) else ()))


def ascend(
    loss_fn: Loss,
    images: Images,
    keys: ArrayLike,
    *,
    rule: optax.GradientTransformation,
    projection: Projection,
    start: Start,
    measure: Callable[[jax.Array], jax.Array],
    steps: int,
    restarts: int = 1,
    keep: str = "best",
    targeted: bool = False,
    mask: ArrayLike | None = None,
    surrogate: Loss | None = None,
    initial: ArrayLike | None = None,
) -> ImageAttack:
    """Raise `loss_fn` from the clean images; pure, traceable, compiled once for any number of steps and restarts.

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
      mask: True (or non-zero) where a pixel may change; broadcasts as `input_checks.broadcast_per_example` says. Others
        stay bit-equal.
      surrogate: the loss whose gradient is followed and whose values are traced, e.g. a bfloat16 form; `loss_fn` then
        scores only the clean and the returned images.
      initial: f32[B, ...], a start that stands in for `start` (projected all the same).

    Raises:
      DataError: images, keys or `initial` that do not fit. ConfigError: counts or shapes that are not allowed.
    """
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    refuse_probabilities_of(loss_fn, images, keys)
    input_checks.validate_count(steps, "steps", 0)
    input_checks.validate_count(restarts, "restarts", 1)
    input_checks.validate_choice(keep, "keep", KEEP)
    if initial is not None and jnp.shape(initial) != images.shape:
        raise DataError(f"initial has shape {jnp.shape(initial)}, expected that of the images, {images.shape}.")
    direction = -1 if targeted else 1
    if targeted:
        loss_fn, surrogate = negate_success(loss_fn), None if surrogate is None else negate_success(surrogate)
    free, inside = mask_outside(images, projection, mask)

    def run(start_keys: Keys, loss_keys: Keys) -> Run:
        first = start(start_keys, images) if initial is None else jnp.asarray(initial, images.dtype)
        follow = loss_fn if surrogate is None else surrogate
        return _run(follow, images, loss_keys, rule, inside, inside(first), steps, keep, direction, free)

    return finalize(loss_fn, images, keys, run, measure, restarts, keep, direction, rescore=surrogate is not None)
