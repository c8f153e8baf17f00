"""APGD under the L1 norm: sparse sign steps, whose number of pixels adapts (Croce & Hein 2021, arXiv 2103.01208).

A step moves the pixels of largest gradient alike; how many is two thirds of those that the best iterate has changed.
The numbers follow the public AutoAttack code. `shrinking` goes through three and two radii before the one asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ranjax.attacks import projections
from ranjax.attacks.ascent import (
    Iterate,
    Loss,
    Run,
    choose,
    expand_like,
    is_better,
    known,
    score,
    score_and_gradient,
    usable_gradient,
)
from ranjax.attacks.input_checks import Keys, Number, PerExample, Pixels

SHRINK, LEAST = 1.5, 10.0  # of the step, in radii: by what it falls, and the part at which it stays
FIRST_SHARE = 0.2  # of the pixels, in the first steps from a random start


class _State(NamedTuple):
    current: jax.Array  # f32[B, ...]
    kept: Iterate  # to return: success first
    top: Iterate  # to go back to: the highest loss
    top_gradient: jax.Array
    size: jax.Array  # step in radii, [B]
    share: jax.Array  # of the pixels that move, [B]
    changed: jax.Array  # pixels that the top had changed at the last checkpoint, [B]
    finite: jax.Array


def phases(steps: int, shrinking: bool) -> tuple[tuple[float, int], ...]:
    """Return the radii, in units of epsilon, and the steps at each."""
    if not shrinking:
        return ((1.0, steps),)
    first = math.ceil(0.3 * steps)
    return ((3.0, first), (2.0, first), (1.0, max(steps - 2 * first, 1)))


def _sparse(gradient: Pixels, share: PerExample) -> Pixels:
    """Return the signs of the largest entries of the gradient, a share of all, divided by how many there are."""
    batch, size = gradient.shape[0], jnp.abs(gradient).reshape(gradient.shape[0], -1)
    numbers = size.shape[1]
    place = jnp.clip(((1 - share) * numbers).astype(jnp.int32), 0, numbers - 1)
    least = jnp.take_along_axis(jnp.sort(size, axis=1), place[:, None], axis=1)
    signs = jnp.where(size >= least, jnp.sign(gradient).reshape(batch, -1), 0)
    return (signs / (jnp.sum(jnp.abs(signs), axis=1, keepdims=True) + 1e-10)).reshape(gradient.shape)


def run(
    loss_fn: Loss,
    keys: Keys,
    images: Pixels,
    start: Pixels,
    epsilon: Float[Array, "..."],
    steps: int,
    shrinking: bool,
    within: Callable[[Float[Array, "..."]], Callable[[jax.Array], jax.Array]],
    direction: int,
    free: Bool[Array, "..."] | None,
) -> Run:
    """Run the attack once.

    Args:
      loss_fn, keys, images: as for `apgd.apgd`.
      start: f32[B, ...], not projected yet.
      epsilon: the radius; steps: gradient evaluations in all; shrinking: see the module.
      within: radius -> the projection onto that ball.
      direction: 1 to raise the loss, -1 to lower it; free: the pixels that may change.
    """
    traces: list[Array] = []
    lengths: list[Array] = []
    current, finite = start, jnp.ones(images.shape[0], bool)
    first_number = 0
    for factor, count in phases(steps, shrinking):
        inside = within(factor * epsilon)
        ball = (inside(current), factor * epsilon, inside)
        state, (trace, length) = _phase(loss_fn, keys, images, *ball, count, first_number, shrinking, direction, free)
        traces, lengths, finite = [*traces, trace], [*lengths, length], finite & state.finite
        first_number += count
        loss, success = score(loss_fn, state.current, keys, first_number + 1)
        last = Iterate(state.current, direction * loss, known(success, loss))
        kept = choose(is_better(last, state.kept, False), last, state.kept)
        current = choose(last.raised > state.top.raised, last, state.top).images
    trace = jnp.concatenate([*traces, loss[None]])
    return Run(*kept, trace, jnp.concatenate(lengths), finite & jnp.isfinite(loss))


def _phase(
    loss_fn: Loss,
    keys: Keys,
    images: Pixels,
    first: Pixels,
    epsilon: Float[Array, "..."],
    inside: Callable[[jax.Array], jax.Array],
    steps: int,
    first_number: int,
    shrinking: bool,
    direction: int,
    free: Bool[Array, "..."] | None,
) -> tuple[_State, tuple[Array, Array]]:
    """Go `steps` steps within one ball."""
    batch, window, numbers = images.shape[0], max(int(0.04 * steps), 1), images[0].size

    def changed(candidate: Pixels) -> PerExample:
        axes = projections.pixel_axes(images)
        return jnp.sum(candidate != images, axis=axes).astype(images.dtype)

    def step(state: _State, number: Number) -> tuple[_State, tuple[PerExample, PerExample]]:
        # Score the iterate.
        loss, success, gradient = score_and_gradient(loss_fn, state.current, keys, first_number + number + 1)
        gradient, usable = usable_gradient(loss, direction * gradient, free)
        new = Iterate(state.current, direction * loss, success)
        higher = new.raised > state.top.raised
        state = state._replace(
            kept=choose(is_better(new, state.kept, False), new, state.kept),
            top=choose(higher, new, state.top),
            top_gradient=jnp.where(expand_like(higher, gradient), gradient, state.top_gradient),
            finite=state.finite & usable,
        )
        # At a checkpoint, a top of fewer pixels is gone back to with a full step; else the step falls.
        now = changed(state.top.images)
        at_check = (number > 0) & (number % window == 0)
        sparser = now / jnp.maximum(state.changed, 1) < 0.95
        size = jnp.clip(jnp.where(sparser, 1, state.size / SHRINK), 1 / LEAST, 1)
        back = expand_like(sparser & at_check, images)
        current = jnp.where(back, state.top.images, state.current)
        gradient = jnp.where(back, state.top_gradient, gradient)
        state = state._replace(
            size=jnp.where(at_check, size, state.size),
            share=jnp.where(at_check, now / numbers / 1.5, state.share),
            changed=jnp.where(at_check, now, state.changed),
        )
        following = inside(current + expand_like(state.size, images) * epsilon * _sparse(gradient, state.share))
        return state._replace(current=following), (loss, projections.l2_norm(gradient))

    loss_type = jax.eval_shape(lambda x: score(loss_fn, x, keys, 0)[0], first).dtype
    nothing = Iterate(first, jnp.full(batch, -jnp.inf, loss_type), jnp.zeros(batch, bool))
    at_first = changed(first) if shrinking else jnp.full(batch, numbers, images.dtype)
    share = at_first / numbers / 1.5 if shrinking else jnp.full(batch, FIRST_SHARE, images.dtype)
    state = _State(
        first,
        nothing,
        nothing,
        jnp.zeros_like(first),
        jnp.ones(batch, images.dtype),
        share,
        at_first,
        jnp.ones(batch, bool),
    )
    return jax.lax.scan(step, state, jnp.arange(steps, dtype=jnp.uint32))
