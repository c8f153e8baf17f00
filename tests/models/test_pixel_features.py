"""Control encoders: pixels averaged by area, and a table that names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models import input_filter
from ranjax.models.controls import CONTROLS, Control
from ranjax.models.pixel_features import area_weights, pixels


@pytest.mark.parametrize(("size", "side", "channels"), [(64, 32, 1), (96, 32, 1), (32, 32, 3), (20, 20, 1)])
def test_pixels_are_means_over_equal_squares_row_by_row(size, side, channels):
    images = np.random.default_rng(0).uniform(size=(3, size, size, channels)).astype(np.float32)
    functions, params = pixels(size, channels)
    found = functions.image_features(params, jnp.asarray(images))
    each = size // side
    expected = images.reshape(3, side, each, side, each, channels).mean((2, 4)).reshape(3, -1)
    assert found.shape == (3, functions.config.embed_dim)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_size_that_32_does_not_divide_is_averaged_by_the_area_that_each_pixel_covers():
    weights = area_weights(50, 32)
    # Every pixel in 32 equal parts: 50 in each cell.
    fine = np.repeat(np.eye(50), 32, axis=1).reshape(50, 32, 50).mean(2).T
    np.testing.assert_allclose(weights, fine, atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_pixels_stand_behind_the_filter_and_pass_gradients():
    functions, params = pixels(40, 1)
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 40, 40, 1)), jnp.float32)
    taps = input_filter.gaussian(1.5)
    behind = functions.image_features({input_filter.NAME: taps}, images)
    np.testing.assert_allclose(behind, functions.image_features(params, input_filter.apply(taps, images)), atol=1e-6)
    gradient = jax.grad(lambda x: functions.image_features(params, x).sum())(images)
    np.testing.assert_allclose(np.asarray(gradient, np.float64).sum(), 2 * 32 * 32, rtol=1e-4)


def test_images_of_another_shape_are_refused():
    functions, params = pixels(40, 1)
    with pytest.raises(ConfigError, match=r"images = .*\[B, 40, 40, 1\]"):
        functions.image_features(params, jnp.zeros((2, 32, 32, 1)))


def test_functions_of_one_size_are_one_program():
    assert hash(pixels(64, 1)[0]) == hash(pixels(64, 1)[0])
    assert pixels(64, 1)[0] == pixels(64, 1)[0]


def test_a_control_needs_a_function_and_a_label(unchecked):
    assert list(CONTROLS) == ["pixels", "random_init"]
    with pytest.raises(ConfigError, match=r"Control\.encoder"):
        Control("noise", "noise", encoder=None)
