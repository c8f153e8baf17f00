"""Ridge regression on standardised features, plain and robust, in closed form.

Plain (Hoerl & Kennard 1970): W = argmin ||Z W - T||^2 + lambda ||W||^2 for standardised features Z of the training
images and centred targets T, one-hot or, of several labels, +-1.

Robust: W = argmin ||Z W - T||^2 + lambda ||W||^2 + mu ||D W||^2, where the rows of D are the displacements of Z under
PGD on the head as it stands, through filter and encoder. It is a ridge whose penalty is heavy along the directions in
which features can be pushed; Robust Feature Inference (Singh et al. 2023, arXiv 2307.11672) projects these out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Shaped

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.methods import linear_solution
from ranjax.methods.head_fit import HeadFit
from ranjax.methods.head_inputs import Examples
from ranjax.methods.linear_solution import Matrix, Solutions
from ranjax.methods.method_settings import Fit, RidgeSettings, RobustRidgeSettings
from ranjax.methods.sample_weights import example_weights
from ranjax.methods.standardisation import Standard, standard_of

Biases = Float[np.ndarray, "_ _"]


def solutions(
    z: Matrix,
    targets: Matrix,
    penalties: Sequence[float],
    weights: Shaped[np.ndarray, "..."] | None = None,
) -> tuple[Solutions, Biases]:
    """Return W f64[P, D, C] and b f64[P, C] of every penalty lambda, from one eigendecomposition.

    Args:
      z: features, f64[N, D].
      targets: f64[N, C].
      penalties: lambda, P of them.
      weights: of the examples, [N]; or [N, C], one a class, which takes a decomposition a class.
    """
    if weights is not None and weights.ndim == 2:
        each = [solutions(z, targets[:, [c]], penalties, weights[:, c]) for c in range(targets.shape[1])]
        return np.concatenate([w for w, _ in each], axis=2), np.concatenate([b for _, b in each], axis=1)
    centred = _centred(z, targets, weights)
    axes = linear_solution.axes_of(centred.z)
    products = axes.coordinates.T @ centred.targets
    scaled = products[None] / (axes.squares[None, :, None] + np.asarray(penalties, np.float64)[:, None, None])
    found = np.einsum("da,pac->pdc", axes.directions, scaled, optimize=True)
    return found, centred.target_mean[None] - np.einsum("d,pdc->pc", centred.z_mean, found)


class _Centred(NamedTuple):
    """Features and targets less their weighted means, times the roots of the weights."""

    z: Matrix
    targets: Matrix
    z_mean: Float[np.ndarray, " width"]
    target_mean: Float[np.ndarray, " classes"]


def _centred(z: Matrix, targets: Matrix, weights: Float[np.ndarray, " examples"] | None) -> _Centred:
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    z_mean, target_mean = w @ z / w.sum(), w @ targets / w.sum()
    root = np.sqrt(w)[:, None]
    return _Centred(root * (z - z_mean), root * (targets - target_mean), z_mean, target_mean)


def fit(
    train: Examples, validation: Examples, settings: RidgeSettings, *, classes: int, seeds: Sequence[int], shared: Fit
) -> HeadFit:
    """Fit ridge regression; the penalty is the best on the validation split, of equal ones the strongest.

    Nothing is drawn, so that all seeds are alike.
    """
    penalties = sorted(settings.penalties, reverse=True)
    standard, z = _standardised(train)
    weights = example_weights(train.labels, classes, shared)
    targets = linear_solution.targets_of(train.labels, classes, shared.multi_label)
    found, biases = solutions(z, targets, penalties, weights)
    figures = linear_solution.scores(
        shared.metric, standard(np.asarray(validation.features)) @ found + biases[:, None], validation.labels
    )
    taken = linear_solution.best(figures)
    facts = {"penalty": penalties[taken]}
    notes = linear_solution.at_the_end("penalty", penalties, taken)
    variables = linear_solution.folded(found[taken], biases[taken], standard)
    return HeadFit(_as_asked(variables, settings, z @ found[taken] + biases[taken], seeds), facts, notes=notes)


def _standardised(train: Examples) -> tuple[Standard, Matrix]:
    features = np.asarray(train.features)
    standard = standard_of(features)
    return standard, standard(features)


def _as_asked(variables: Params, settings: RidgeSettings, outputs: Matrix, seeds: Sequence[int]) -> Params:
    if settings.rank and settings.rank < outputs.shape[1]:
        variables = linear_solution.reduced(variables, outputs, settings.rank)
    return linear_solution.for_seeds(variables, seeds)


@dataclass(frozen=True)
class _Robust:
    """The problem with its displacements, solved for many (lambda, mu) from the blocks of one Gram matrix."""

    z: Matrix
    targets: Matrix
    displaced: Matrix

    def solve(self, pairs: Sequence[tuple[float, float]]) -> Solutions:
        """Return W f64[P, D, C] of pairs (lambda, mu); mu is of the mean square over the examples displaced, times N,
        so that some of the images stand for all.
        """
        share = len(self.z) / len(self.displaced)
        if len(self.z) + len(self.displaced) < self.z.shape[1]:
            return self._dual(pairs, share)
        gram, pushed, right = self.z.T @ self.z, self.displaced.T @ self.displaced, self.z.T @ self.targets
        return np.stack([_cholesky(gram + mu * share * pushed, penalty, right) for penalty, mu in pairs])

    def _dual(self, pairs: Sequence[tuple[float, float]], share: float) -> Solutions:
        own, across, pushed = self.z @ self.z.T, self.z @ self.displaced.T, self.displaced @ self.displaced.T
        right = np.concatenate([self.targets, np.zeros((len(self.displaced), self.targets.shape[1]))])
        found = []
        for penalty, mu in pairs:
            root = np.sqrt(mu * share)
            gram = np.block([[own, root * across], [root * across.T, mu * share * pushed]])
            rows = _cholesky(gram, penalty, right)
            found.append(self.z.T @ rows[: len(self.z)] + root * (self.displaced.T @ rows[len(self.z) :]))
        return np.stack(found)


def _cholesky(gram: Matrix, penalty: float, right: Matrix) -> Matrix:
    gram = gram + penalty * np.eye(len(gram))
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram, overwrite_a=True, check_finite=False), right)


def robust_solution(
    z: Matrix, targets: Matrix, displaced: Matrix, penalty: float, mu: float
) -> tuple[Matrix, Float[np.ndarray, " classes"]]:
    """Return W f64[D, C] and b f64[C] of the robust ridge for given displacements [n, D] of standardised features."""
    return _solved(_problems(z, targets, None), displaced, [(penalty, mu)])[0]


def _problems(z: Matrix, targets: Matrix, weights: Shaped[np.ndarray, "..."] | None) -> list[_Centred]:
    """Return one centred problem of all classes; with a weight a class of each example, one a class."""
    if weights is None or weights.ndim == 1:
        return [_centred(z, targets, weights)]
    return [_centred(z, targets[:, [c]], weights[:, c]) for c in range(targets.shape[1])]


def _solved(
    problems: Sequence[_Centred], displaced: Matrix, pairs: Sequence[tuple[float, float]]
) -> list[tuple[Matrix, Float[np.ndarray, " classes"]]]:
    each = [_Robust(one.z, one.targets, displaced).solve(pairs) for one in problems]
    weights = np.concatenate(each, axis=2)
    biases = [one.target_mean - one.z_mean @ found for one, found in zip(problems, each)]
    return list(zip(weights, np.concatenate(biases, axis=1)))


def fit_robust(
    train: Examples,
    validation: Examples,
    settings: RobustRidgeSettings,
    *,
    classes: int,
    seeds: Sequence[int],
    shared: Fit,
) -> HeadFit:
    """Fit the robust ridge in rounds: attack the head as it stands, solve with what that displaced, and again.

    The first head is the plain ridge. After its attack, lambda and mu are chosen by the mean of validation accuracy on
    clean images and on `settings.examples` images attacked end to end against each candidate. Of the heads of all
    rounds the best by that figure is kept. Nothing is drawn, so that all seeds are alike.
    """
    standard, z = _standardised(train)
    weights = example_weights(train.labels, classes, shared)
    targets = linear_solution.targets_of(train.labels, classes, shared.multi_label)
    judge = _Judge(standard, validation, settings, shared)

    # The plain ridge that the first attack is made against.
    penalties = sorted(settings.penalties, reverse=True)
    found, biases = solutions(z, targets, penalties, weights)
    clean = [judge.clean(w, b) for w, b in zip(found, biases)]
    first = linear_solution.best(np.asarray(clean))
    head, kept = (found[first], biases[first]), None
    rows = _spread(len(z), settings.displaced)
    problems = _problems(z, targets, weights)
    for number in range(settings.rounds):
        moved = judge.attacked_features("train", head, rows)
        displaced = (moved - np.asarray(train.features, np.float64)[rows]) * standard.inverse
        if kept is None:
            pairs = [(penalty, mu) for penalty in penalties for mu in sorted(settings.mus, reverse=True)]
        else:
            pairs = [(kept.penalty, kept.mu)]
        heads = _solved(problems, displaced, pairs)
        chosen = judge.choose(pairs, heads, number + 1)
        if kept is None or chosen.figure > kept.figure:
            kept = chosen
        head = chosen.head
    assert kept is not None
    weights_, bias = kept.head
    facts = {
        **{"penalty": kept.penalty, "mu": kept.mu, "round": kept.round, "attacked_images": judge.images},
        **{"validation_clean": kept.clean, "validation_attacked": kept.attacked},
    }
    notes = linear_solution.at_the_end("penalty", penalties, penalties.index(kept.penalty))
    variables = linear_solution.folded(weights_, bias, standard)
    return HeadFit(_as_asked(variables, settings, z @ weights_ + bias, seeds), facts, kept.figure, notes)


def _spread(count: int, most: int) -> Shaped[np.ndarray, " rows"]:
    """Return at most `most` rows, evenly spread; 0: all."""
    return np.arange(count) if not most or most >= count else np.linspace(0, count - 1, most).round().astype(int)


class _Candidate(NamedTuple):
    figure: float
    clean: float
    attacked: float
    penalty: float
    mu: float
    round: int
    head: tuple[Any, Any]


class _Judge:
    """Validation figures of heads, clean and attacked end to end."""

    def __init__(self, standard: Standard, validation: Examples, settings: RobustRidgeSettings, shared: Fit) -> None:
        self.standard, self.settings, self.shared = standard, settings, shared
        self.labels = np.asarray(validation.labels)
        self.z, self.rows = standard(np.asarray(validation.features)), _spread(len(self.labels), settings.examples)
        self.images = 0

    def clean(self, weights: Matrix, bias: Shaped[np.ndarray, " classes"]) -> float:
        logits = self.z @ weights + bias
        return float(linear_solution.scores(self.shared.metric, logits[None], self.labels)[0])

    def attacked_features(self, split: str, head: tuple[Any, Any], rows: Shaped[np.ndarray, " rows"]) -> Matrix:
        if self.shared.attack is None:
            raise ConfigError("Fit.attack", None, "an attack handle, `encoder_attack(...)`")
        variables = linear_solution.folded(*head, self.standard)
        loss = "" if self.shared.multi_label else self.settings.attack_loss
        moved = self.shared.attack(linear_solution.predict, variables, split, rows, loss)
        return np.asarray(moved, np.float64)

    def attacked(self, head: tuple[Any, Any], rows: Shaped[np.ndarray, " rows"]) -> float:
        self.images += len(rows)
        moved = self.attacked_features("validation", head, rows)
        logits = self.standard(moved) @ head[0] + head[1]
        return float(linear_solution.scores(self.shared.metric, logits[None], self.labels[rows])[0])

    def choose(self, pairs: Sequence[tuple[float, float]], heads: Sequence[tuple[Any, Any]], number: int) -> _Candidate:
        """Return the best of candidates by the mean of both figures.

        Attacks are what costs: of several, each is attacked on a quarter of the images, and the better quarter of them
        on all (successive halving, Jamieson & Talwalkar 2016).
        """
        clean, left = [self.clean(*head) for head in heads], list(range(len(heads)))

        def judged(place: int, rows: Shaped[np.ndarray, " rows"]) -> _Candidate:
            standing = self.attacked(heads[place], rows)
            figure = (clean[place] + standing) / 2
            return _Candidate(figure, clean[place], standing, *pairs[place], number, heads[place])

        if len(left) > 4:
            first = [judged(place, self.rows[::4]).figure for place in left]
            left = sorted(sorted(left, key=lambda place: -first[place])[: -(-len(left) // 4)])
        return max((judged(place, self.rows) for place in left), key=lambda found: found.figure)
