"""The filter in front of an image tower: against numpy, inside the parameters, and what it does to small noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models import DualEncoder, clip, input_filter, split


@pytest.fixture(scope="module")
def encoder():
    config = clip(
        vocab_size=8, eos_id=1, image_size=8, patch_size=4, vision_width=8, vision_layers=1, vision_heads=2,
        text_width=8, text_layers=1, text_heads=1, max_length=4, embed_dim=8,
    )  # fmt: skip
    return split(DualEncoder(config, nnx.Rngs(0)))


def by_hand(taps, images):
    """Rows, then columns, each a plain correlation over repeated edges."""
    for axis, name in ((1, "rows"), (2, "columns")):
        reach = len(taps[name]) // 2
        wide = np.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
        size = images.shape[axis]
        images = sum(t * np.take(wide, range(j, j + size), axis) for j, t in enumerate(np.asarray(taps[name])))
    return images


@pytest.mark.parametrize("sigma", [0.4, 1.5, 4.0])
def test_it_equals_a_plain_correlation(sigma):
    images = np.random.default_rng(0).random((2, 8, 6, 3)).astype(np.float32)
    taps = input_filter.gaussian(sigma)
    taps["rows"] = taps["rows"] * jnp.linspace(0.5, 1.5, taps["rows"].shape[0])  # not symmetric: the direction counts
    np.testing.assert_allclose(input_filter.apply(taps, jnp.asarray(images)), by_hand(taps, images), atol=2e-6)


def test_a_constant_stays_and_fine_noise_shrinks():
    taps = input_filter.gaussian(1.5)
    even = jnp.full((1, 16, 16, 1), 0.3)
    np.testing.assert_allclose(input_filter.apply(taps, even), even, atol=1e-6)
    board = jnp.asarray((np.indices((16, 16)).sum(0) % 2 * 2.0 - 1.0)[None, :, :, None], jnp.float32)
    assert float(jnp.abs(input_filter.apply(taps, board)[:, 4:12, 4:12]).max()) < 1e-3


def test_parameters_carry_it_to_every_image(encoder):
    functions, params = encoder
    images = jnp.asarray(np.random.default_rng(1).random((3, 8, 8, 1)), jnp.float32)
    taps = input_filter.gaussian(1.0)
    behind = {**params, input_filter.NAME: taps}
    image_features, text_features = jax.jit(functions.image_features), jax.jit(functions.text_features)
    expected = image_features(params, input_filter.apply(taps, images))
    np.testing.assert_allclose(image_features(behind, images), expected, atol=1e-6)
    tokens, mask = jnp.ones((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    np.testing.assert_array_equal(text_features(behind, tokens, mask), text_features(params, tokens, mask))
    # An attack sees through it: the gradient by the pixels is that of the composition, and nowhere masked.
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(functions.image_features(behind, x) ** 2)))(images)
    assert float(jnp.abs(gradient).min()) > 0


def test_wrong_input_is_refused(encoder):
    functions, params = encoder
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"input_filter\.sigma"):
            input_filter.gaussian(sigma)
    with pytest.raises(ConfigError, match=r"images\.shape"):
        functions.image_features({**params, input_filter.NAME: input_filter.gaussian(1.0)}, jnp.zeros((1, 9, 9, 1)))
