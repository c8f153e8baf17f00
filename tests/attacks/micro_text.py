"""The text side of the stored micro models as plain functions of their weights, in any float dtype."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from ranjax.attacks.text import candidates

PAD, UNK, MASK, CLS, SEP, FIRST_WORD, BOS, EOS, VOCAB = 0, 1, 2, 3, 4, 5, 1022, 1023, 1024
STOP_IDS = range(5, 25)

# Compiling is what these tests cost, and their programs are small: leave out the optimiser.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def weights(folder: Path, dtype) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v.astype(np.float32), dtype) for k, v in load_file(folder / "model.safetensors").items()}


def norm(w, name, x, eps=1e-5):
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return x * w[name + ".weight"][None, None] + w[name + ".bias"][None, None]


def dense(w, name, x):
    y = jnp.matmul(x, w[name + ".weight"].T, precision="highest")
    return y + w[name + ".bias"][None, None] if name + ".bias" in w else y


def attend(q, k, v, bias, heads=2):
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[:2] + (heads, -1)), 2, 1)  # noqa: E731
    q, k, v = split(q), split(k), split(v)
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, precision="highest") / (q.shape[-1] ** 0.5) + bias
    out = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(logits, -1), v, precision="highest")
    return jnp.moveaxis(out, 1, 2).reshape(out.shape[0], out.shape[2], -1)


def clip_text(w, embeddings, tokens, mask):
    """Projected text features of the micro CLIP; pooled at the first EOS."""
    length = tokens.shape[1]
    low = jnp.asarray(-1e9, embeddings.dtype)
    h = embeddings + w["text_model.embeddings.position_embedding.weight"][None, :length]
    seen = jnp.tril(jnp.ones((length, length), bool))[None, None] & mask[:, None, None, :]
    bias = jnp.where(seen, 0, low)
    for i in range(2):
        name = f"text_model.encoder.layers.{i}."
        x = norm(w, name + "layer_norm1", h)
        q, k, v = (dense(w, f"{name}self_attn.{p}_proj", x) for p in "qkv")
        h = h + dense(w, name + "self_attn.out_proj", attend(q, k, v, bias))
        x = dense(w, name + "mlp.fc1", norm(w, name + "layer_norm2", h))
        h = h + dense(w, name + "mlp.fc2", x * jax.nn.sigmoid(1.702 * x))
    h = norm(w, "text_model.final_layer_norm", h)
    pooled = jnp.take_along_axis(h, jnp.argmax(tokens == EOS, axis=1)[:, None, None], axis=1)
    return dense(w, "text_projection", pooled)[:, 0]


def masked_lm(w, tokens, mask):
    """Logits f[B, L, V] of the micro BERT masked LM."""
    name = "bert.embeddings."
    h = w[name + "word_embeddings.weight"][tokens]
    h = (
        h
        + (w[name + "position_embeddings.weight"][: tokens.shape[1]] + w[name + "token_type_embeddings.weight"][:1])[
            None
        ]
    )
    h = norm(w, name + "LayerNorm", h, 1e-12)
    bias = jnp.where(mask[:, None, None, :], 0, jnp.asarray(-1e9, h.dtype))
    for i in range(2):
        name = f"bert.encoder.layer.{i}."
        q, k, v = (dense(w, f"{name}attention.self.{p}", h) for p in ("query", "key", "value"))
        h = norm(
            w,
            name + "attention.output.LayerNorm",
            h + dense(w, name + "attention.output.dense", attend(q, k, v, bias)),
            1e-12,
        )
        x = jax.nn.gelu(dense(w, name + "intermediate.dense", h), approximate=False)
        h = norm(w, name + "output.LayerNorm", h + dense(w, name + "output.dense", x), 1e-12)
    name = "cls.predictions."
    h = norm(
        w, name + "transform.LayerNorm", jax.nn.gelu(dense(w, name + "transform.dense", h), approximate=False), 1e-12
    )
    return (
        jnp.matmul(h, w["bert.embeddings.word_embeddings.weight"].T, precision="highest") + w[name + "bias"][None, None]
    )


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def cosine_loss(w, image_unit):
    """Minus the cosine to the paired image: the loss of the stored cases."""
    return lambda embeddings, tokens, mask: -jnp.sum(unit(clip_text(w, embeddings, tokens, mask)) * image_unit, -1)


def slots_of(tokens: np.ndarray) -> np.ndarray:
    """Every word is one token, and BOS comes first: slot = position - 1."""
    word = (tokens >= FIRST_WORD) & (tokens < BOS)
    return np.where(word, np.arange(tokens.shape[1])[None] - 1, -1).astype(np.int32)


@functools.cache
def lexicon() -> candidates.Lexicon:
    """Every id is a word of one piece; specials and stop words are protected."""
    return candidates.build(
        [str(i) for i in range(VOCAB)],
        lambda word: [int(word)],
        pad_id=PAD,
        protected=lambda word: not STOP_IDS[-1] < int(word) < BOS,
    )
