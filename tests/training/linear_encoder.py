"""The smallest dual encoder: one matrix a side, and mean-pooled token embeddings."""

import jax.numpy as jnp
import numpy as np


class LinearEncoder:
    def image_features(self, params, images):
        return images.reshape(images.shape[0], -1) @ params["image"]

    def text_features(self, params, tokens, mask):
        weights = mask.astype(params["table"].dtype)[..., None]
        return jnp.sum(params["table"][tokens] * weights, axis=1) @ params["text"] + params["bias"][None]

    def logit_scale(self, params):
        return jnp.exp(params["log_scale"])

    def logit_bias(self, params):
        return jnp.zeros(())


def init_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"image": (16, 6), "table": (20, 5), "text": (5, 6), "bias": (6,)}
    params = {k: jnp.asarray(rng.normal(size=s) * 0.3, jnp.float32) for k, s in shapes.items()}
    return params | {"log_scale": jnp.asarray(1.0, jnp.float32)}


def batch_at(step, rows=16):
    rng = np.random.default_rng(step)
    return {
        "image": rng.uniform(size=(rows, 4, 4, 1)).astype(np.float32),
        "tokens": rng.integers(0, 20, size=(rows, 7)).astype(np.int32),
        "mask": rng.uniform(size=(rows, 7)) < 0.8,
    }
