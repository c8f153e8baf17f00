"""Losses against closed forms written in numpy float64, and their gradients against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import losses

DRAW = np.random.default_rng(5)
LOGITS, LABELS = DRAW.normal(size=(6, 7)) * 3, np.array([0, 3, 6, 1, 1, 2], np.int32)
TARGETS = np.array([1, 2, 0, 0, 5, 6], np.int32)
A, B = DRAW.normal(size=(6, 4)), DRAW.normal(size=(6, 4))


def log_softmax(x, axis=-1):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_hand(name):
    rows = np.arange(6)
    true, ordered = LOGITS[rows, LABELS], -np.sort(-LOGITS, axis=1)
    others = np.where(np.eye(7, dtype=bool)[LABELS], -np.inf, LOGITS).max(1)
    p, q = log_softmax(unit(B)), log_softmax(unit(A))
    nce = 3 * unit(A) @ unit(B).T
    hot = np.eye(7)[LABELS]
    return {
        "cross_entropy": -log_softmax(LOGITS)[rows, LABELS],
        "binary_cross_entropy": (np.log1p(np.exp(LOGITS)) - LOGITS * hot).mean(1),
        "margin": others - true,
        "dlr": -(true - others) / (ordered[:, 0] - ordered[:, 2]),
        "dlr_targeted": -(true - LOGITS[rows, TARGETS]) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2),
        "cosine": 1 - (unit(A) * unit(B)).sum(1),
        "squared_distance": np.square(A - B).sum(1),
        "info_nce_pair": -(np.diag(log_softmax(nce)) + np.diag(log_softmax(nce, 0))) / 2,
        "coattack_kl": (np.exp(p) * (p - q)).sum(1),
    }[name]


def call(name, first):
    rest = {
        "binary_cross_entropy": (jnp.asarray(np.eye(7)[LABELS]),),
        "dlr_targeted": (jnp.asarray(LABELS), jnp.asarray(TARGETS)),
        "cosine": (jnp.asarray(B),),
        "squared_distance": (jnp.asarray(B),),
        "info_nce_pair": (jnp.asarray(B), 3.0),
        "coattack_kl": (jnp.asarray(B),),
    }.get(name, (jnp.asarray(LABELS),))
    return getattr(losses, name)(first, *rest)


NAMES = ["cross_entropy", "binary_cross_entropy", "margin", "dlr", "dlr_targeted", "cosine", "squared_distance"]


@pytest.mark.parametrize("name", [*NAMES, "info_nce_pair", "coattack_kl"])
def test_value_and_gradient(name, float64):
    first = LOGITS if name in NAMES[:5] else A
    value, gradient = jax.jit(lambda x: (call(name, x), jax.grad(lambda y: call(name, y).sum())(x)))(first)
    assert value.shape == (6,)
    np.testing.assert_allclose(value, by_hand(name), rtol=1e-9, atol=1e-9)
    way, h = np.random.default_rng(1).normal(size=first.shape), 1e-6
    slope = (call(name, jnp.asarray(first + h * way)).sum() - call(name, jnp.asarray(first - h * way)).sum()) / (2 * h)
    np.testing.assert_allclose((np.asarray(gradient) * way).sum(), slope, rtol=1e-6)


# DLR: invariant to shift and scale of the logits, and above 0 exactly where the label is not on top
def test_dlr_is_invariant_and_signed(float64):
    plain = losses.dlr(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    np.testing.assert_allclose(losses.dlr(jnp.asarray(LOGITS * 5 + 100), jnp.asarray(LABELS)), plain, rtol=1e-9)
    np.testing.assert_array_equal(np.asarray(plain) > 0, LOGITS.argmax(1) != LABELS)


# large logits do not overflow; a zero embedding and equal logits give finite values and gradients
def test_extremes_are_finite():
    far = jnp.asarray(LOGITS + 1000, jnp.float32)
    np.testing.assert_allclose(losses.cross_entropy(far, jnp.asarray(LABELS)), by_hand("cross_entropy"), atol=1e-3)
    zero, text = jnp.zeros((6, 4)), jnp.asarray(B, jnp.float32)
    for loss in (losses.cosine, losses.coattack_kl, lambda a, b: losses.info_nce_pair(a, b, 100.0)):
        assert np.all(np.isfinite(jax.jit(jax.grad(lambda x, loss=loss: loss(x, text).sum()))(zero)))
    flat = jnp.zeros((6, 7))
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: losses.dlr(x, jnp.asarray(LABELS)).sum()))(flat)))


# too few classes are refused by name, and so is an unknown loss
def test_refusals():
    two, labels = jnp.zeros((6, 2)), jnp.asarray(LABELS)
    with pytest.raises(ValueError, match="at least 3 classes"):
        losses.dlr(two, labels)
    with pytest.raises(ValueError, match="at least 4 classes"):
        losses.dlr_targeted(two, labels, labels)
    with pytest.raises(ValueError, match="did you mean 'cross_entropy'"):
        losses.of_classifier(lambda x: x, labels, "crossentropy")
