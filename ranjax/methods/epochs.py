"""What training on cached features is made of: an AdamW step with a traced rate, and epochs until none is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from ranjax.core.types import Params


def unfinished(
    name: str, chosen: Sequence[int], most: int, patience: int, history: np.ndarray | None = None
) -> list[str]:
    """Return a note where fits were best in the last of at most `most` epochs.

    Args:
      name: of the method.
      chosen: the best epoch of each seed, from 0.
      most: epochs at most.
      patience: 0 for fits of a fixed number of epochs, whose last says something only where `history` is given.
      history: f32[seeds, epochs], the figure that chose. Of a fixed number of epochs those count that were better in
        the last than in all before; of equal figures the lower loss chooses, which falls for ever.
    """
    last = [epoch == most - 1 for epoch in chosen]
    if not patience:
        rose = np.zeros(len(chosen), bool) if history is None else _rose(history)
        last = [late and bool(better) for late, better in zip(last, rose)]
    if not any(last):
        return []
    return [
        f"{name} was best in its last epoch of {most} with {sum(last)} of {len(chosen)} seeds: it has not converged"
    ]


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
