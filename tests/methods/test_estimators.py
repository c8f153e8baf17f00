"""Heads as estimators: in scikit-learn's manner, and right against closed forms."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import ranjax as rx
from ranjax.core.errors import ConfigError, DataError


def features(count=160, seed=0):
    """Two classes; feature 0 tells them apart, and so does feature 1, more weakly. An attack reverses feature 0."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 2
    sign = 2.0 * codes - 1
    x = rng.normal(size=(count, 6))
    x[:, 0] += 3 * sign
    x[:, 1] += 1.5 * sign
    moved = x.copy()
    moved[:, 0] -= 8 * sign
    return x, np.array(["healthy", "ill"])[codes], moved


def test_ran_leans_on_what_an_attack_cannot_move():
    x, y, moved = features()
    test, labels, attacked = features(seed=1)
    ran, lp = rx.RAN().fit(x, y, attacked=moved), rx.LP().fit(x, y)
    assert ran.score(attacked, labels) > 0.8
    assert lp.score(attacked, labels) < 0.2
    assert ran.score(test, labels) > 0.85
    with pytest.raises(ConfigError, match="no defence"):
        rx.LP().fit(x, y, attacked=moved)
    assert rx.RAN().fit(x, y).facts_["notes"] == ("without attacked features: a plain ridge",)


def test_ran_is_the_solution_of_its_normal_equations():
    x, y, moved = features(60)
    head = rx.RAN(penalties=(5.0,), mus=(2.0,)).fit(x, y, attacked=moved)
    held = head._held(np.searchsorted(head.classes_, y))
    x = x.astype(np.float32).astype(np.float64)
    mean, deviation = x[~held].mean(0), x[~held].std(0)
    z = (x[~held] - mean) / deviation
    d = (moved.astype(np.float32)[~held] - x[~held]) / deviation
    targets = np.eye(2)[np.searchsorted(head.classes_, y[~held])]
    targets = targets - targets.mean(0)
    weights = np.linalg.solve(z.T @ z + 5 * np.eye(6) + 2 * d.T @ d, z.T @ targets)
    wanted = (x - mean) / deviation @ weights
    found = head.decision_function(x)
    np.testing.assert_allclose(found, wanted[:, 1] - wanted[:, 0], atol=2e-5)


def test_a_search_over_nothing_is_refused_by_its_name():
    x, y, moved = features()
    with pytest.raises(ConfigError, match=r"penalties = \(\): expected at least one number"):
        rx.RAN(penalties=()).fit(x, y)
    with pytest.raises(ConfigError, match=r"mus = \(\): expected at least one number"):
        rx.RAN(mus=()).fit(x, y, attacked=moved)


def test_estimators_name_labels_give_probabilities_and_keep_parameters():
    x, y, _ = features()
    for kind in (rx.LP, rx.Ridge, rx.NMTune, rx.RAN):
        head = kind(seed=3).fit(x, y)
        assert head.get_params()["seed"] == 3
        np.testing.assert_allclose(head.predict_proba(x).sum(1), 1, atol=1e-6)
        assert set(head.predict(x)) == {"healthy", "ill"}
        assert head.score(x, y) > 0.95
    with pytest.raises(ValueError, match="no parameter 'sed'"):
        rx.LP().set_params(sed=1)
    with pytest.raises(ValueError, match="not fitted yet"):
        rx.LP().predict(x)
    with pytest.raises(DataError, match="is expecting 6 features"):
        rx.LP().fit(x, y).predict(x[:, :5])
    # As accurate as scikit-learn's own logistic regression on other images.
    test, labels, _ = features(seed=1)
    assert abs(rx.LP().fit(x, y).score(test, labels) - LogisticRegression().fit(x, y).score(test, labels)) < 0.05


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", [pytest.param("Ridge", marks=pytest.mark.slow), "RAN"])
def test_scikit_learn_checks_the_estimator(kind, unchecked):
    from sklearn.utils.estimator_checks import check_estimator

    found = check_estimator(getattr(rx, kind)(), on_skip=None, on_fail=None)
    failed = {item["check_name"]: item["exception"] for item in found if item["status"] == "failed"}
    assert len(found) > 40
    assert not failed
