import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.errors import ConfigError
from ranjax.models import BertConfig, VisionBertConfig, load_vision_bert, save_vision_bert, split
from ranjax.models.vision_bert import VisionBert

CONFIG = VisionBertConfig(
    **{"image_size": 8, "patch_size": 4, "vision_width": 8, "vision_layers": 1, "vision_heads": 2, "embed_dim": 6},
    bert=BertConfig(vocab_size=20, width=8, layers=1, heads=2, mlp_width=16, max_length=6, pooler=True),
)


@pytest.fixture(scope="module")
def model():
    return split(VisionBert(CONFIG, nnx.Rngs(0)))


def test_text_fields_follow_the_bert():
    assert (CONFIG.vocab_size, CONFIG.max_length, CONFIG.text_width, CONFIG.text_mlp_width) == (20, 6, 8, 16)


def test_a_round_trip_is_bit_equal(model, tmp_path):
    functions, params = model
    save_vision_bert(tmp_path, functions, params)
    again, loaded, config = load_vision_bert(tmp_path)
    assert again == functions
    assert hash(again) == hash(functions)
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, params, loaded)


def test_both_towers_meet_in_one_space(model):
    functions, params = model
    images, tokens = jnp.zeros((2, 8, 8, 1), jnp.float32), jnp.ones((2, 6), jnp.int32)
    mask = jnp.asarray([[1, 1, 1, 0, 0, 0], [1] * 6], bool)
    half = dataclasses.replace(functions, config=dataclasses.replace(CONFIG, compute_dtype="bfloat16"))
    for some in (functions, half):
        shapes = jax.eval_shape(lambda: (some.image_features(params, images), some.text_features(params, tokens, mask)))  # noqa: B023
        assert [(part.shape, part.dtype) for part in shapes] == [((2, 6), jnp.float32)] * 2


def test_a_pooling_that_the_bert_cannot_do_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="has pooler"):
        dataclasses.replace(CONFIG, pooling="mean")
    mean = dataclasses.replace(CONFIG, pooling="mean", bert=dataclasses.replace(CONFIG.bert, pooler=False))
    with pytest.raises(ConfigError, match="for export"):
        save_vision_bert(tmp_path, *split(VisionBert(mean, nnx.Rngs(0))))
