"""Texts scored by a causal encoder from the replaced word on: the same features and the same attack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax import models
from ranjax.attacks import losses
from ranjax.attacks.text import candidates, resume
from ranjax.attacks.text import substitution as text

import toy_text as toy  # isort: skip

LENGTH = 14
WORDS = {"a": [4], "b": [5], "c": [6, 7], "d": [8], "e": [9, 10, 11], "f": [12], "g": [13, 14]}
TEXTS = ("a b c d", "f e a", "g b a d f a", "d")


@pytest.fixture(scope="module")
def encoder():
    shape = {
        "vocab_size": 16, "eos_id": 1, "bos_id": 2, "pad_id": 0, "max_length": LENGTH, "text_width": 8,
        "text_layers": 2, "text_heads": 2, "embed_dim": 4, "image_size": 8, "patch_size": 8,
        "vision_width": 8, "vision_layers": 1, "vision_heads": 2,
    }  # fmt: skip
    functions, params = models.split(models.DualEncoder(models.DualEncoderConfig(**shape), nnx.Rngs(0)))
    # Initial embeddings are small; larger ones give the words something to say.
    params["text"]["token_embedding"] = 30 * params["text"]["token_embedding"]
    return functions, params


def rows(texts=TEXTS):
    tokens, words = np.zeros((len(texts), LENGTH), np.int32), np.full((len(texts), LENGTH), -1, np.int32)
    for i, line in enumerate(texts):
        pieces = [(2, -1), *((p, n) for n, w in enumerate(line.split()) for p in WORDS[w]), (1, -1)]
        tokens[i, : len(pieces)], words[i, : len(pieces)] = zip(*pieces)
    return tokens, tokens != 0, words


@pytest.mark.parametrize("room", [12, 3 * LENGTH])
def test_features_from_a_position_on_are_those_of_the_whole_text(encoder, room):
    functions, params = encoder
    table = functions.token_table(params)
    old, new = rows(("a b c d f", "f e a d", "b a")), rows(("b c", "a b e d f", "f e a d"))
    # The third text is taken up somewhere, unchanged; all tails together are 12 tokens.
    start, place = jnp.asarray([2, 3, 5], jnp.int32), jnp.asarray([2, 0, 1], jnp.int32)
    end = new[1].sum(1).astype(np.int32)
    assert (end - start).sum() == 12

    @toy.quick_jit
    def both(params, old, new):
        _, cache = functions.text_features_cached(params, *old[:2], table[old[0]])
        blocks = functions.text_blocks(params)
        resumed = functions.text_features_resumed(params, blocks, cache, place, start, end, room, *new[:2])
        return resumed, functions.text_features(params, *new[:2])

    resumed, whole = both(params, *jax.tree.map(jnp.asarray, (old, new)))
    np.testing.assert_allclose(resumed, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        text.Substitution(max_words=3, top_k=5),
        pytest.param(text.Substitution(max_words=2, beam=2, top_k=3), marks=pytest.mark.slow),
    ],
)
def test_the_attack_is_the_same(encoder, settings):
    functions, params = encoder
    lexicon = candidates.build(WORDS, WORDS.__getitem__, pad_id=0)
    target = losses.unit(jnp.asarray(np.random.default_rng(0).normal(size=(len(TEXTS), 4)), jnp.float32))

    def attack(params, target, resumed):
        def away(features, rows):
            return -jnp.sum(losses.unit(features) * target[rows], axis=-1)

        def loss(e, t, m):
            return away(functions.text_features(params, t, m, embeddings=e), jnp.arange(len(TEXTS)))

        parts = resume.Resume(resume.of_encoder(functions, params), away) if resumed else None
        table = functions.token_table(params)
        return text.substitute(loss, table, *rows(), lexicon.table, settings, resume=parts)

    run = toy.quick_jit(attack, static_argnums=2)
    whole, resumed = run(params, target, False), run(params, target, True)
    assert int(whole.edits.sum()) >= 4
    for name in ("tokens", "mask", "words", "choices", "edits", "queries"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(resumed, name), err_msg=name)
    np.testing.assert_allclose(whole.trace, resumed.trace, rtol=1e-5, atol=1e-6)


def test_a_tower_that_looks_both_ways_has_no_parts():
    class Both:
        is_causal = False

    assert resume.of_encoder(Both(), {}) is None
