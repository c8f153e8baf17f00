import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models import BertConfig, DualEncoder, DualEncoderConfig, ViTConfig, load, save, split

BERT = BertConfig(vocab_size=20, width=8, layers=1, heads=2, mlp_width=16, max_length=6, pooling="pooler")
CONFIG = DualEncoderConfig(
    image=ViTConfig(image_size=8, patch_size=4, channels=1, width=8, layers=1, heads=2, mlp_width=32),
    text=BERT,
    embed_dim=6,
    layout="vision-text-dual-encoder",
)


@pytest.fixture(scope="module")
def model():
    return split(DualEncoder(CONFIG, nnx.Rngs(0)))


def test_the_text_s_shape_follows_the_bert():
    assert (CONFIG.vocab_size, CONFIG.max_length, CONFIG.text.outputs) == (20, 6, 8)


def test_a_round_trip_is_bit_equal(model, tmp_path):
    functions, params = model
    assert save(tmp_path, functions, params) == "vision-text-dual-encoder"
    again, loaded, config = load(tmp_path)
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
    with pytest.raises(ConfigError, match=r"model\.bert\.pooling = 'first'"):
        dataclasses.replace(BERT, pooling="first")
    text = dataclasses.replace(BERT, pooling="mean")
    functions, params = split(DualEncoder(dataclasses.replace(CONFIG, text=text), nnx.Rngs(0)))
    with pytest.raises(ConfigError, match=r"layout = .vision-text-dual-encoder.*knows no other pooling"):
        save(tmp_path, functions, params, layout="vision-text-dual-encoder")
