"""APGD under L1 and APGD-T: optima of linear models in closed form, ball and box, independence of the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import apgd, apgd_l1, apgd_t
from ranjax.attacks.classifier import Classifier
from ranjax.core.errors import ConfigError


@pytest.mark.parametrize("shrinking", [False, True])
def test_under_l1_a_linear_loss_comes_near_its_maximum(shrinking):
    """Far from 0 and 1 that is epsilon * max |w|, all on one pixel; the steps keep two or three, of the largest |w|."""
    rng = np.random.default_rng(0)
    w, images = rng.normal(size=16).astype(np.float32), rng.uniform(0.3, 0.7, (6, 4, 4, 1)).astype(np.float32)
    images[5] = toy.make_images(1)[0]  # with pixels at 0 and 1: there the box holds
    settings = apgd.APGD(0.25, 60, norm="l1", shrinking=shrinking)
    found = jax.jit(
        lambda w: apgd.apgd(lambda x: x.reshape(6, -1) @ w, jnp.asarray(images), toy.make_keys(6), settings)
    )(w)
    assert float(found.norm.max()) <= 0.25 + 1e-5
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    gained = (np.asarray(found.loss) - images.reshape(6, -1) @ w)[:5]
    assert (gained >= 0.95 * 0.25 * np.sort(np.abs(w))[-3:].mean()).all()
    assert (gained <= 0.25 * np.abs(w).max() + 1e-4).all()
    assert found.trace.shape == (61, 6)


def test_the_radii_before_the_last_take_three_tenths_of_the_steps_each():
    assert apgd_l1.phases(100, True) == ((3.0, 30), (2.0, 30), (1.0, 40))
    assert apgd_l1.phases(11, True) == ((3.0, 4), (2.0, 4), (1.0, 3))
    assert apgd_l1.phases(11, False) == ((1.0, 11),)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(1)
    w = rng.normal(size=(16, 6)).astype(np.float32)
    images = (0.5 + rng.uniform(-0.1, 0.1, (10, 4, 4, 1))).astype(np.float32)
    return jnp.asarray(w), images, (images.reshape(10, -1) - 0.5) @ w


@jax.jit
def attack(w, images, labels, keys, settings):
    return apgd_t.apgd_t(Classifier(lambda x: (x.reshape(len(x), -1) - 0.5) @ w, labels), images, keys, settings)


def test_towards_every_class_a_linear_model_falls_just_where_one_boundary_is_within_the_radius(linear):
    w, images, logits = linear
    labels = logits.argmax(1)
    rows, keys = np.arange(10), toy.make_keys(10)
    gap = logits[rows, labels][:, None] - logits
    length = np.abs(np.asarray(w)[:, labels].T[:, :, None] - np.asarray(w)[None]).sum(1)
    least = np.where(np.arange(6) == labels[:, None], np.inf, gap / np.maximum(length, 1e-9)).min(1)
    radius = float(np.sort(least)[4:6].mean())
    settings = apgd_t.TargetedAPGD(radius, 20)
    found = attack(w, images, jnp.asarray(labels), keys, settings)
    np.testing.assert_array_equal(found.success, least <= radius)
    part = attack(w, images[:3], jnp.asarray(labels[:3]), keys[:3], settings)
    for name in ("images", "loss", "success"):
        np.testing.assert_array_equal(getattr(part, name), getattr(found, name)[:3])


def test_of_multi_hot_labels_each_class_is_a_target(linear):
    w, images, logits = linear
    labels, keys = (logits > 0).astype(np.float32), toy.make_keys(10)
    least = (np.abs(logits) / np.abs(np.asarray(w)).sum(0)).min(1)
    radius = float(np.sort(least)[4:6].mean())
    found = attack(w, images, jnp.asarray(labels), keys, apgd_t.TargetedAPGD(radius, 20))
    np.testing.assert_array_equal(found.success, least <= radius)


def test_with_two_classes_the_margin_stands_in_for_the_undefined_ratio(linear):
    w, images, logits = linear
    labels = logits[:, :2].argmax(1)
    least = np.abs(logits[:, 0] - logits[:, 1]) / float(jnp.abs(w[:, 0] - w[:, 1]).sum())
    radius = float(np.sort(least)[4:6].mean())
    found = attack(w[:, :2], images, jnp.asarray(labels), toy.make_keys(10), apgd_t.TargetedAPGD(radius, 20))
    np.testing.assert_array_equal(found.success, least <= radius)


def test_through_a_random_model_the_losses_are_means_over_draws(linear):
    """Noise on the logits that is nearly always larger than nothing, and never than the margins."""
    w, images, logits = linear
    labels = jnp.asarray(logits.argmax(1))

    def noisy(x, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys)
        return (x.reshape(len(x), -1) - 0.5) @ w + 1e-3 * noise

    settings = apgd_t.TargetedAPGD(0.3, 5, targets=2)
    found = jax.jit(lambda: apgd_t.apgd_t(Classifier(noisy, labels, 3), images, toy.make_keys(10), settings))()
    assert bool(found.success.all())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="shrinking = True: expected False"):
        apgd.APGD(0.1, shrinking=True)
    with pytest.raises(ConfigError, match="start = 'uniform'"):
        apgd.APGD(1.0, norm="l1", start="uniform")
    with pytest.raises(ConfigError, match="targets = 0"):
        apgd_t.TargetedAPGD(0.1, targets=0)
    with pytest.raises(ConfigError, match="targeted = True"):
        apgd_t.TargetedAPGD(0.1, targeted=True)
