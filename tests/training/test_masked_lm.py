"""The small masked language model: it learns what the texts allow to be known, and depends on its arguments alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import DataError
from ranjax.training import masked_lm

MASK, PAD, FIRST = 1, 0, 2
SETTINGS = masked_lm.MaskedLM(width=16, layers=1, heads=2, steps=120, batch_size=16, learning_rate=1e-2, share=0.3)


def corpus(rows=64, pairs=4):
    """Texts of three copies of one of `pairs` words: a hidden word is known from the others."""
    kinds = np.random.default_rng(0).integers(0, pairs, rows).astype(np.int32)
    tokens = np.repeat(FIRST + kinds[:, None], 3, axis=1)
    tokens = np.concatenate([tokens, np.full((rows, 1), PAD, np.int32)], axis=1)
    words = np.broadcast_to(np.array([0, 1, 2, -1], np.int32), tokens.shape)
    return tokens, tokens != PAD, words


def train(settings=SETTINGS, **options):
    return masked_lm.train(
        *corpus(), vocab_size=FIRST + 4, mask_id=MASK, pad_id=PAD, seed=3, settings=settings, **options
    )


def test_a_hidden_word_is_restored_from_its_neighbours_and_a_second_training_gives_the_same_bits():
    told = []
    functions, params, losses = train(progress=told.append)
    params = jax.tree.map(jnp.asarray, params)
    assert told[-1] == 120
    # Guessing costs log 4; with all three hidden (2.7 % of the rows) no more can be known.
    assert np.mean(losses[-20:]) < 0.5 * np.log(4) < np.log(6) * 0.9 < losses[0]
    tokens, mask, _ = corpus()
    shown = tokens.copy()
    shown[:, 1] = MASK
    restored = np.asarray(functions.logits(params, jnp.asarray(shown), jnp.asarray(mask)))[:, 1].argmax(-1)
    assert np.mean(restored == tokens[:, 1]) == 1.0
    assert train()[2] == losses


def test_texts_without_a_word_are_refused():
    tokens, mask, words = corpus()
    with pytest.raises(DataError, match="all of them are empty"):
        masked_lm.train(tokens, mask, np.full_like(words, -1), vocab_size=6, mask_id=MASK, pad_id=PAD, seed=0)
