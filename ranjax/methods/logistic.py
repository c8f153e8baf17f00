"""The linear probe at its optimum: logistic regression with an L2 penalty, by L-BFGS.

Minimises sum_i w_i loss(W' z_i + b, y_i) + lambda / 2 ||W||^2 over standardised features z; the loss is multinomial
cross-entropy, or of several labels a sigmoid's of each class (1 / lambda is scikit-learn's C).

It is solved along the principal axes of Z, each scaled by the root of its curvature at W = 0, and from the strongest
penalty to the weakest, each from the solution of the one before: a few dozen steps are then enough (Liu & Nocedal
1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float, Shaped

from ranjax.methods import linear_solution
from ranjax.methods.head_fit import HeadFit
from ranjax.methods.head_inputs import Examples
from ranjax.methods.linear_solution import Matrix
from ranjax.methods.method_settings import Fit, LogisticSettings
from ranjax.methods.sample_weights import example_weights
from ranjax.methods.standardisation import standard_of

MOST_STEPS, SMALL = 1000, 1e-4
"""Steps of L-BFGS at most, and the share of its first gradient's norm that the last may have at a minimum."""


class Minimum(NamedTuple):
    """A solution: weights f64[D, C] and bias f64[C] on z, and the last gradient's norm as a share of that at 0."""

    weights: Matrix
    bias: Float[np.ndarray, " classes"]
    gradient: float


def minima(
    z: Matrix,
    labels: Shaped[np.ndarray, "..."],
    classes: int,
    penalties: Sequence[float],
    weights: Shaped[np.ndarray, "..."] | None = None,
) -> list[Minimum]:
    """Return the minimum of every penalty lambda, in their order, which is best from strong to weak.

    Args:
      z: standardised features, f64[N, D].
      labels: i[N], or multi-hot [N, C].
      classes: C.
      penalties: lambda.
      weights: of the examples, [N], or of multi-hot labels [N, C].
    """
    labels = np.asarray(labels)
    several = labels.ndim == 2
    hot = labels.astype(np.float64) if several else np.eye(classes)[labels]
    each = np.ones((len(z), 1)) if weights is None else np.asarray(weights, np.float64).reshape(len(z), -1)
    axes = linear_solution.axes_of(z)
    # One more coordinate, always 1 and not penalised, for the bias.
    rows = np.concatenate([axes.coordinates, np.ones((len(z), 1))], axis=1)
    squares = np.append(axes.squares, len(z))
    curvature = each.mean() * (0.25 if several else (1 - 1 / classes) / classes)

    def loss(flat: np.ndarray, scale: np.ndarray, penalty: np.ndarray) -> tuple[float, np.ndarray]:
        own = flat.reshape(len(scale), -1) / scale
        value, gradient = value_and_gradient(own, penalty)
        return value, (gradient / scale).ravel()

    def value_and_gradient(own: Matrix, penalty: np.ndarray) -> tuple[float, Matrix]:
        logits = rows @ own
        if several:
            values, slopes = np.logaddexp(0, logits) - hot * logits, scipy.special.expit(logits) - hot
        else:
            most = logits.max(1, keepdims=True)
            sizes = np.exp(logits - most)
            total = sizes.sum(1, keepdims=True)
            values, slopes = most + np.log(total) - (hot * logits).sum(1, keepdims=True), sizes / total - hot
        value = float((each * values).sum() + 0.5 * (penalty * own**2).sum())
        return value, rows.T @ (each * slopes) + penalty * own

    own, found = np.zeros((rows.shape[1], classes)), []
    start = np.linalg.norm(value_and_gradient(own, np.zeros((len(own), 1)))[1])
    for strength in penalties:
        penalty = np.append(np.full(len(axes.squares), float(strength)), 0.0)[:, None]
        scale = np.sqrt(squares[:, None] * curvature + penalty)
        options = {"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "maxcor": 20, "ftol": 0.0}
        # In these coordinates the first gradient is about as long in all directions.
        options["gtol"] = 1e-8 * float(start / scale.max())
        done = scipy.optimize.minimize(
            loss, (own * scale).ravel(), (scale, penalty), method="L-BFGS-B", jac=True, options=options
        )
        own = done.x.reshape(own.shape) / scale
        end = float(np.linalg.norm(value_and_gradient(own, penalty)[1]) / max(start, np.finfo(float).tiny))
        found.append(Minimum(axes.directions @ own[:-1], own[-1], end))
    return found


def fit(
    train: Examples,
    validation: Examples,
    settings: LogisticSettings,
    *,
    classes: int,
    seeds: Sequence[int],
    shared: Fit,
) -> HeadFit:
    """Fit the linear probe; the penalty is the best on the validation split, of equal ones the strongest.

    Nothing is drawn, so that all seeds are alike.
    """
    penalties = sorted(settings.penalties, reverse=True)
    # A probe of one side of a set of questions answers the most frequent class where that side never changes.
    standard = standard_of(np.asarray(train.features), constant=settings.modality != "both")
    weights = example_weights(train.labels, classes, shared)
    found = minima(standard(np.asarray(train.features)), train.labels, classes, penalties, weights)
    z = standard(np.asarray(validation.features))
    logits = np.stack([z @ one.weights + one.bias for one in found])
    taken = linear_solution.best(linear_solution.scores(shared.metric, logits, validation.labels))
    one = found[taken]
    notes = linear_solution.at_the_end("penalty", penalties, taken)
    unfinished = ""
    if one.gradient > SMALL:
        unfinished = f"L-BFGS stopped at {one.gradient:.1g} of its first gradient, above {SMALL:g}: not at its minimum"
    variables = linear_solution.for_seeds(linear_solution.folded(one.weights, one.bias, standard), seeds)
    return HeadFit(
        variables, {"penalty": penalties[taken], "gradient": one.gradient}, notes=notes, unfinished=unfinished
    )
