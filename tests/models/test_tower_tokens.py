"""States of single places and tokens: what each tower pools is among them, and padding never reaches them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models import input_filter
from ranjax.models.dual_encoder import DualEncoder, split
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers import tower_table
from ranjax.models.towers.tower_configs import (
    BertConfig,
    ModifiedResNetConfig,
    TextTransformerConfig,
    ViTConfig,
)

TEXT = {"vocab_size": 12, "max_length": 8, "eos_id": 2, "pad_id": 0}
VIT = ViTConfig(image_size=8, channels=1, patch_size=4, width=8, layers=2, heads=2)
IMAGES = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
IDS = np.array([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 4, 2], [1, 2, 0, 0, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 0, 0, 0, 0]], bool)


def encoder(image=VIT, text=None):
    text = text or TextTransformerConfig(**TEXT, width=8, layers=2, heads=2)
    config = DualEncoderConfig(image=image, text=text, embed_dim=4)
    return split(DualEncoder(config, nnx.Rngs(0)))


def test_a_vision_transformers_first_token_is_what_it_pools():
    functions, params = encoder()
    tokens = functions.image_tokens(params, jnp.asarray(IMAGES))
    assert tokens.shape == (3, 5, 8)
    pooled = functions.image_features(params, jnp.asarray(IMAGES))
    np.testing.assert_allclose(tokens[:, 0] @ params["visual_projection"]["kernel"], pooled, rtol=1e-5, atol=1e-6)


def test_places_of_a_large_map_are_averaged_to_four_by_four():
    config = ViTConfig(image_size=16, channels=1, patch_size=2, width=8, layers=1, heads=2)
    functions, params = encoder(config)
    images = jnp.asarray(np.random.default_rng(1).random((2, 16, 16, 1)), jnp.float32)
    tokens = functions.image_tokens(params, images)
    assert tokens.shape == (2, 17, 8)
    flat = functions.features(params, images, "tokens")
    np.testing.assert_allclose(tokens[:, 1:].reshape(2, -1), flat[:, : 16 * 8], rtol=1e-6)
    np.testing.assert_allclose(tokens[:, 0], flat[:, 16 * 8 :], rtol=1e-6)


@pytest.mark.parametrize("pooled_width", [0, 24])
def test_a_residual_networks_pooled_vector_comes_first_where_it_has_the_width_of_a_place(pooled_width):
    widths = {"width": 4, "heads": 2, "pooled_width": pooled_width}
    config = ModifiedResNetConfig(image_size=64, channels=1, depths=(1, 1, 1, 1), **widths)
    functions, params = encoder(config)
    images = jnp.asarray(np.random.default_rng(1).random((2, 64, 64, 1)), jnp.float32)
    assert jax.eval_shape(functions.image_tokens, params, images).shape == (2, 4 + (pooled_width == 0), 128)


@pytest.mark.parametrize("kind", ["causal", "last", "bert"])
def test_a_text_towers_tokens_hold_what_it_pools_and_do_not_see_padding(kind):
    config = {
        "causal": lambda: TextTransformerConfig(**TEXT, width=8, layers=2, heads=2),
        "last": lambda: TextTransformerConfig(**TEXT, width=8, layers=2, heads=2, pooling="last", causal=False),
        "bert": lambda: BertConfig(**TEXT, width=8, layers=2, heads=2, mlp_width=16),
    }[kind]()
    functions, params = encoder(text=config)
    states = functions.text_tokens(params, jnp.asarray(IDS), jnp.asarray(MASK))
    assert states.shape == (3, 6, 8)
    if kind != "last":  # SigLIP's reads padding, and pools behind it
        place = MASK.sum(1) - 1 if kind == "causal" else np.zeros(3, int)
        pooled = functions.text_features(params, jnp.asarray(IDS), jnp.asarray(MASK))
        held = states[np.arange(3), place] @ params["text_projection"]["kernel"]
        np.testing.assert_allclose(held, pooled, rtol=1e-5, atol=1e-6)
    other = functions.text_tokens(params, jnp.asarray(np.where(MASK, IDS, 3)), jnp.asarray(MASK))
    np.testing.assert_allclose(np.asarray(other)[MASK], np.asarray(states)[MASK], rtol=1e-5, atol=1e-6)
    rows = functions.token_table(params)[IDS]
    given = functions.text_tokens(params, jnp.asarray(IDS), jnp.asarray(MASK), rows)
    np.testing.assert_allclose(given, states, rtol=1e-6)


def test_the_filter_stands_in_front_of_tokens_too():
    functions, params = encoder()
    filtered = {**params, input_filter.NAME: input_filter.gaussian(1.0)}
    smooth = input_filter.apply(input_filter.gaussian(1.0), jnp.asarray(IMAGES))
    np.testing.assert_allclose(
        functions.image_tokens(filtered, jnp.asarray(IMAGES)), functions.image_tokens(params, smooth), rtol=1e-6
    )


def test_a_text_tower_without_states_is_refused_by_its_name(monkeypatch):
    functions, params = encoder()
    without = dataclasses.replace(tower_table.TOWERS["text_transformer"], states=None)
    monkeypatch.setattr("ranjax.models.dual_encoder.tower_of", lambda config: without)
    with pytest.raises(ConfigError, match="'embedding' with the text tower 'text_transformer', which shows no tokens"):
        functions.text_tokens(params, jnp.asarray(IDS), jnp.asarray(MASK))
