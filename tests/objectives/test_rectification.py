"""Rectification terms against stored values of another implementation, closed forms and float64 finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.objectives import classification, rectification
from ranjax.objectives.rectification import Weights, consistency, covariance, divergence, objective, singular

CASES = ("mgtd", "mltd", "two")


@pytest.fixture(scope="module")
def cases(reference_cases):
    return np.load(reference_cases / "losses.npz")


NAMES = ("mse_mean", "cov", "svd", "svd_top5", "svd_c", "total")


def _all_terms(z, f):
    fives = min(5, min(z.shape))
    mse, cov, svd = consistency(z, f), covariance(z), singular(z)
    return jnp.stack(
        [mse, cov, svd, singular(z, 5) / fives, singular(z, 1, centred=True), mse + 0.04 * cov + 0.001 * svd]
    )


@jax.jit
def all_terms(z, f):
    """Values [6] and gradients [6, B, D] of the terms in NAMES, compiled once a shape."""
    return _all_terms(z, f), jax.jacrev(_all_terms)(z, f)


@jax.jit
def all_directional(z, f, direction):
    step = 1e-6
    central = (_all_terms(z + step * direction, f) - _all_terms(z - step * direction, f)) / (2 * step)
    return central, jax.jvp(lambda z: _all_terms(z, f), (z,), (direction,))[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_equal_the_reference(cases, case, dtype):
    with jax.enable_x64(dtype == "float64"):
        values, gradients = all_terms(
            jnp.asarray(cases[f"nm_{case}_Z"], dtype), jnp.asarray(cases[f"nm_{case}_F"], dtype)
        )
    assert np.isfinite(gradients).all()
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for name, value, gradient in zip(NAMES, values, gradients):
        np.testing.assert_allclose(
            value, cases[f"nm_{case}_{name}"], rtol=tolerance, atol=tolerance * 1e-2, err_msg=name
        )
        if f"nm_{case}_{name}_grad" in cases:
            wanted = cases[f"nm_{case}_{name}_grad"]
            atol = 10 * tolerance * max(np.abs(wanted).max(), 1e-3)
            np.testing.assert_allclose(gradient, wanted, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("shape", [(7, 11), (11, 7)])
def test_gradients_equal_finite_differences(float64, shape):
    rng = np.random.default_rng(0)
    z, f, direction = (jnp.asarray(rng.normal(size=shape)) for _ in range(3))
    central, forward = all_directional(z, f, direction)
    _, gradients = all_terms(z, f)
    np.testing.assert_allclose(forward, central, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        np.sum(np.asarray(gradients) * np.asarray(direction), axis=(1, 2)), forward, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_singular_on_degenerate_spectra(cases, dtype):
    """Flat, rank-one and zero matrices: right values, finite gradients, and gradients orthogonal to z."""
    with jax.enable_x64(dtype == "float64"):
        tolerance = 1e-10 if dtype == "float64" else 2e-6
        run = jax.jit(jax.value_and_grad(singular))
        for name, wanted in (("flat", -1 / 8), ("rank1", -1.0), ("known", -float(cases["sp_known_ratio"]))):
            z = jnp.asarray(cases[f"sp_{name}_X"], dtype)
            value, gradient = run(z)
            assert abs(float(value) - wanted) < tolerance
            assert np.isfinite(gradient).all()
            assert abs(float(jnp.vdot(gradient, z))) < 50 * tolerance
            value, gradient = run(z.T)
            assert abs(float(value) - wanted) < tolerance
            assert np.isfinite(gradient).all()
        value, gradient = run(jnp.zeros((40, 8), dtype))
        assert value == 0
        assert (gradient == 0).all()


def test_singular_keeps_digits_that_the_gram_matrix_loses():
    """In float32 a singular value 1e-4 times the largest is noise in the Gram matrix' eigenvalues; here it counts."""
    rng, run = np.random.default_rng(1), jax.jit(singular)
    u, v = np.linalg.qr(rng.normal(size=(24, 24)))[0], np.linalg.qr(rng.normal(size=(96, 24)))[0]
    for sigma, rtol in (
        (np.array([1.0] + [1e-4] * 23), 2e-6),
        (np.logspace(0, -6, 24), 1.5e-4),
        (np.full(24, 1e-3), 1e-6),
    ):
        z = jnp.asarray((u * sigma) @ v.T, jnp.float32)
        np.testing.assert_allclose(run(z), -sigma[0] / sigma.sum(), rtol=rtol)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_singular_ignores_scale_without_overflow(scale):
    z = jnp.asarray(np.random.default_rng(2).normal(size=(5, 9)), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(singular))(z * scale)
    np.testing.assert_allclose(value, singular(z), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_singular_vmaps_and_matches_svd():
    z = jnp.asarray(np.random.default_rng(3).normal(size=(4, 6, 10)), jnp.float32)
    values = jax.jit(jax.vmap(singular))(z)
    sigma = np.linalg.svd(np.asarray(z, np.float64), compute_uv=False)
    np.testing.assert_allclose(values, -sigma[:, 0] / sigma.sum(1), rtol=1e-5)


def test_properties_of_the_terms(float64):
    rng = np.random.default_rng(4)
    z, f = rng.normal(size=(8, 5)), rng.normal(size=(8, 5))
    decorrelated = np.linalg.qr(z - z.mean(0))[0]
    with_zero_row = np.concatenate([np.zeros((1, 5)), z[1:]])
    mse, cov, svd = (jax.jit(jax.value_and_grad(term)) for term in (consistency, covariance, singular))
    assert mse(z, 3.0 * z)[0] == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(mse(2.0 * z, 0.1 * f)[0], mse(z, f)[0], rtol=1e-12)
    assert np.isfinite(mse(with_zero_row, f)[1]).all()
    assert (jax.jit(jax.grad(consistency, argnums=1))(z, f) == 0).all()
    np.testing.assert_allclose(cov(z + 7.0)[0], cov(z)[0], rtol=1e-9)
    assert cov(decorrelated)[0] == pytest.approx(0, abs=1e-20)
    assert float(svd(z + 7.0)[0]) < float(svd(z)[0])


def test_divergence_against_its_definition(float64):
    rng = np.random.default_rng(5)
    a, b = jnp.asarray(rng.normal(size=(6, 4)) * 3), jnp.asarray(rng.normal(size=(6, 4)))
    p, q = np.asarray(jax.nn.softmax(a)), np.asarray(jax.nn.softmax(b))
    np.testing.assert_allclose(jax.jit(divergence)(a, b), (p * np.log(p / q)).sum(1).mean(), rtol=1e-12)
    p, q = 1 / (1 + np.exp(-np.asarray(a))), 1 / (1 + np.exp(-np.asarray(b)))
    bernoulli = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(
        jax.jit(functools.partial(divergence, multi_label=True))(a, b), bernoulli.mean(), rtol=1e-12
    )
    to_clean, to_attacked = jax.jit(jax.grad(divergence, argnums=(0, 1)))(a, b)
    assert (to_clean == 0).all()
    # The gradient by the attacked logits of the categorical form is (q - p) / B.
    p, q = np.asarray(jax.nn.softmax(a)), np.asarray(jax.nn.softmax(b))
    np.testing.assert_allclose(to_attacked, (q - p) / 6, atol=1e-12)
    assert np.isfinite(jax.jit(divergence)(jnp.full((6, 4), 1e4), -a * 1e4))


def test_classification_losses_against_their_definitions(float64):
    rng = np.random.default_rng(6)
    logits, labels = jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.integers(0, 3, 9))
    weights = jnp.asarray([1.0, 2.0, 0.5])
    log_p = np.log(np.asarray(jax.nn.softmax(logits)))[np.arange(9), labels]
    w = np.asarray(weights)[labels]
    np.testing.assert_allclose(classification.loss(logits, labels), -log_p.mean(), rtol=1e-12)
    np.testing.assert_allclose(classification.loss(logits, labels, weights), -(w * log_p).sum() / w.sum(), rtol=1e-12)
    hot = jnp.asarray((rng.random((9, 3)) < 0.4).astype(float))
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    wanted = -(weights[None] * hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean()
    np.testing.assert_allclose(classification.loss(logits, hot, weights, multi_label=True), wanted, rtol=1e-12)


def test_objective_is_the_weighted_sum(float64):
    rng = np.random.default_rng(7)
    f, z, bad = (jnp.asarray(rng.normal(size=(6, 5))) for _ in range(3))
    logits, bad_logits = jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(6, 3)))
    labels = jnp.asarray(rng.integers(0, 3, 6))
    weights = Weights(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)

    @jax.jit
    def run():
        found = objective(weights, f, z, logits, labels, (bad, bad_logits), top_k=2)
        wanted = {
            "ce": classification.loss(logits, labels),
            "mse": consistency(z, f),
            "cov": covariance(z),
            "svd": singular(z, 2),
            "defence_ce": classification.loss(bad_logits, labels),
            "defence_consistency": consistency(bad, z),
            "defence_kl": divergence(logits, bad_logits),
        }
        return *found, wanted, objective(weights, f, z, logits, labels, terms=frozenset({"ce", "mse"}))

    total, values, wanted, (few, few_values) = run()
    for name, value in wanted.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-12)
    np.testing.assert_allclose(total, sum(getattr(weights, k) * v for k, v in wanted.items()), rtol=1e-12)
    assert set(few_values) == {"ce", "mse"}
    np.testing.assert_allclose(few, wanted["ce"] + 2 * wanted["mse"], rtol=1e-12)


def test_defence_terms_give_the_clean_side_no_gradient(float64):
    rng = np.random.default_rng(8)
    f, z, bad = (jnp.asarray(rng.normal(size=(6, 5))) for _ in range(3))
    readout, labels = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.integers(0, 3, 6))
    weights = Weights(0.0, defence_consistency=1.0, defence_kl=1.0)

    def total(z):
        return objective(weights, f, z, z @ readout, labels, (bad, bad @ readout))[0]

    assert (jax.jit(jax.grad(total))(z) == 0).all()


def test_a_term_of_zero_weight_cannot_poison_the_others():
    """Features so large that the covariance overflows: its NaN must not reach a method that does not use it."""
    rng = np.random.default_rng(9)
    f = jnp.asarray(rng.normal(size=(6, 8)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, 6))
    readout = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=1)
    def run(cov, z):
        logits = (z * 1e-19) @ readout
        nan = jnp.full_like(z, jnp.nan)
        return objective(Weights(1.0, 1.0, cov, 1e-3), f, z, logits, labels, (nan, nan[:, :3]))[0]

    z = f * 1e18
    value, gradient = run(jnp.float32(0.0), z)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    value, gradient = run(jnp.float32(1.0), z * 1e10)
    assert not (np.isfinite(value) and np.isfinite(gradient).all())


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: consistency(jnp.ones((2, 3)), jnp.ones((2, 4))), "one shape"),
        (lambda: covariance(jnp.ones((1, 3))), "B >= 2"),
        (lambda: singular(jnp.ones(3)), "B, D"),
        (lambda: singular(jnp.ones((2, 3)), 0), "top_k"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_fields_of_weights_are_the_terms():
    assert set(rectification.DEFENCE) < set(Weights._fields)
