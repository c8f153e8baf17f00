"""A tiny text encoder that feels every position, in JAX and in plain numpy, and rows of words of 1 to 3 tokens."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks import text
from ranjax.attacks.text import candidates, importance

PAD, BOS, EOS, UNK, LENGTH, WIDTH, VOCAB = 0, 1, 2, 3, 12, 6, 40
# Compiling is what these tests cost, and their programs are small: leave out the optimiser.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# text of the word -> its tokens
PIECES = {
    "no": [4],
    "left": [5],
    "the": [6],
    "clear": [7],
    "lungs": [8],
    "heart": [9],
    "large": [10],
    "effusion": [11, 12],
    "oedema": [13, 14],
    "opacity": [15, 16],
    "cardiomegaly": [17, 18, 19],
    "pneumothorax": [20, 21, 22],
    "atelectasis": [23, 24, 25],
    "rib": [26],
}
PROTECTED = ("no", "left", "the")
WORDS = tuple(PIECES)


def lexicon(lists=None) -> candidates.Lexicon:
    made = candidates.build(WORDS, PIECES.__getitem__, pad_id=PAD, protected=PROTECTED)
    return made if lists is None else made._replace(table=made.table._replace(lists=lists))


def encode(texts, length=LENGTH):
    """Rows (tokens, mask, words) of lists of words; a word that no longer fits ends the row."""
    tokens, mask, words = np.full((len(texts), length), PAD, np.int32), np.zeros((len(texts), length), bool), None
    words = np.full((len(texts), length), -1, np.int32)
    for i, listed in enumerate(texts):
        row, slots = [BOS], [-1]
        for j, word in enumerate(listed):
            if len(row) + len(PIECES[word]) + 1 > length:
                break
            row += PIECES[word]
            slots += [j] * len(PIECES[word])
        row.append(EOS)
        tokens[i, : len(row)], mask[i, : len(row)], words[i, : len(slots)] = row, True, slots
    return tokens, mask, words


for_rows = quick_jit(candidates.for_rows)
lookup = quick_jit(candidates.lookup)


def params(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        "table": rng.normal(size=(VOCAB, WIDTH)).astype(dtype),
        "position": (0.5 * rng.normal(size=(32, WIDTH))).astype(dtype),
        "mix": rng.normal(size=(WIDTH, WIDTH)).astype(dtype),
        "target": rng.normal(size=(64, WIDTH)).astype(dtype),
    }


def features(p, embeddings, tokens, mask):
    hidden = jnp.tanh(embeddings + p["position"][None, : tokens.shape[1]])
    pooled = jnp.sum(jnp.where(mask[..., None], hidden, 0), 1) / mask.sum(1, dtype=hidden.dtype)[:, None]
    return jnp.tanh(jnp.matmul(pooled, p["mix"], precision="highest"))


def loss(p, target):
    return lambda e, t, m: jnp.sum(features(p, e, t, m) * target, -1)


def slow_loss(p, tokens, target):
    """The same for one unpadded list of tokens, in float64."""
    p = {name: np.asarray(x, np.float64) for name, x in p.items()}
    hidden = np.tanh(p["table"][tokens] + p["position"][: len(tokens)])
    return float(np.tanh(hidden.mean(0) @ p["mix"]) @ np.asarray(target, np.float64))


@functools.partial(quick_jit, static_argnames="settings")
def attack(p, target, rows, allowed, settings):
    return text.substitute(loss(p, target), p["table"], *rows, allowed, settings)


@functools.partial(quick_jit, static_argnames=("settings", "hide"))
def ranked(p, target, rows, lists, table, settings, hide="unk"):
    allowed = candidates.for_rows(table, rows[0], rows[2], lists)
    return importance.ranked(loss(p, target), p["table"], *rows, allowed, settings, hide_id=UNK, hide=hide)


def to_words(found, row):
    """The attacked words of a row, from its tokens alone."""
    tokens, slots = np.asarray(found.tokens[row]), np.asarray(found.words[row])
    back = {tuple(pieces): word for word, pieces in PIECES.items()}
    return [back[tuple(tokens[slots == s])] for s in range(slots.max() + 1)]
