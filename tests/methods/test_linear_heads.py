"""Linear heads at their optimum: equal to scikit-learn, at a stationary point, and sound on odd features."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError, ConvergenceWarning, DataError
from ranjax.methods import METHODS, Examples, Fit, fit_method, linear_solution, logistic, predict, ridge
from ranjax.methods.standardisation import standard_of

linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn, of the extra 'test'")
CLASSES = 4


def split(count, width, seed=0, noise=2.0):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(7).normal(size=(CLASSES, width))
    labels = np.arange(count, dtype=np.int32) % CLASSES
    return Examples((5 + means[labels] + noise * rng.normal(size=(count, width))).astype(np.float32), labels)


def fitted(name, train, validation, shared=Fit(), seeds=(0, 1), **changes):  # noqa: B008
    method = METHODS[name]
    settings = dataclasses.replace(method.settings, **changes)
    return fit_method(method, settings, train, validation, classes=CLASSES, seeds=seeds, shared=shared)


def logits_of(found, features):
    return np.asarray(predict(found.head, found.select(0, 0), features, leading=0)[1])


@pytest.mark.parametrize("width", [12, 120], ids=["more rows", "more columns"])
def test_ridge_equals_scikit_learn_s(width):
    train = split(80, width)
    weights = np.random.default_rng(1).uniform(0.5, 2, 80)
    z = standard_of(train.features)(train.features)
    targets = np.eye(CLASSES)[train.labels]
    for given in (None, weights):
        found, biases = ridge.solutions(z, targets, [0.3, 30.0], given)
        for place, penalty in enumerate((0.3, 30.0)):
            peer = linear_model.Ridge(alpha=penalty).fit(z, targets, sample_weight=given)
            np.testing.assert_allclose(found[place], peer.coef_.T, atol=1e-8)
            np.testing.assert_allclose(biases[place], peer.intercept_, atol=1e-8)


@pytest.mark.parametrize("width", [12, 120], ids=["more rows", "more columns"])
def test_the_linear_probe_is_at_the_optimum_that_scikit_learn_finds(width):
    train, validation = split(80, width), split(40, width, 1)
    penalties = (30.0, 1.0, 0.1)
    z = standard_of(train.features)(train.features)
    for found, penalty in zip(logistic.minima(z, train.labels, CLASSES, penalties), penalties):
        assert found.gradient < 1e-4
        peer = linear_model.LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000).fit(z, train.labels)
        np.testing.assert_allclose(found.weights, peer.coef_.T, atol=1e-4)
        logits = z @ found.weights + found.bias
        chances = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(chances / chances.sum(1, keepdims=True), peer.predict_proba(z), atol=1e-4)
    found = fitted("lp", train, validation, penalties=(1.0,))
    assert found.facts["gradient"] < 1e-4
    peer = linear_model.LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(z, train.labels)
    # The standardisation is folded into the map on the features themselves.
    unseen = (validation.features - train.features.mean(0)) / train.features.std(0)
    np.testing.assert_allclose(
        logits_of(found, validation.features), unseen @ peer.coef_.T + peer.intercept_, atol=2e-3
    )


def test_of_several_labels_each_is_a_logistic_regression_of_its_own():
    train = split(80, 10)
    several = np.stack([train.labels == 0, train.labels > 1, np.arange(80) % 3 == 0], axis=1).astype(np.float32)
    z = standard_of(train.features)(train.features)
    (found,) = logistic.minima(z, several, 3, [3.0])
    assert found.gradient < 1e-4
    for c in range(3):
        peer = linear_model.LogisticRegression(C=1 / 3, tol=1e-9, max_iter=5000).fit(z, several[:, c])
        np.testing.assert_allclose(found.weights[:, c], peer.coef_[0], atol=1e-4)
        np.testing.assert_allclose(found.bias[c], peer.intercept_[0], atol=1e-4)
    shared = Fit(multi_label=True, class_weights="balanced")
    both = (Examples(train.features, several), Examples(train.features, several))
    for name in ("lp", "ridge"):
        method = METHODS[name]
        heads = fit_method(method, method.settings, *both, classes=3, seeds=[0], shared=shared)
        assert heads.history.shape == (1, 1, 1)
        assert heads.history.max() > 0.8


def test_balanced_class_weights_are_weights_of_the_examples():
    train = split(80, 10)
    rare = np.concatenate([np.flatnonzero(train.labels > 0), np.flatnonzero(train.labels == 0)[:4]])
    train, validation = Examples(train.features[rare], train.labels[rare]), split(40, 10, 1)
    found = fitted("ridge", train, validation, Fit(class_weights="balanced"), penalties=(10.0,))
    z = (train.features - train.features.mean(0, dtype=np.float64)) / train.features.std(0, dtype=np.float64)
    weights = (len(rare) / (CLASSES * np.bincount(train.labels)))[train.labels]
    peer = linear_model.Ridge(alpha=10.0).fit(z, np.eye(CLASSES)[train.labels] - 1 / CLASSES, sample_weight=weights)
    np.testing.assert_allclose(logits_of(found, train.features), peer.predict(z), atol=1e-4)


def test_the_penalty_is_the_best_on_validation_and_its_end_of_the_grid_is_noted():
    train, validation = split(40, 60), split(200, 60, 1)
    found = fitted("ridge", train, validation)
    scores = {}
    for penalty in METHODS["ridge"].settings.penalties:
        one = fitted("ridge", train, validation, penalties=(penalty,))
        scores[penalty] = float(one.history[0, 0, 0])
    assert scores[found.facts["penalty"]] == max(scores.values()) == float(found.history[0, 0, 0])
    assert found.facts["penalty"] == max(penalty for penalty, score in scores.items() if score == max(scores.values()))
    assert any("end of its grid" in note for note in fitted("ridge", train, train, penalties=(1e6, 1e7, 1e8)).notes)


def test_a_probe_whose_gradient_is_still_large_warns(monkeypatch):
    monkeypatch.setattr(logistic, "MOST_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match=r"^lp: L-BFGS stopped at .* of its first gradient"):
        found = fitted("lp", split(40, 60), split(200, 60, 1))
    assert "not at its minimum" in found.notes[-1]


def test_outputs_that_fit_one_hot_targets_are_not_taken_for_probabilities():
    """They would lie in [0, 1] and sum to 1 where the classes are told apart for certain."""
    train = split(80, 6, noise=0.01)
    logits = logits_of(fitted("ridge", train, train), train.features)
    assert (logits.argmax(1) == train.labels).all()
    np.testing.assert_allclose(logits.sum(1), 0, atol=1e-5)


def test_all_seeds_are_alike_as_nothing_is_drawn():
    found = fitted("lp", split(40, 6), split(40, 6, 1), seeds=range(3))
    kernel = np.asarray(found.variables["params"]["classifier"]["kernel"])
    assert kernel.shape == (1, 3, 6, CLASSES)
    assert (kernel == kernel[:, :1]).all()
    assert found.history.shape == (1, 3, 1)


def test_a_constant_feature_counts_nothing_and_does_not_spoil_the_others():
    train, validation = split(80, 6), split(40, 6, 1)
    with_constant = [
        Examples(np.concatenate([x.features, np.full((len(x.labels), 1), 1e3, np.float32)], 1), x.labels)
        for x in (train, validation)
    ]
    for name in ("ridge", "lp"):
        plain, found = fitted(name, train, validation), fitted(name, *with_constant)
        kernel = np.asarray(found.select(0, 0)["params"]["classifier"]["kernel"])
        assert (kernel[-1] == 0).all()
        np.testing.assert_allclose(
            logits_of(found, with_constant[1].features), logits_of(plain, validation.features), atol=1e-3
        )


def test_a_map_of_rank_one_less_than_the_classes_loses_nothing():
    train, validation = split(80, 30), split(40, 30, 1)
    whole, cut = (fitted("ridge", train, validation, rank=rank) for rank in (0, CLASSES - 1))
    own = cut.select(0, 0)["params"]["classifier"]
    assert own["down"].shape == (30, CLASSES - 1)
    np.testing.assert_allclose(logits_of(cut, validation.features), logits_of(whole, validation.features), atol=1e-4)
    one = fitted("ridge", train, validation, rank=1)
    centred = logits_of(one, validation.features) - logits_of(one, validation.features).mean(0)
    assert np.linalg.matrix_rank(centred, tol=1e-3) == 1


BAD = {
    "features that are all the same": (lambda t: t._replace(features=np.ones_like(t.features)), "the same for all 40"),
    "a class that is absent": (
        lambda t: t._replace(labels=np.minimum(t.labels, 2)),
        "class 3 has no training examples",
    ),
    "fewer labels than classes": (lambda t: Examples(t.features[:3], t.labels[:3]), "class 3 has no training examples"),
    "a feature that is no number": (
        lambda t: t._replace(features=np.where(np.arange(6) == 2, np.nan, t.features)),
        "hold nan",
    ),
    "features of several encoders": (lambda t: t._replace(features=t.features[None]), r"\[N, D\] is needed"),
}


def test_a_probe_of_a_side_that_never_changes_answers_the_most_frequent_class():
    train = split(40, 6)
    same = Examples(np.ones_like(train.features), np.where(np.arange(40) < 19, 2, train.labels))
    found = fitted("lp", same, same, modality="question")
    assert (logits_of(found, same.features).argmax(-1) == 2).all()


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["lp", "ridge"])
def test_bad_features_and_labels_are_one_clear_error(name, case):
    change, words = BAD[case]
    with pytest.raises(DataError, match=words):
        fitted(name, change(split(40, 6)), split(40, 6, 1))


def test_a_method_that_attacks_is_refused_by_name_without_an_attack_handle():
    with pytest.raises(ConfigError, match=r"Fit\.attack = None: expected an attack handle.*'robust_ridge'"):
        fitted("robust_ridge", split(40, 6), split(40, 6, 1))


def test_the_robust_ridge_is_the_minimum_of_its_objective():
    train = split(40, 10)
    z = standard_of(train.features)(train.features)
    targets = np.eye(CLASSES)[train.labels]
    rng = np.random.default_rng(5)
    for count, width in ((40, 10), (20, 90)):  # one in the primal form, one in the dual
        z = np.concatenate([z, rng.normal(size=(40, 90))], 1)[:, :width]
        z -= z.mean(0)
        moved = rng.normal(size=(count, width))
        found, bias = ridge.robust_solution(z, targets, moved, 3.0, 0.7)

        def slope(w):
            share = 0.7 * len(z) / len(moved)  # noqa: B023
            error = z.T @ (z @ w - (targets - targets.mean(0)))  # noqa: B023
            return error + 3.0 * w + share * moved.T @ (moved @ w)  # noqa: B023

        assert np.abs(slope(found)).max() < 1e-8 * np.abs(slope(np.zeros_like(found))).max()
        np.testing.assert_allclose(bias, targets.mean(0), atol=1e-10)


def test_the_robust_ridge_turns_away_from_the_direction_in_which_features_are_pushed():
    """Features 0 and 1 tell the classes apart equally well; the attack pushes feature 0 alone."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count, dtype=np.int32) % 2
        both = (2.0 * labels[:, None] - 1) + 0.7 * rng.normal(size=(count, 2))
        return Examples(both.astype(np.float32), labels)

    train, validation = draw(200), draw(200)

    def attack(predict, variables, name, rows, loss):
        given = {"train": train, "validation": validation}[name]
        features, labels = given.features[rows].copy(), given.labels[rows]
        kernel = np.asarray(variables["classifier"]["kernel"])
        toward = np.sign(kernel[0, 1 - labels] - kernel[0, labels])
        features[:, 0] += 1.5 * toward
        return features

    method = METHODS["robust_ridge"]
    settings = dataclasses.replace(method.settings, penalties=(1.0, 3.0), mus=(0.3, 3.0), examples=0)
    both = (train, validation)
    found = fit_method(method, settings, *both, classes=2, seeds=[0, 1], shared=Fit(attack=attack))
    plain = fit_method(METHODS["ridge"], METHODS["ridge"].settings, *both, classes=2, seeds=[0], shared=Fit())

    def standing(one):
        variables = one.select(0, 0)["params"]
        moved = attack(linear_solution.predict, variables, "validation", np.arange(200), "")
        return (logits_of(one, moved).argmax(1) == validation.labels).mean()

    assert standing(found) > standing(plain) + 0.15
    assert found.facts["mu"] in settings.mus
    assert float(found.history[0, 0, 0]) == pytest.approx(
        (found.facts["validation_clean"] + found.facts["validation_attacked"]) / 2
    )
    assert jnp.isfinite(found.variables["params"]["classifier"]["kernel"]).all()
