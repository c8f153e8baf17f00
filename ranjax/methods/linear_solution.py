"""What linear heads in closed form share: standardised features, their principal axes, and the map that is exported.

Features z are standardised on the training images, as the penalty of a coefficient is the same for each; the map that
comes of it, W and b on z, is folded into one on the features themselves. All of it in float64 on the host: the
matrices are small, and nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from ranjax.core.types import Params
from ranjax.methods import selection
from ranjax.methods.standardisation import Standard

Matrix = Float[np.ndarray, "_ _"]
Solutions = Float[np.ndarray, "_ _ _"]


def targets_of(labels: Shaped[np.ndarray, "..."], classes: int, multi_label: bool) -> Matrix:
    """Return what a squared loss aims at: one-hot f64[N, C] less 1 / C, or of multi-hot labels +-1.

    Less 1 / C, outputs sum to 0: those of plain one-hot targets sum to 1, as probabilities do, which logits are not.
    """
    labels = np.asarray(labels)
    return 2.0 * labels - 1.0 if multi_label else np.eye(classes)[labels] - 1 / classes


@dataclass(frozen=True)
class Axes:
    """Rows in the coordinates of their principal axes: ``rows = coordinates @ directions.T``.

    A penalised linear problem has its solution among the axes, so that it may be solved there, where the Gram matrix is
    diagonal: there are no more of them than rows or columns.

    Attributes:
      directions: f64[D, r], orthonormal columns.
      squares: f64[r], the squared length of each column of `coordinates`.
      coordinates: f64[N, r].
    """

    directions: Matrix
    squares: Float[np.ndarray, " axes"]
    coordinates: Matrix


def axes_of(rows: Matrix) -> Axes:
    """Return the principal axes of rows [N, D], by the eigenvectors of the smaller of their two Gram matrices."""
    count, width = rows.shape
    if count < width:
        squares, vectors = np.linalg.eigh(rows @ rows.T)
    else:
        squares, vectors = np.linalg.eigh(rows.T @ rows)
    kept = squares > max(squares[-1], np.finfo(np.float64).tiny) * 1e-12
    squares, vectors = squares[kept], vectors[:, kept]
    if count < width:
        lengths = np.sqrt(squares)[None, :]
        return Axes(rows.T @ (vectors / lengths), squares, vectors * lengths)
    return Axes(vectors, squares, rows @ vectors)


def folded(weights: Matrix, bias: Float[np.ndarray, " classes"], standard: Standard) -> Params:
    """Return {"classifier": {"kernel" f32[D, C], "bias" f32[C]}} on features, of a map on standardised ones."""
    kernel = weights * standard.inverse[:, None]
    return {
        "classifier": {
            "kernel": kernel.astype(np.float32),
            "bias": (bias - standard.mean @ kernel).astype(np.float32),
        }
    }


def reduced(variables: Params, outputs: Matrix, rank: int) -> Params:
    """Return a folded map cut to a rank: {"classifier": {"down" f32[D, r], "up" f32[r, C], "bias"}}.

    Reduced-rank regression (Izenman 1975): the kept directions are the first right singular vectors of the outputs
    [N, C] on training images, without their means. A rank of C - 1 or more loses nothing on one label an image.
    """
    own = variables["classifier"]
    centre = outputs.mean(0)
    up = np.linalg.svd(outputs - centre, full_matrices=False)[2][:rank]
    kernel = own["kernel"].astype(np.float64)
    # What is cut away keeps its mean over the training images.
    bias = centre + (own["bias"] - centre) @ up.T @ up
    return {
        "classifier": {
            "down": (kernel @ up.T).astype(np.float32),
            "up": up.astype(np.float32),
            "bias": bias.astype(np.float32),
        }
    }


def predict(variables: Params, features: Float[Array, "batch width"]) -> Float[Array, "batch classes"]:
    """Return the logits of a linear map, whole or in two factors."""
    own = variables["classifier"]
    kernels = [own["kernel"]] if "kernel" in own else [own["down"], own["up"]]
    for kernel in kernels:
        features = features @ kernel
    return features + own["bias"][None]


def for_seeds(variables: Params, seeds: Sequence[int]) -> Params:
    """Return the variables with a leading axis of seeds, all of which are alike: nothing was drawn."""
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(seeds), *leaf.shape)), variables)


def scores(
    metric: str, logits: Float[np.ndarray, "points examples classes"], labels: Shaped[np.ndarray, "..."]
) -> Float[np.ndarray, " points"]:
    """Return the validation metric of each point's logits."""
    multi_label = np.ndim(labels) == 2
    labels = np.asarray(labels, np.float32 if multi_label else np.int32)
    found = [selection.score(metric, np.asarray(one, np.float32), labels, multi_label) for one in logits]
    return np.asarray(jax.device_get(found), np.float64)


def at_the_end(name: str, grid: Sequence[float], taken: int) -> tuple[str, ...]:
    """Return a note where the best value of a grid is its first or last, beyond which a better one may lie."""
    if len(grid) < 3 or 0 < taken < len(grid) - 1:
        return ()
    return (f"the best {name}, {grid[taken]:g}, is at the end of its grid",)


def best(figures: Float[np.ndarray, " points"]) -> int:
    """Return the place of the greatest figure; of equal ones the first, the strongest penalty."""
    return int(np.argmax(figures))
