"""The nearest point of a hyperplane within the box [0, 1], as FAB needs it (arXiv 1907.02044, equation 3).

For each row: the shortest `delta` in the norm with ``<w, points + delta> = b`` and ``0 <= points + delta <= 1``. Where
no point of the box lies on the hyperplane, every entry goes as far towards it as the box lets it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rows = Float[Array, "rows numbers"]
PerRow = Float[Array, "rows"]
Nearest = Callable[[Rows, Rows, PerRow], Rows]

TINY = 1e-8  # under l2 and l1 the public code leaves entries of a smaller |w| alone


def _towards(points: Rows, w: Rows, b: PerRow) -> tuple[Rows, Rows, PerRow]:
    """Return which way each entry goes (-1, 0, 1), how far the box lets it, and how far <w, points> is from b."""
    excess = jnp.sum(w * points, axis=1) - b
    way = -jnp.sign(w) * jnp.where(excess >= 0, 1, -1)[:, None]
    return way, jnp.where(way > 0, 1 - points, points), jnp.abs(excess)


def _multiplier(slope: Rows, most: Rows, needed: PerRow) -> PerRow:
    """Solve sum_i min(m * slope_i, most_i) = needed for m >= 0, by Newton's steps.

    The sum is concave and made of straight pieces, so from 0 the steps only rise and end exactly; a row of which no
    multiplier is enough ends where all its entries are at their most.
    """
    State = tuple[Array, Array, Array]

    def unfinished(state: State) -> Array:
        multiplier, before, count = state
        return jnp.any(multiplier > before) & (count < 100)

    def newton(state: State) -> State:
        multiplier, _, count = state
        free = multiplier[:, None] * slope < most
        reached = jnp.sum(jnp.where(free, 0, most), axis=1)
        rise = jnp.sum(jnp.where(free, slope, 0), axis=1)
        found = jnp.where(rise > 0, (needed - reached) / jnp.where(rise > 0, rise, 1), multiplier)
        return jnp.maximum(found, multiplier), multiplier, count + 1

    start = jnp.zeros_like(needed)
    return jax.lax.while_loop(unfinished, newton, (start, start - 1, jnp.zeros((), jnp.int32)))[0]


def _reachable(w: Rows, room: Rows, needed: PerRow) -> Array:
    return (jnp.sum(jnp.abs(w) * room, axis=1) > needed)[:, None]


def linf(points: Rows, w: Rows, b: PerRow) -> Rows:
    """Return the delta of least largest entry: all entries move alike, as far as the box lets each."""
    way, room, needed = _towards(points, w, b)
    size = jnp.abs(w)
    multiplier = _multiplier(size, size * room, needed)[:, None]
    return way * jnp.where(_reachable(w, room, needed), jnp.minimum(multiplier, room), room)


def l2(points: Rows, w: Rows, b: PerRow) -> Rows:
    """Return the delta of least length: entries move in proportion to w, as far as the box lets each."""
    w = jnp.where(jnp.abs(w) > TINY, w, 0)
    way, room, needed = _towards(points, w, b)
    size = jnp.abs(w)
    multiplier = _multiplier(jnp.square(w), size * room, needed)[:, None]
    return way * jnp.where(_reachable(w, room, needed), jnp.minimum(multiplier * size, room), room)


def l1(points: Rows, w: Rows, b: PerRow) -> Rows:
    """Return the delta of least sum: the entries of largest |w| go to the box's edge, one after another."""
    w = jnp.where(jnp.abs(w) > TINY, w, 0)
    way, room, needed = _towards(points, w, b)
    size = jnp.abs(w)
    order = jnp.argsort(-size, axis=1)
    gain = jnp.take_along_axis(size * room, order, axis=1)
    left = needed[:, None] - (jnp.cumsum(gain, axis=1) - gain)
    steepness = jnp.take_along_axis(size, order, axis=1)
    step = jnp.clip(left / jnp.where(steepness > 0, steepness, 1), 0, jnp.take_along_axis(room, order, axis=1))
    back = jnp.argsort(order, axis=1)
    return way * jnp.take_along_axis(step, back, axis=1)


NEAREST: dict[str, Nearest] = {"linf": linf, "l2": l2, "l1": l1}
