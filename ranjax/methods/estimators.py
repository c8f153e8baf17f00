"""Heads on frozen features as estimators in scikit-learn's manner, without scikit-learn.

    head = RAN().fit(X, y, attacked=X_attacked)
    head.predict(X_test), head.predict_proba(X_test), head.score(X_test, y_test)

X are features of a frozen encoder, [N, D]; `attacked` are those of the same images under attack. A part of the examples
(`validation`) chooses what each method chooses: a penalty, an epoch. End to end, with the attack through the encoder,
is `rx.repair`.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped

from ranjax.core.errors import ConfigError, DataError
from ranjax.methods import linear_solution, ridge
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import Head, predict
from ranjax.methods.method_settings import Fit
from ranjax.methods.own_head import OwnHead, fit_method
from ranjax.methods.standardisation import standard_of
from ranjax.methods.table import METHODS

Self = TypeVar("Self", bound="HeadEstimator")


class HeadEstimator:
    """A head of `METHODS` as an estimator; its parameters are the keywords of its constructor.

    Attributes after `fit`:
      classes_: the labels, sorted.
      n_features_in_: D.
      facts_: what the method chose.
    """

    method = ""
    _estimator_type = "classifier"

    def __init__(self, *, validation: float = 0.25, epochs: int = 40, seed: int = 0) -> None:
        """Keep the parameters; `fit` checks them.

        Args:
          validation: share of the examples that choose.
          epochs: passes over the examples at most, of methods that are trained.
          seed: of first weights, batches and the validation share.
        """
        self.validation, self.epochs, self.seed = validation, epochs, seed

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name.

        Raises:
          ValueError: an unknown one.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks an estimator of; only that library calls it."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )

    def fit(self: Self, X: ArrayLike, y: ArrayLike, attacked: ArrayLike | None = None) -> Self:
        """Fit the head.

        Args:
          X: features [N, D].
          y: labels [N], of any kind that can be sorted.
          attacked: features of the same images under attack, [N, D]; methods without a defence take none.

        Raises:
          ValueError: X or y that are not finite, not of these shapes, or of one class alone (`DataError` is one).
        """
        x, codes = self._checked(X, y)
        moved = None if attacked is None else _features(attacked, x.shape[1])
        if moved is not None and moved.shape != x.shape:
            raise DataError(f"attacked has shape {moved.shape}, X {x.shape}")
        if moved is not None and not self._takes_attacked():
            raise ConfigError("attacked", moved.shape, f"None with {type(self).__name__}, which has no defence")
        self.facts_ = self._fit(x, codes, moved, self._held(codes))
        return self

    def _takes_attacked(self) -> bool:
        return False

    def _fit(
        self,
        x: Float[np.ndarray, "examples width"],
        codes: Shaped[np.ndarray, " examples"],
        moved: Float[np.ndarray, "examples width"] | None,
        held: Shaped[np.ndarray, " examples"],
    ) -> dict[str, Any]:
        entry = METHODS[self.method]
        train, validation = (Examples(x[rows], codes[rows]) for rows in (~held, held if held.any() else ~held))
        # Eight steps an epoch at least: few examples are too few steps otherwise.
        shared = Fit(epochs=self.epochs, batch_size=min(64, max(2, len(train.labels) // 8)))
        classes = len(self.classes_)
        fitted = fit_method(entry, entry.settings, train, validation, classes=classes, seeds=[self.seed], shared=shared)
        self.head_: Head = fitted.head
        self.variables_ = fitted.select(0, 0)
        return {**fitted.facts, "validation": float(fitted.history.max()), "notes": fitted.notes}

    def _checked(
        self, X: ArrayLike, y: ArrayLike
    ) -> tuple[Float[np.ndarray, "examples width"], Shaped[np.ndarray, " examples"]]:
        if y is None:
            raise DataError("This classifier requires y to be passed, but the target y is None.")
        x, labels = _features(X), np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            message = "A column-vector y was passed when a 1d array was expected: its one column is taken."
            warnings.warn(message, _of_scikit_learn("DataConversionWarning", UserWarning), stacklevel=3)
            labels = labels[:, 0]
        if labels.ndim != 1 or len(labels) != len(x):
            raise DataError(f"y has shape {labels.shape}, one label for each of {len(x)} rows of X is needed")
        if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
            raise DataError("Unknown label type: continuous, or not finite; y must be classes")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_features_in_ = x.shape[1]
        if len(self.classes_) < 2:
            raise DataError(f"{type(self).__name__} needs two classes at least; y holds one class.")
        return x, codes.astype(np.int32)

    def _held(self, codes: Shaped[np.ndarray, " examples"]) -> Shaped[np.ndarray, " examples"]:
        """Return which examples choose: a share of each class by a hash, which leaves each class one to fit on."""
        if not 0 < self.validation < 1:
            raise ConfigError("validation", self.validation, "a share above 0 and below 1")
        held = np.zeros(len(codes), bool)
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            rows = np.asarray(sorted(rows, key=lambda i: hashlib.blake2b(f"{self.seed}:{i}".encode()).digest()))
            held[rows[: min(len(rows) - 1, max(1, round(self.validation * len(rows))))]] = True
        if len(np.unique(codes[held])) < 2:
            # Too few to choose by: the same examples fit and choose, which is said by `facts_`.
            return np.zeros(len(codes), bool)
        return held

    def decision_function(self, X: ArrayLike) -> Shaped[np.ndarray, "examples ..."]:
        """Return logits [N, C]; of two classes, as scikit-learn has it, the difference of both, [N]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Float[np.ndarray, "examples classes"]:
        """Return probabilities [N, C]: the softmax of the logits."""
        return np.asarray(jax.nn.softmax(jnp.asarray(self._logits(X)), axis=1), np.float64)

    def predict(self, X: ArrayLike) -> Shaped[np.ndarray, " examples"]:
        """Return the label of each row, as `fit` was given them."""
        chosen = self._logits(X).argmax(1)
        return np.asarray(self.classes_[chosen])

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the accuracy."""
        return float((self.predict(X) == np.asarray(y)).mean())

    def _logits(self, X: ArrayLike) -> Float[np.ndarray, "examples classes"]:
        if not hasattr(self, "variables_"):
            raise _not_fitted(type(self).__name__)
        return np.asarray(
            predict(self.head_, self.variables_, _features(X, self.n_features_in_, type(self).__name__), leading=0)[1]
        )


class LP(HeadEstimator):
    """Logistic regression at its optimum, the penalty chosen by validation."""

    method = "lp"


class Ridge(HeadEstimator):
    """Ridge regression, the penalty chosen by validation."""

    method = "ridge"


class MLP(HeadEstimator):
    """NMTune's head without its terms."""

    method = "mlp"


class NMTune(HeadEstimator):
    """NMTune (Chen et al. 2024, arXiv 2309.17002)."""

    method = "nmtune"


class RAN(HeadEstimator):
    """RAN's head on given features: a ridge that weighs the displacement of its outputs under attack.

    Penalty and weight are chosen by the mean of clean and attacked validation accuracy. Without `attacked` it is a
    plain ridge, which `facts_` says. Filter, tokens, varied copies, and an attack that answers to the head as it
    stands are the encoder's side: `rx.repair(checkpoint, images, labels, method="ran")`.
    """

    method = "ran"

    def __init__(
        self,
        *,
        validation: float = 0.25,
        seed: int = 0,
        penalties: tuple[float, ...] = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        mus: tuple[float, ...] = (0.3, 1.0, 3.0),
    ) -> None:
        """Keep the parameters.

        Args:
          validation, seed: as those of all heads.
          penalties: weights of the squared norm of the coefficients.
          mus: weights of the squared displacement.
        """
        super().__init__(validation=validation, seed=seed)
        self.penalties, self.mus = penalties, mus

    def _takes_attacked(self) -> bool:
        return True

    def _fit(
        self,
        x: Float[np.ndarray, "examples width"],
        codes: Shaped[np.ndarray, " examples"],
        moved: Float[np.ndarray, "examples width"] | None,
        held: Shaped[np.ndarray, " examples"],
    ) -> dict[str, Any]:
        judged = held if held.any() else ~held
        standard = standard_of(x[~held])
        z, classes = standard(x), len(self.classes_)
        targets = linear_solution.targets_of(codes[~held], classes, False)
        pushed = np.zeros_like(z) if moved is None else standard(moved) - z
        mus = (0.0,) if moved is None else self.mus
        for name, given in (("penalties", self.penalties), ("mus", mus)):
            if len(given) == 0:
                raise ConfigError(name, given, "at least one number")
        # From strong to weak: of equal figures the first, which is the strongest, is taken.
        tried = []
        for mu in sorted(mus, reverse=True):
            for penalty in sorted(self.penalties, reverse=True):
                weights, bias = ridge.robust_solution(z[~held], targets, pushed[~held], penalty, mu)
                sides = [z[judged]] + ([] if moved is None else [z[judged] + pushed[judged]])
                figure = float(np.mean([((side @ weights + bias).argmax(1) == codes[judged]).mean() for side in sides]))
                tried.append((figure, penalty, mu, weights, bias))
        figure, penalty, mu, weights, bias = max(tried, key=lambda one: one[0])
        folded = linear_solution.folded(weights, bias, standard)
        self.variables_ = {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), folded), "stats": {}}
        self.head_ = OwnHead(linear_solution.predict, x.shape[1], classes)
        notes = () if moved is not None else ("without attacked features: a plain ridge",)
        return {"penalty": penalty, "mu": mu, "validation": figure, "notes": notes}


def _features(
    given: ArrayLike, width: int | None = None, owner: str = "the estimator"
) -> Float[np.ndarray, "examples width"]:
    if hasattr(given, "toarray"):
        raise TypeError("A sparse matrix was passed, but dense data is required: use X.toarray().")
    x = np.asarray(given)
    if x.dtype.kind == "c":
        raise DataError("Complex data not supported.")
    if x.dtype.kind not in "fiub":
        x = np.asarray(given, np.float64) if x.dtype.kind in "OUS" else x
    if x.ndim != 2:
        raise DataError(f"Expected 2D array, got {x.ndim}D: X must be [N, D]. Reshape your data.")
    if x.shape[0] < 1 or x.shape[1] < 1:
        what = "sample" if x.shape[0] < 1 else "feature"
        raise DataError(f"X has 0 {what}(s) (shape={x.shape}) while a minimum of 1 is required.")
    if width is not None and x.shape[1] != width:
        raise DataError(f"X has {x.shape[1]} features, but {owner} is expecting {width} features as input.")
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise DataError("X contains NaN or infinity.")
    return x


def _not_fitted(name: str) -> Exception:
    kind: type[Exception] = _of_scikit_learn("NotFittedError", DataError)
    return kind(f"This {name} is not fitted yet: call fit first.")


def _of_scikit_learn(name: str, otherwise: type[Exception]) -> Any:
    """Return scikit-learn's own class of error or warning where that library is in use, else `otherwise`."""
    return getattr(sys.modules.get("sklearn.exceptions"), name, otherwise)


__all__ = ["LP", "MLP", "RAN", "HeadEstimator", "NMTune", "Ridge"]
