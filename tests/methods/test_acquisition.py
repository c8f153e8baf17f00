"""Copies of labelled images: what they are made of, and that a head is fitted on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ranjax.core.keys import example_keys, stream
from ranjax.methods.acquisition import vary
from ranjax.methods.method_settings import Variation

STILL = Variation(turn=0.0, shift=0.0, zoom=0.0, contrast=0.0, brightness=0.0)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return jnp.asarray(scipy.ndimage.gaussian_filter(rng.uniform(size=(6, 24, 20, 1)), (0, 2, 2, 0)), jnp.float32)


@pytest.fixture
def keys():
    return example_keys(stream(3, "copies"), list("abcdef"))


def test_a_variation_of_nothing_leaves_images_as_they_are(images, keys):
    np.testing.assert_allclose(vary(images, keys, STILL), images, atol=1e-6)


@pytest.mark.parametrize("changed", [{"turn": 20.0}, {"shift": 0.2}, {"zoom": 0.3}, {"turn": 9.0, "shift": 0.1}])
def test_a_copy_is_the_image_under_scipys_affine_map(images, keys, changed):
    settings = Variation(**{**vars(STILL), **changed})
    for image, key, copy in zip(images, keys, vary(images, keys, settings)):
        draws = np.asarray(jax.random.uniform(key, (6,), jnp.float32, -1.0, 1.0), np.float64)
        angle, scale = np.deg2rad(settings.turn * draws[0]), 1 + settings.zoom * draws[1]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
        size = np.array(image.shape[:2])
        centre = (size - 1) / 2
        offset = centre - turn @ (centre + settings.shift * size * draws[2:4])
        expected = scipy.ndimage.affine_transform(np.asarray(image[..., 0]), turn, offset, order=1, mode="nearest")
        np.testing.assert_allclose(copy[..., 0], expected, atol=2e-5)


def test_contrast_scales_around_the_mean_and_brightness_is_added(images, keys):
    copy = vary(images, keys, Variation(**{**vars(STILL), "contrast": 0.3, "brightness": 0.1}))
    for image, key, found in zip(images, keys, copy):
        draws = jax.random.uniform(key, (6,), jnp.float32, -1.0, 1.0)
        expected = (image - image.mean()) * (1 + 0.3 * draws[4]) + image.mean() + 0.1 * draws[5]
        np.testing.assert_allclose(found, jnp.clip(expected, 0, 1), atol=1e-5)


def test_a_copy_depends_on_its_own_key_and_image_alone(images, keys):
    whole = vary(images, keys, Variation())
    np.testing.assert_array_equal(vary(images[2:3], keys[2:3], Variation())[0], whole[2])
    assert float(jnp.abs(whole - vary(images, keys[::-1], Variation())).max()) > 0.01
