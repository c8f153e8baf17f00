"""What heads may read of an image tower besides its embedding, against independent sums over its parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_encoder import TINY, seeded

from ranjax.core.errors import ConfigError
from ranjax.models import ResNetConfig, input_filter, tower_states
from ranjax.models.towers import tower_table
from ranjax.models.towers.resnet import ResNet
from ranjax.models.towers.vision_transformer import VisionTransformer, states

IMAGES = jnp.asarray(np.random.default_rng(3).uniform(size=(3, 16, 16, 1)), jnp.float32)


def test_a_map_is_averaged_as_torch_s_adaptive_pooling_does():
    places = jnp.arange(7 * 2, dtype=jnp.float32).reshape(1, 7, 2, 1)
    found = tower_states.averaged(places, 4)[0, :, :, 0]
    # torch.nn.functional.adaptive_avg_pool2d(x, (4, 2)) of 0, 2, ..., 12: rows 0-1, 1-3, 3-5, 5-6.
    np.testing.assert_allclose(found[:, 0], [1.0, 4.0, 8.0, 11.0])
    np.testing.assert_allclose(found[:, 1], [2.0, 5.0, 9.0, 12.0])


def test_the_last_class_token_is_what_the_tower_returns(tiny):
    functions, params = tiny
    found = jax.jit(functions.features, static_argnums=2)(params, IMAGES, "tokens")
    assert found.shape == (3, (2 * 2 + 1) * 16)
    assert functions.width_of("tokens") == 80
    embedding = found[:, -16:] @ params["visual_projection"]["kernel"]
    np.testing.assert_allclose(embedding, functions.image_features(params, IMAGES), rtol=1e-4, atol=1e-5)


def test_blocks_hold_class_token_mean_and_greatest_value_of_each():
    vit = VisionTransformer(dataclasses.replace(TINY.image), nnx.Rngs(0))
    behind = states(vit, IMAGES)
    found = np.asarray(tower_states.blocks(behind))
    patches = np.asarray(behind[0].places).reshape(3, 4, 16)
    assert found.shape == (3, 2 * 3 * 16)
    np.testing.assert_allclose(found[:, :16], behind[0].token, rtol=1e-6)
    np.testing.assert_allclose(found[:, 16:32], patches.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, 32:48], patches.max(1), rtol=1e-6)


def test_a_residual_network_gives_its_last_map_and_its_pooled_vector():
    config = ResNetConfig(image_size=64, stem_width=4, widths=(8, 12), depths=(1, 1), block="basic")
    tower, images = ResNet(config, nnx.Rngs(0)), jnp.asarray(np.random.default_rng(0).uniform(size=(2, 64, 64, 3)))
    images = images.astype(jnp.float32)
    behind = tower_table.tower_of(config).states_of(tower, images)
    assert [state.places.shape for state in behind] == [(2, 16, 16, 8), (2, 8, 8, 12)]
    found = np.asarray(tower_states.tokens(behind))
    assert found.shape == (2, 4 * 4 * 12 + 12)
    quarter = np.asarray(behind[-1].places)[:, :2, :2].mean((1, 2))
    np.testing.assert_allclose(found[:, :12], quarter, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, -12:], tower(images), rtol=1e-5, atol=1e-6)
    assert tower_states.blocks(behind).shape == (2, 2 * (8 + 12))


def test_features_stand_behind_the_filter_and_have_a_gradient_by_every_pixel(tiny):
    functions, params = tiny
    front = {**params, input_filter.NAME: input_filter.gaussian(1.0)}
    blurred = input_filter.apply(front[input_filter.NAME], IMAGES)
    for kind in ("embedding", "tokens", "blocks"):
        behind = functions.features(front, IMAGES, kind)
        np.testing.assert_allclose(behind, functions.features(params, blurred, kind), rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(functions.features(front, x, "tokens") ** 2))(IMAGES)
    assert np.isfinite(slope).all()
    assert (np.abs(slope) > 0).all()


def test_a_tower_without_states_and_an_unknown_kind_are_refused_in_one_line(monkeypatch):
    functions, params = seeded(TINY)
    with pytest.raises(ConfigError, match=r"features = 'token': expected one of embedding.*tokens"):
        functions.features(params, IMAGES, "token")
    silent = dataclasses.replace(tower_table.TOWERS["vit"], states=None)
    monkeypatch.setattr("ranjax.models.dual_encoder.tower_of", lambda config: silent)
    with pytest.raises(ConfigError, match="'embedding' with the image tower 'vit', which shows no tokens"):
        functions.features(params, IMAGES, "tokens")
