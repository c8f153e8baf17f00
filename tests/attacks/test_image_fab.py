"""FAB and its projections: scipy's optimum of the same problem, and the closed form of a linear classifier."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import toy_images as toy

from ranjax.attacks import hyperplanes, projections
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.fab import FAB, fab
from ranjax.core.errors import ConfigError

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def optimum(point, w, b, norm):
    """The least norm of a change within the box that reaches the hyperplane, by a general solver."""
    count = len(point)
    low, high = -point, 1 - point
    if norm == "l2":
        found = scipy.optimize.minimize(
            lambda d: d @ d,
            np.clip(w, low, high),
            jac=lambda d: 2 * d,
            bounds=list(zip(low, high)),
            method="SLSQP",
            constraints={"type": "eq", "fun": lambda d: w @ (point + d) - b, "jac": lambda d: w},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(found.fun) if found.success else None
    bounds = list(zip(low, high))
    if norm == "linf":  # d, t: |d_i| <= t
        ones = np.ones((count, 1))
        rows = np.block([[np.eye(count), -ones], [-np.eye(count), -ones]])
        cost, equal, bounds = np.r_[np.zeros(count), 1], np.r_[w, 0][None], [*bounds, (0, None)]
    else:  # d, e: |d_i| <= e_i
        rows = np.block([[np.eye(count), -np.eye(count)], [-np.eye(count), -np.eye(count)]])
        cost, equal, bounds = (
            np.r_[np.zeros(count), np.ones(count)],
            np.r_[w, 0 * w][None],
            [*bounds, *[(0, None)] * count],
        )
    found = scipy.optimize.linprog(cost, rows, np.zeros(2 * count), equal, [b - w @ point], bounds)
    return found.fun if found.success else None


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_onto_a_hyperplane_in_the_box_is_the_solvers_optimum(norm):
    rng = np.random.default_rng(2)
    points, w = rng.uniform(-0.2, 1.2, (24, 7)).clip(0, 1), rng.normal(size=(24, 7))
    w[3, 2] = 0
    reach = rng.uniform(-1.2, 1.2, 24)  # beyond what the box allows, too
    b = (w * points).sum(1) + reach * np.abs(w).sum(1) / 2
    arrays = [jnp.asarray(a, jnp.float32) for a in (points, w, b)]
    delta = np.asarray(jax.jit(hyperplanes.NEAREST[norm])(*arrays), np.float64)
    assert (points + delta >= -1e-6).all()
    assert (points + delta <= 1 + 1e-6).all()
    reached = 0
    for point, normal, height, change in zip(points, w, b, delta):
        least = optimum(point, normal, height, norm)
        if least is None:  # no such point: as far towards it as the box lets each entry
            way = np.sign(normal) * np.sign(height - normal @ point)
            np.testing.assert_allclose(change, np.where(way > 0, 1 - point, np.where(way < 0, -point, 0)), atol=1e-6)
            continue
        reached += 1
        assert abs(normal @ (point + change) - height) < 1e-5
        size = {"linf": np.abs(change).max(), "l2": np.linalg.norm(change), "l1": np.abs(change).sum()}[norm]
        assert abs(size - least) < 2e-5
    assert 5 < reached < 24


@pytest.mark.parametrize("seed", [0, 1])
def test_the_projection_onto_the_l1_ball_in_the_box_is_the_solvers_optimum(seed):
    rng = np.random.default_rng(seed)
    images, epsilon = rng.uniform(-0.2, 1.2, (6, 5)).clip(0, 1), 0.7
    candidate = images + rng.normal(size=images.shape) * rng.uniform(0.05, 2, (6, 1))
    got = jax.jit(lambda c, x: projections.l1(jnp.full((1, 1), epsilon))(c, x))(
        jnp.asarray(candidate, jnp.float32), jnp.asarray(images, jnp.float32)
    )
    for image, wanted, found in zip(images, candidate, np.asarray(got, np.float64)):
        assert np.abs(found - image).sum() <= epsilon + 1e-5
        # Split into what goes up and what goes down, the problem is smooth.
        split = scipy.optimize.minimize(
            lambda d: ((image + d[:5] - d[5:] - wanted) ** 2).sum(),  # noqa: B023
            np.zeros(10),
            method="SLSQP",
            bounds=[*zip(np.zeros(5), 1 - image), *zip(np.zeros(5), image)],
            constraints={"type": "ineq", "fun": lambda d: epsilon - d.sum()},
            options={"ftol": 1e-13, "maxiter": 400},
        )
        np.testing.assert_allclose(found, image + split.x[:5] - split.x[5:], atol=2e-3)


def linear(case, images):
    w, b = case
    return (images.reshape(images.shape[0], -1) - 0.5) @ w + b[None]


@pytest.fixture(scope="module")
def case():
    """A linear classifier on grey images, whose boundary is near: the box does not matter."""
    rng = np.random.default_rng(4)
    w, b = rng.normal(size=(9, 5)), rng.normal(size=5) / 5
    images = (0.5 + rng.uniform(-0.03, 0.03, (8, 3, 3, 1))).astype(np.float32)
    return (jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32)), images


@pytest.mark.parametrize(("norm", "targets"), [("linf", 9), ("l2", 0), ("l1", 9)])
def test_on_a_linear_classifier_the_norm_is_the_closed_form(case, norm, targets):
    """min over k of (z_y - z_k) / ||w_y - w_k||_dual."""
    (w, b), images = case
    logits = np.asarray(linear((w, b), images), np.float64)
    labels = logits.argmax(1)
    rows = np.arange(8)
    gap = logits[rows, labels][:, None] - logits
    length = np.linalg.norm(
        np.asarray(w, np.float64)[:, labels].T[:, :, None] - np.asarray(w)[None], DUAL[norm], axis=1
    )
    least = np.where(np.arange(5) == labels[:, None], np.inf, gap / np.where(length > 0, length, 1)).min(1)
    settings = FAB(0.01, 30, norm, targets=targets, minimal=True)
    found = jax.jit(lambda p, y: fab(Classifier(lambda x: linear(p, x), y), images, toy.make_keys(8), settings))(
        (w, b), jnp.asarray(labels)
    )
    assert bool(found.success.all())
    np.testing.assert_allclose(found.norm, least, rtol=0.06)  # it stops just beyond the boundary: eta is 1.05
    assert (np.asarray(found.norm) >= least * 0.999).all()


def test_within_a_radius_just_those_images_are_broken_whose_boundary_is_nearer(case):
    params, images = case
    labels = jnp.argmax(linear(params, images), axis=-1)
    keys = toy.make_keys(8)

    @jax.jit
    def run(params, images, labels, keys, settings):
        return fab(Classifier(lambda x: linear(params, x), labels), images, keys, settings)

    least = np.asarray(run(params, images, labels, keys, FAB(0.01, 30, minimal=True)).norm)
    radius = float(np.median(least))
    found = run(params, images, labels, keys, FAB(radius, 30))
    np.testing.assert_array_equal(found.success, least <= radius)
    np.testing.assert_array_equal(found.norm == 0, least > radius)  # those not broken come back clean
    assert float(found.norm.max()) <= radius
    part = run(params, images[:3], labels[:3], keys[:3], FAB(radius, 30))
    np.testing.assert_array_equal(part.success, found.success[:3])


def test_multi_hot_labels_have_a_boundary_a_class(case):
    """Each class flips at |z_k| / ||w_k||_1, whatever the others say."""
    (w, b), images = case
    logits = np.asarray(linear((w, b), images), np.float64)
    labels = (logits > 0).astype(np.float32)
    least = (np.abs(logits) / np.abs(np.asarray(w)).sum(0)).min(1)
    found = jax.jit(
        lambda p, y: fab(Classifier(lambda x: linear(p, x), y), images, toy.make_keys(8), FAB(0.01, 30, minimal=True))
    )((w, b), labels)
    assert bool(found.success.all())
    np.testing.assert_allclose(found.norm, least, rtol=0.06)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="steps = 0"):
        FAB(0.1, 0)
    with pytest.raises(ConfigError, match="norm = 'l0'"):
        FAB(0.1, norm="l0")
