"""Candidates for RAN's defence term, in closed form on the same tokens, copies and filter, judged on validation images.

    ranjax run --config configs/ran.py --workdir runs/ran --until pretrain
    python -m experiments.design.ran runs/ran --condition targeted_keywords_30 --group candidates --examples 256

Each is a linear map of standardised features Z with centred targets T; its penalty lambda is the best on clean
validation images, of equal ones the strongest. D holds the displacements of Z under an attack on the plain ridge.

* ridge: min ||Z W - T||^2 + lambda ||W||^2, the plain form of all others.
* displacement: + mu ||D W||^2, D under PGD at the training radius. One round; RAN itself takes up to three.
* gradient matching: the same, D under one signed step of 1/4 of 1/255, scaled to 4/255. To first order this is the
  gradient of the head's outputs by the pixels (local gradient matching, arXiv 2502.06604, without its other terms).
* displacement projection: the leading k principal axes of D are projected out of Z.
* spectral projection: of Z its leading k principal axes are kept, by their variance alone (Robust Feature Inference,
  arXiv 2307.11672, keeps them by a score a class).
* shrinkage LDA: class means over the within-class covariance, shrunk to a multiple of the identity (Ledoit & Wolf 2004
  shrink so; here validation chooses how much). Whitening the features before a nearest-mean classifier is the same map.
* text prior: min ||Z W - T||^2 + lambda ||W - s W0||^2, where W0 is the ridge on Z of what the classes' prompts answer
  by the upstream text tower; s by validation. Zero-shot and the labels together, as in few-shot heads on CLIP.
* attacked copies: ridge on Z and on attacked features with their labels, of equal weight in all.

Random resizing is not among them: it needs several passes at use, and RAN may cost one filter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ranjax.methods import linear_solution, ridge
from ranjax.methods.standardisation import standard_of

PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0)
PRIORS = (0.1, 0.3, 1.0, 3.0)
SHRINKAGE = tuple(float(v) for v in np.geomspace(1e-3, 1.0, 10))
Head = tuple[np.ndarray, np.ndarray]


class Candidates:
    """Features of one condition, what an attack on the plain ridge displaces, and every candidate's heads."""

    def __init__(
        self,
        train: Any,
        validation: Any,
        attack: Callable[..., Any],
        classes: int,
        scores: np.ndarray,
        displaced: int = 512,
    ):
        """Take examples of both splits, and ``attack(variables, rows, epsilon, steps)``: features attacked, [n, D].

        `scores` [N, C] are the cosines of the training images and the classes' prompts.
        """
        self.scores = (scores - scores.mean(1, keepdims=True)) / scores.std()
        self.classes, self.labels, self.attack = classes, np.asarray(train.labels), attack
        self.standard = standard_of(np.asarray(train.features))
        self.z = self.standard(np.asarray(train.features))
        self.targets = linear_solution.targets_of(self.labels, classes, False)
        self.held, self.held_labels = self.standard(np.asarray(validation.features)), np.asarray(validation.labels)
        self.rows = np.arange(min(displaced, len(self.z)))

    def heads(self, z: np.ndarray, targets: np.ndarray) -> list[Head]:
        return list(zip(*ridge.solutions(z, targets, PENALTIES)))

    def best(self, heads: Sequence[Head]) -> Head:
        """Return the head of the highest clean validation accuracy, the first of equal ones."""
        right = [np.mean((self.held @ w + b).argmax(-1) == self.held_labels) for w, b in heads]
        return heads[int(np.argmax(right))]

    def folded(self, head: Head) -> Any:
        return linear_solution.folded(*head, self.standard)

    def moved(self, head: Head, epsilon: float, steps: int) -> np.ndarray:
        """Return standardised features of training images under an attack on a head."""
        found = np.asarray(self.attack(self.folded(head), self.rows, epsilon, steps), np.float64)
        return self.standard(found)

    def named(self) -> Iterator[tuple[str, Head, float]]:
        """Yield each candidate: its name, its head, and the seconds of its fit, attacks included."""

        def timed(make: Callable[[], Head]) -> tuple[Head, float]:
            started = time.perf_counter()
            return make(), time.perf_counter() - started

        plain, seconds = timed(lambda: self.best(self.heads(self.z, self.targets)))
        yield "ridge", plain, seconds
        own = self.z[self.rows]
        pushed = self.moved(plain, 4 / 255, 5)
        small = 16 * (self.moved(plain, 0.25 / 255, 1) - own)
        for title, displaced, mus in (
            ("displacement", pushed - own, (1.0, 10.0)),
            ("gradient matching", small, (3.0, 10.0, 30.0)),
        ):
            for mu in mus:
                yield (f"{title}, mu {mu:g}", *timed(lambda d=displaced, mu=mu: self.penalised(d, mu)))
        for count in (8, 32, 128):
            away = linear_solution.axes_of(pushed - own).directions[:, -count:]
            yield (
                f"displacement projection, k {count}",
                *timed(lambda q=away: self.within(lambda x: x - (x @ q) @ q.T)),
            )
        axes = linear_solution.axes_of(self.z).directions
        for count in (64, 256):
            kept = axes[:, -count:]
            yield (f"spectral projection, k {count}", *timed(lambda q=kept: self.within(lambda x: (x @ q) @ q.T)))
        yield ("shrinkage LDA", *timed(self.discriminant))
        yield ("text prior", *timed(self.towards_prompts))
        yield ("attacked copies, 2/255", *timed(lambda: self.with_attacked(self.moved(plain, 2 / 255, 5))))

    def penalised(self, displaced: np.ndarray, mu: float) -> Head:
        return self.best([ridge.robust_solution(self.z, self.targets, displaced, penalty, mu) for penalty in PENALTIES])

    def within(self, projection: Callable[[np.ndarray], np.ndarray]) -> Head:
        """Return the best ridge on projected features, as a map of the whole ones."""
        return self.best([(projection(w.T).T, b) for w, b in self.heads(projection(self.z), self.targets)])

    def discriminant(self) -> Head:
        means = np.stack([self.z[self.labels == label].mean(0) for label in range(self.classes)])
        within = (self.z - means[self.labels]).T @ (self.z - means[self.labels]) / len(self.z)
        squares, vectors = np.linalg.eigh(within)
        level, found = np.trace(within) / len(within), []
        for share in SHRINKAGE[::-1]:
            shrunk = (1 - share) * np.maximum(squares, 0) + share * level
            weights = vectors @ ((vectors.T @ means.T) / shrunk[:, None])
            found.append((weights, -0.5 * np.einsum("cd,dc->c", means, weights)))
        return self.best(found)

    def towards_prompts(self) -> Head:
        base, offset = (part[0] for part in ridge.solutions(self.z, self.scores, (PENALTIES[1],)))
        found = []
        for strength in PRIORS:
            prior = strength * (self.z @ base + offset)
            found += [(w + strength * base, b + strength * offset) for w, b in self.heads(self.z, self.targets - prior)]
        return self.best(found)

    def with_attacked(self, moved: np.ndarray) -> Head:
        root = np.sqrt(len(self.z) / len(moved))
        z, targets = np.concatenate([self.z, moved]), np.concatenate([self.targets, self.targets[self.rows]])
        weights = np.concatenate([np.ones(len(self.z)), np.full(len(moved), root**2)])
        return self.best(list(zip(*ridge.solutions(z, targets, PENALTIES, weights))))
