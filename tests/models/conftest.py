"""A tiny encoder, shared by the tests of this folder, so that little is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_encoder import TINY, seeded


@pytest.fixture(scope="session")
def tiny():
    """(functions, params) of a seeded tiny encoder with one channel."""
    return seeded(TINY)


@pytest.fixture(scope="session")
def batch():
    """(images, tokens, mask) that fit the tiny encoder; texts of several lengths, padded with 0."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((3, 16, 16, 1)), jnp.float32)
    tokens, mask = np.zeros((3, 8), np.int32), np.zeros((3, 8), bool)
    for row, length in enumerate((3, 5, 8)):
        tokens[row, :length] = rng.integers(1, 39, length)
        tokens[row, length - 1] = 39
        mask[row, :length] = True
    return images, jnp.asarray(tokens), jnp.asarray(mask)


@pytest.fixture(scope="session")
def encode():
    """Both features, compiled once per functions and dtype."""

    def both(functions, params, images, tokens, mask):
        return functions.image_features(params, images), functions.text_features(params, tokens, mask)

    return jax.jit(both, static_argnums=0)
