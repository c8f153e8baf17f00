"""A CLIP forward written down for the tests alone: Hugging Face names, NCHW images, any dtype.

Independent of `ranjax.models`, so that the attacks are compared with stored trajectories through code of their own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])[None, :, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711])[None, :, None, None]
HEADS, EOS = 2, 1023


def load(folder, dtype):
    """The float16 weights on disk, widened."""
    weights = {
        name: jnp.asarray(value.astype(dtype)) for name, value in load_file(folder / "model.safetensors").items()
    }
    return weights | {"mean": jnp.asarray(MEAN, dtype), "std": jnp.asarray(STD, dtype)}


def _norm(p, name, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    return scaled * p[name + ".weight"][None, None] + p[name + ".bias"][None, None]


def _linear(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"][None, None]


def _layer(p, name, x, allowed):
    def heads(part):
        y = _linear(p, f"{name}.self_attn.{part}_proj", _norm(p, f"{name}.layer_norm1", x))
        return y.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)

    q, k, v = heads("q"), heads("k"), heads("v")
    scores = jnp.where(allowed, q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5, -jnp.inf)
    mixed = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape)
    x = x + _linear(p, f"{name}.self_attn.out_proj", mixed)
    h = _linear(p, f"{name}.mlp.fc1", _norm(p, f"{name}.layer_norm2", x))
    return x + _linear(p, f"{name}.mlp.fc2", h * jax.nn.sigmoid(1.702 * h))


def image_features(p, images):
    """f[B, 3, S, S] in [0, 1] -> f[B, D], not normalised."""
    kernel = p["vision_model.embeddings.patch_embedding.weight"]
    width, _, patch, _ = kernel.shape
    x = (images - p["mean"]) / p["std"]
    b, c, s, _ = x.shape
    x = x.reshape(b, c, s // patch, patch, s // patch, patch).transpose(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch**2)
    x = x @ kernel.reshape(width, -1).T
    first = jnp.broadcast_to(p["vision_model.embeddings.class_embedding"][None, None], (b, 1, width))
    x = jnp.concatenate([first, x], axis=1) + p["vision_model.embeddings.position_embedding.weight"][None]
    x = _norm(p, "vision_model.pre_layrnorm", x)
    for i in range(2):
        x = _layer(p, f"vision_model.encoder.layers.{i}", x, True)
    return _norm(p, "vision_model.post_layernorm", x[:, :1])[:, 0] @ p["visual_projection.weight"].T


def text_features(p, ids, mask):
    """i32[B, L], bool[B, L] -> f[B, D], pooled at the first end token, not normalised."""
    length = ids.shape[1]
    x = p["text_model.embeddings.token_embedding.weight"][ids]
    x = x + p["text_model.embeddings.position_embedding.weight"][None, :length]
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None] & mask[:, None, None, :]
    for i in range(2):
        x = _layer(p, f"text_model.encoder.layers.{i}", x, causal)
    x = _norm(p, "text_model.final_layer_norm", x)
    return x[jnp.arange(len(ids)), jnp.argmax(ids == EOS, axis=1)] @ p["text_projection.weight"].T
