"""Square attack: random search by squares, without a gradient (Andriushchenko et al. 2020, arXiv 1912.00049).

The schedule, the starts and the moves are those of the public AutoAttack code, whose L1 form is Croce & Hein 2021
(arXiv 2103.01208), and so is the draw of places, which leaves out squares that touch the lower or the right edge. One
difference: every example draws squares of its own, where that code moves all images of a batch by the same one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree

from ranjax.attacks import input_checks, projections
from ranjax.attacks.any_model import OnAnyModel
from ranjax.attacks.ascent import (
    ImageAttack,
    Iterate,
    Loss,
    Run,
    choose,
    finalize,
    fold_in,
    known,
    score,
)
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Images, Keys, Length, Number, Pixels
from ranjax.core.errors import ConfigError

_MOVES = 0x53515541  # names the stream of the squares, apart from that of a random model's draws
# Queries of 10,000 after which the share of a square halves: those of the public code.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@input_checks.traced_fields("epsilon")
@dataclass(frozen=True)
class Square(OnAnyModel):
    """Settings of `square`, which can be called on a model; a pytree whose only leaf is `epsilon`.

    Attributes:
      epsilon: radius in pixel units: a number, "8/255", or an array per example [B, 1, 1, 1].
      queries: forward passes per restart.
      norm: "linf", "l2" or "l1".
      share: of the pixels that the first squares cover.
      rescale: run through the whole schedule of sizes within `queries`. AutoAttack's 5000 queries run through the first
        half of it, which is that of 10,000.
      restarts: independent starts, of which the worst case is kept.
      eps: another name of `epsilon`, in its place.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    epsilon: Length = None
    queries: int = 5000
    norm: str = "linf"
    share: float | int = 0.8
    rescale: bool = False
    restarts: int = 1
    eps: dataclasses.InitVar[Length] = None

    def __post_init__(self, eps: Length) -> None:
        input_checks.validate_choice(self.norm, "norm", input_checks.ALL_NORMS)
        input_checks.validate_count(self.queries, "queries", 1)
        input_checks.validate_count(self.restarts, "restarts", 1)
        if isinstance(self.share, str) or not 0 < self.share <= 1:
            raise ConfigError("share", self.share, "a share above 0 and at most 1")
        chosen = input_checks.radius(self.epsilon, eps)
        object.__setattr__(self, "epsilon", input_checks.validate_length(chosen, "epsilon", self.norm))

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """See `OnAnyModel`."""
        return square(model.raising(loss, "margin", "margin_of_any"), images, keys, self)

    def with_epsilon(self, epsilon: Length) -> Square:
        """Return the same settings at another radius."""
        return dataclasses.replace(self, epsilon=epsilon)


def shares(settings: Square) -> Float[np.ndarray, "queries"]:
    """Return the share of the pixels that each query's square covers (the parameter p of the paper)."""
    at = np.arange(settings.queries)
    if settings.rescale:
        at = (at / settings.queries * 10000).astype(int)
    return settings.share / 2.0 ** np.searchsorted(HALVINGS, at, side="left")


def sides(settings: Square, height: int, width: int) -> Int[np.ndarray, "queries"]:
    """Return the side of each query's square in pixels; under l2 and l1 at least 3, and odd while it fits."""
    least = 1 if settings.norm == "linf" else 3
    found = np.maximum([round(math.sqrt(share * height * width)) for share in shares(settings)], least)
    odd = found + (found % 2 == 0) if settings.norm != "linf" else found
    return np.minimum(odd, min(height, width)).astype(np.int32)


def bump(side: int, power: int) -> Float[np.ndarray, "side side"]:
    """Return a hill over a valley of the same size, of unit length (power 2: l2) or unit sum (power 4: l1).

    Each half falls from its centre by steps of 1 / k**power (Appendix B of the paper).
    """

    def half(height: int) -> np.ndarray:
        rows, columns = np.ogrid[:height, :side]
        away = np.maximum(np.abs(rows - height // 2), np.abs(columns - side // 2))
        most = max(height // 2, side // 2) + 1
        steps = 1 / np.arange(1, most + 1, dtype=np.float64) ** power
        inside = (steps * (np.arange(most) >= away[..., None])).sum(-1) if height else np.zeros((0, side))
        return inside / _length(inside, power) if height else inside

    whole = np.concatenate([half(side // 2), -half(side - side // 2)])
    return whole / _length(whole, power)


def _length(values: np.ndarray, power: int) -> float:
    return float(np.sqrt(np.square(values).sum()) if power == 2 else np.abs(values).sum())


class _Plan(NamedTuple):
    """What does not depend on the images' values: by query its size, by size its square and its bump."""

    size: jax.Array  # i32[queries], number of the size
    side: jax.Array  # i32[sizes]
    bumps: jax.Array  # f32[sizes, H, W], at the upper left; 0 elsewhere


def _plan(settings: Square, height: int, width: int, dtype: jnp.dtype) -> _Plan:
    by_query = sides(settings, height, width)
    side, size = np.unique(by_query, return_inverse=True)
    bumps = np.zeros((len(side), height, width))
    for number, one in enumerate(side if settings.norm != "linf" else ()):
        bumps[number, :one, :one] = bump(int(one), _power(settings.norm))
    return _Plan(jnp.asarray(size, jnp.int32), jnp.asarray(side), jnp.asarray(bumps, dtype))


def _power(norm: str) -> int:
    return 2 if norm == "l2" else 4


def _signs(key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    return jax.random.rademacher(key, shape, dtype)


def _corner(key: Key[Array, ""], side: Number, height: int, width: int) -> Int[Array, "two"]:
    """Draw the upper left corner of a square within the image; as in the public code, short of the far edges."""
    room = jnp.asarray([height, width], jnp.int32) - side
    return jax.random.randint(key, (2,), 0, jnp.maximum(room, 1))


def _inside(corner: Int[Array, "two"], side: Number, height: int, width: int) -> Bool[Array, "height width one"]:
    """Return where the square is."""
    row, column = jnp.arange(height) - corner[0], jnp.arange(width) - corner[1]
    return (((row >= 0) & (row < side))[:, None] & ((column >= 0) & (column < side))[None, :])[..., None]


def _lengths(delta: Float[Array, "height width channels"], norm: str) -> Float[Array, "one one channels"]:
    size = jnp.abs(delta) if norm == "l1" else jnp.square(delta)
    total = jnp.sum(size, axis=(0, 1), keepdims=True)
    return total if norm == "l1" else jnp.sqrt(total)


def _tiles(height: int, width: int, norm: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the bumps that tile the start and their transposes f64[2, H, W], the tile of each pixel (-1: none), and
    how many tiles there are.
    """
    side = max(min(height, width) // 5, 1)
    first = (min(height, width) - side * 5) // 2 if min(height, width) >= 5 else 0
    one = bump(side, _power(norm))
    bumps, tile, count = np.zeros((2, height, width)), np.full((height, width), -1), 0
    for top in range(first, height - side + 1, side):
        for left in range(first, width - side + 1, side):
            place = np.s_[top : top + side, left : left + side]
            bumps[0][place], bumps[1][place], tile[place] = one, one.T, count
            count += 1
    return bumps, tile, count


def _start(keys: Keys, images: Pixels, epsilon: Float[Array, "..."], settings: Square) -> Pixels:
    """Start at vertical stripes of +-epsilon (linf), or at tiles of bumps (l2, l1)."""
    _, height, width, channels = images.shape
    if settings.norm == "linf":
        stripes = jax.vmap(lambda key: _signs(key, (1, width, channels), images.dtype))(keys)
        return projections.linf(epsilon)(images + epsilon * stripes, images)
    bumps, tile, count = _tiles(height, width, settings.norm)
    pattern, within = jnp.asarray(bumps, images.dtype), jnp.asarray(tile >= 0)[..., None]

    def draw(key: Key[Array, ""]) -> Array:
        turn, sign = jax.random.split(key)
        turned = jax.random.bernoulli(turn, 0.5, (count,))[tile]
        signs = _signs(sign, (count, channels), images.dtype)[tile]
        return jnp.where(within, signs * jnp.where(turned, pattern[1], pattern[0])[..., None], 0)

    return _onto(images, jax.vmap(draw)(keys), epsilon, settings.norm)


def _onto(images: Pixels, delta: Pixels, epsilon: Float[Array, "..."], norm: str) -> Pixels:
    """Return images of which the change is of length epsilon (l2), or the nearest within the ball (l1)."""
    if norm == "l1":
        return projections.l1(epsilon)(images + delta, images)
    return jnp.clip(images + epsilon * projections.unit_l2(delta), 0, 1)


def _window(
    key: Key[Array, ""], plan: _Plan, number: Number, best: Float[Array, "height width channels"]
) -> Float[Array, "height width channels"]:
    """Draw a square of one sign a channel: 1 or -1 within, 0 outside."""
    place, sign = jax.random.split(key)
    side = plan.side[plan.size[number]]
    inside = _inside(_corner(place, side, *best.shape[:2]), side, *best.shape[:2])
    return jnp.where(inside, _signs(sign, (1, 1, best.shape[2]), best.dtype), 0)


def _moved(
    key: Key[Array, ""],
    plan: _Plan,
    number: Number,
    delta: Float[Array, "height width channels"],
    epsilon: Float[Array, "one one one"],
    norm: str,
) -> Float[Array, "height width channels"]:
    """Move the change of one square to another one, as a bump added to what is there (Algorithm 3 of the paper)."""
    places, turn, sign = jax.random.split(key, 3)
    size, channels = plan.size[number], delta.shape[2]
    side = plan.side[size]
    corners = [_corner(place, side, *delta.shape[:2]) for place in jax.random.split(places)]
    here, there = (_inside(corner, side, *delta.shape[:2]) for corner in corners)
    pattern = jnp.where(jax.random.bernoulli(turn), _transposed(plan.bumps[size]), plan.bumps[size])
    pattern = jnp.roll(jnp.roll(pattern, corners[0][0], 0), corners[0][1], 1)[..., None]
    new = pattern * _signs(sign, (1, 1, channels), delta.dtype)
    inside = jnp.where(here, delta, 0)
    new = jnp.where(here, new + inside / (1e-12 + _lengths(inside, norm)), 0)
    left = _lengths(jnp.where(here | there, delta, 0), norm)
    whole = jnp.sum(jnp.abs(delta)) if norm == "l1" else jnp.sum(jnp.square(delta))
    if norm == "l1":
        budget = jnp.maximum(epsilon - whole, 0) + left * channels
    else:
        budget = jnp.sqrt(jnp.maximum(jnp.square(epsilon) - whole, 0) / channels + jnp.square(left))
    new = new / (1e-12 + _lengths(new, norm)) * budget
    return jnp.where(here, new, jnp.where(there, 0, delta))


def _transposed(pattern: Float[Array, "height width"]) -> Float[Array, "height width"]:
    """Transpose what stands in the upper left square, which is as wide as the shorter side at most."""
    side = min(pattern.shape)
    return pattern.at[:side, :side].set(pattern[:side, :side].T)


def query(
    loss_fn: Loss,
    images: Pixels,
    keys: Keys,
    settings: Square,
    best: Iterate,
    first: ArrayLike,
    count: int,
) -> tuple[Iterate, Float[Array, "queries batch"]]:
    """Go on with the search for `count` queries from number `first`; stops where every example is broken.

    An example that is broken is done: it stays as it is, whatever its batch goes on to.

    Args:
      loss_fn: as for `square`.
      images: f32[B, H, W, C], the clean ones.
      keys: key[B].
      settings: a `Square`.
      best: what was found so far, e.g. from `begin`.
      first: number of the first query, traced; count: queries.

    Returns:
      The best iterate, and the highest loss after each query.
    """
    plan = _plan(settings, images.shape[1], images.shape[2], images.dtype)
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    radius = jnp.broadcast_to(epsilon, (images.shape[0], 1, 1, 1))
    project = projections.linf(epsilon)
    moves = fold_in(keys, _MOVES)
    State = tuple[Number, Iterate, Array]

    def unfinished(state: State) -> Array:
        number, best, _ = state
        return (number < count) & ~jnp.all(best.success)

    def step(state: State) -> State:
        done, best, trace = state
        number = jnp.asarray(first, jnp.int32) + done
        own = fold_in(moves, number)
        if settings.norm == "linf":
            signs = jax.vmap(_window, in_axes=(0, None, None, 0))(own, plan, number, best.images)
            candidate = project(jnp.where(signs != 0, images + epsilon * signs, best.images), images)
        else:
            moved = jax.vmap(_moved, in_axes=(0, None, None, 0, 0, None))
            delta = moved(own, plan, number, best.images - images, radius, settings.norm)
            candidate = _onto(images, delta, epsilon, settings.norm)
        loss, success = score(loss_fn, candidate, keys, 1 + number)
        success = known(success, loss)
        better = ~best.success & ((loss > best.raised) | success) & ~jnp.isnan(loss)
        best = choose(better, Iterate(candidate, loss, success), best)
        return done + 1, best, trace.at[done].set(best.raised)

    trace = jnp.zeros((count, images.shape[0]), best.raised.dtype)
    done, best, trace = jax.lax.while_loop(unfinished, step, (jnp.zeros((), jnp.int32), best, trace))
    return best, jnp.where(jnp.arange(count)[:, None] < done, trace, best.raised[None])


def begin(loss_fn: Loss, images: Pixels, keys: Keys, settings: Square, start_keys: Keys | None = None) -> Iterate:
    """Return the first iterate: stripes or tiles, with its loss and whether it succeeds."""
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    first = _start(fold_in(keys if start_keys is None else start_keys, 0), images, epsilon, settings)
    loss, success = score(loss_fn, first, keys, 0)
    return Iterate(first, loss, known(success, loss))


def square(loss_fn: Loss, images: Images, keys: ArrayLike, settings: PyTree) -> ImageAttack:
    """Search for images of higher loss by squares, without a gradient; pure and traceable.

    Args:
      loss_fn: ``images -> f32[B]``, or ``-> (f32[B], success bool[B])``; the paper raises the margin
        (`losses.margin`). An example that succeeds is done.
      images: f32[B, H, W, C] in [0, 1].
      keys: key[B].
      settings: a `Square`.

    Returns:
      The result; its `trace` has the highest loss so far, its `gradient_norm` no rows.

    Raises:
      DataError: images that are refused, or not [B, H, W, C]. ConfigError: settings of another attack.
    """
    images = input_checks.validate_images(images, 4)
    keys = input_checks.validate_keys(keys, images.shape[0])
    input_checks.validate_settings(settings, ("epsilon", "queries"), "a square.Square")

    def run(start_keys: Keys, loss_keys: Keys) -> Run:
        first = begin(loss_fn, images, loss_keys, settings, start_keys)
        best, trace = query(loss_fn, images, loss_keys, settings, first, 0, settings.queries)
        whole = jnp.concatenate([first.raised[None], trace])
        nothing = jnp.zeros((0, images.shape[0]), images.dtype)
        return Run(*best, whole, nothing, jnp.isfinite(first.raised))

    return finalize(loss_fn, images, keys, run, projections.norm_of(settings.norm), settings.restarts, "best", 1)
