"""What training on cached features is made of: an AdamW step with a traced rate, and epochs until none is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from ranjax.core.types import Params

LARGE = 0.9
"""The share of the first weights' gradient that is still large: heads that hardly moved keep more, all others less.

Overfitted heads that validation ended early kept up to 0.75 (of features with much noise), those at rates 100 times too
small 0.84 and more."""
ADVICE = "give it more epochs, or a higher rate"


def unfinished(
    name: str,
    chosen: Sequence[int],
    most: int,
    patience: int,
    history: np.ndarray | None = None,
    gradient: Sequence[float] | None = None,
) -> list[str]:
    """Return a note where fits were best in the last of at most `most` epochs, or their gradient is still large.

    Args:
      name: of the method.
      chosen: the best epoch of each seed, from 0.
      most: epochs at most.
      patience: 0 for fits of a fixed number of epochs, whose last says something only where `history` is given.
      history: f32[seeds, epochs], the figure that chose. Of a fixed number of epochs those count that were better in
        the last than in all before; of equal figures the lower loss chooses, which falls for ever.
      gradient: of each seed, the norm of the training loss's gradient that is left, as a share of the first one.
    """
    last = [epoch == most - 1 for epoch in chosen]
    if not patience:
        rose = np.zeros(len(chosen), bool) if history is None else _rose(history)
        last = [late and bool(better) for late, better in zip(last, rose)]
    notes = []
    if any(last):
        notes.append(f"was best in its last epoch of {most} with {sum(last)} of {len(chosen)} seeds")
    large = [share for share in gradient or () if share > LARGE]
    if large:
        what = f"{min(max(large), 9.99):.2f} of its first gradient is left, above {LARGE:g}"
        notes.append(f"ended while its gradient was large with {len(large)} of {len(chosen)} seeds ({what})")
    return [f"{name} {note}: it has not converged" for note in notes]


def _rose(history: np.ndarray) -> np.ndarray:
    return history[:, -1] > np.max(history[:, :-1], axis=1, initial=-np.inf)


def until_worse(
    epoch: Callable[[PyTree, Array], tuple[PyTree, PyTree]], start: PyTree, most: int, patience: int
) -> tuple[PyTree, PyTree, Array]:
    """Return what `lax.scan` of `epoch` gives, ended after `patience` epochs without a better one, and their number.

    The state's second part holds the best epoch so far, "epoch".
    """
    shapes = jax.eval_shape(epoch, start, jnp.int32(0))[1]
    kept = {
        name: jax.tree.map(
            lambda x, name=name: jnp.full((most, *x.shape), jnp.nan if name == "losses" else -jnp.inf), part
        )
        for name, part in shapes.items()
    }

    def goes_on(carry: PyTree) -> Array:
        _, _, index, without = carry
        return (index < most) & (without < patience)

    def one(carry: PyTree) -> PyTree:
        state, kept, index, without = carry
        state, found = epoch(state, index)
        kept = jax.tree.map(lambda all_, new: all_.at[index].set(new), kept, found)
        return state, kept, index + 1, jnp.where(state[1]["epoch"] == index, 0, without + 1)

    state, kept, trained, _ = lax.while_loop(goes_on, one, (start, kept, jnp.int32(0), jnp.int32(0)))
    return state, kept, trained


def adamw(
    params: Params, gradients: Params, moments: tuple[Params, Params], count: Array, rate: Array, decay: Array
) -> tuple[Params, tuple[Params, Params]]:
    """AdamW (Loshchilov & Hutter 2019; betas 0.9, 0.999, epsilon 1e-8) with a traced rate and decay; count from 1."""
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * (g * g), moments[1], gradients)
    to_mean, to_square = 1 / (1 - 0.9**count), 1 / (1 - 0.999**count)

    def update(p: Array, m: Array, v: Array) -> Array:
        return p - rate * (m * to_mean / (jnp.sqrt(v * to_square) + 1e-8) + decay * p)

    return jax.tree.map(update, params, mean, square), (mean, square)
