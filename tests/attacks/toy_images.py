"""A hand-written classifier on 4 x 4 images, small enough to compile in a blink."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks import losses

SHAPE, CLASSES, BATCH = (4, 4, 1), 5, 12


def make_params(seed=0, dtype=np.float32):
    draw = np.random.default_rng(seed)
    w1, w2 = draw.normal(size=(16, 24)) * 1.5, draw.normal(size=(24, CLASSES)) / 2
    return {"w1": jnp.asarray(w1.astype(dtype)), "w2": jnp.asarray(w2.astype(dtype))}


def make_images(batch=BATCH, seed=1, dtype=np.float32):
    """Uniform noise with exact 0 and exact 1 pixels in it."""
    images = np.random.default_rng(seed).uniform(-0.2, 1.2, size=(batch, *SHAPE)).clip(0, 1)
    return images.astype(dtype)


def make_keys(batch=BATCH, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


def features(params, images):
    return jnp.tanh((images.reshape(images.shape[0], -1) - 0.5) @ params["w1"])


def logits(params, images):
    return features(params, images) @ params["w2"]


def labels_of(params, images):
    return jnp.argmax(logits(params, jnp.asarray(images)), axis=-1)


def loss(params, images, labels):
    """Cross-entropy, with success."""
    return losses.of_classifier(lambda x: logits(params, x), labels)(images)
