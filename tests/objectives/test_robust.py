"""Robust fine-tuning objectives against their definitions in NumPy, and who receives a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.objectives import robust


def log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@pytest.fixture
def arrays(float64):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in ((6, 5), (3, 5), (6, 3), (6, 3), (6, 3))], rng.integers(0, 3, 6)


def test_tecoa(arrays):
    (images, classes, *_), labels = arrays
    cosines = images / np.linalg.norm(images, axis=1)[:, None] @ (classes / np.linalg.norm(classes, axis=1)[:, None]).T
    wanted = -log_softmax(20 * cosines)[np.arange(6), labels].mean()
    value, gradients = jax.jit(jax.value_and_grad(robust.tecoa, argnums=(0, 1)))(images, classes, labels, 20.0)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    assert (gradients[1] == 0).all()
    # Only direction counts, so the gradient is orthogonal to the embedding.
    np.testing.assert_allclose((np.asarray(gradients[0]) * images).sum(1), 0, atol=1e-12)


def test_fare(arrays):
    (images, *_), _ = arrays
    original = images[::-1].copy()
    value, gradients = jax.jit(jax.value_and_grad(robust.fare, argnums=(0, 1)))(images, original)
    np.testing.assert_allclose(value, ((images - original) ** 2).sum(1).mean(), rtol=1e-12)
    np.testing.assert_allclose(gradients[0], 2 * (images - original) / 6, rtol=1e-12)
    assert (gradients[1] == 0).all()


def test_pmg_aft(arrays):
    (_, _, attacked, clean, original), labels = arrays
    log_a, log_c, log_o = map(log_softmax, (attacked, clean, original))
    cross = -log_a[np.arange(6), labels].mean()
    to_original = (np.exp(log_o) * (log_o - log_a)).sum(1).mean()
    to_own = (np.exp(log_c) * (log_c - log_a)).sum(1).mean()
    run = jax.jit(jax.value_and_grad(robust.pmg_aft, argnums=(0, 1, 2)))
    value, gradients = run(attacked, clean, original, labels, 0.5, 2.0)
    np.testing.assert_allclose(value, cross + 0.5 * to_original + 2 * to_own, rtol=1e-12)
    hot = np.eye(3)[labels]
    wanted = (np.exp(log_a) - hot + 0.5 * (np.exp(log_a) - np.exp(log_o)) + 2 * (np.exp(log_a) - np.exp(log_c))) / 6
    np.testing.assert_allclose(gradients[0], wanted, atol=1e-12)
    assert (np.abs(gradients[1]) > 0).any()
    assert (gradients[2] == 0).all()


@pytest.mark.usefixtures("unchecked")
def test_arrays_of_two_shapes_are_refused(arrays):
    (_, _, attacked, clean, original), labels = arrays
    with pytest.raises(ValueError, match="one shape"):
        robust.fare(jnp.ones((2, 3)), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="one shape"):
        robust.pmg_aft(attacked, clean, original[:, :2], labels)
