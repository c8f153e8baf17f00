"""float32 against float64 along PGD-10 on a vision transformer at 64 pixels, of random weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax import models
from ranjax.attacks import losses, pgd


@pytest.mark.slow
def test_float32_follows_float64_on_a_larger_model():
    config = models.clip(
        vocab_size=32, eos_id=2, image_size=64, channels=3, patch_size=8, vision_width=192, vision_layers=4,
        vision_heads=3, text_width=32, text_layers=1, text_heads=2, max_length=8, embed_dim=64,
    )  # fmt: skip
    functions, params = models.split(models.DualEncoder(config, nnx.Rngs(0)))
    draw = np.random.default_rng(0)
    images, texts = draw.integers(0, 256, (2, 64, 64, 3)) / 255, draw.normal(size=(2, 64))
    first = images + draw.uniform(-8 / 255, 8 / 255, images.shape)

    def run(dtype):
        weights = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        loss = lambda x: losses.cosine(functions.image_features(weights, x), jnp.asarray(texts, dtype))  # noqa: E731
        settings = pgd.PGD("8/255", "2/255", 10, keep="last")

        @jax.jit
        def both(x, start, keys):
            return jax.grad(lambda x: loss(x).sum())(x), pgd.pgd(loss, x, keys, settings, initial=start)

        return both(images.astype(dtype), first.astype(dtype), jax.random.split(jax.random.key(0), 2))

    with jax.enable_x64(True):
        (near, found), (exact, truth) = (jax.tree.map(np.asarray, run(dtype)) for dtype in (np.float32, np.float64))
    assert (found.images.dtype, truth.images.dtype) == (np.float32, np.float64)
    assert np.linalg.norm(near - exact) <= 1e-4 * np.linalg.norm(exact)
    np.testing.assert_allclose(found.trace, truth.trace, rtol=1e-3)
    assert np.mean(np.abs(found.images - truth.images) > 1e-6) < 2e-3
