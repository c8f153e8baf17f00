"""Keys of a checkpoint's files: used, known to change nothing, or refused by their name."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints import config_keys, transformers_towers, weight_files
from ranjax.models.checkpoints.transformers_towers import CLIP_VISION, read_pixels
from ranjax.models.towers.contract import check_tokens
from ranjax.models.towers.tower_configs import TextTransformerConfig

TEXT = {"model_type": "clip_text_model", "vocab_size": 40, "hidden_size": 12, "num_attention_heads": 3}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": [4, 2]}, "eos_token_id"),
        ({"hidden_size": "12"}, "hidden_size"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"is_decoder": True}, "is_decoder"),
        ({"rope_theta": 10000.0}, "rope_theta"),
    ],
)
def test_a_value_that_is_not_read_is_refused_by_its_key(change, key):
    with pytest.raises(ConfigError, match=rf"config\.json: {key} = "):
        transformers_towers._CLIP_TEXT.read(TEXT | change)


def test_what_changes_nothing_passes():
    harmless = {
        "dropout": 0.1,
        "torch_dtype": "float32",
        "num_beams": 1,
        "id2label": {"0": "A"},
        "_note": "x",
        "rope": None,
    }
    found = transformers_towers._CLIP_TEXT.read(TEXT | harmless | {"pad_token_id": None})
    assert found["width"] == 12
    assert not set(harmless) & set(found)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"rescale_factor": 0.00784}', "rescale_factor"),
        ('{"rescale_factor": "1/255"}', "rescale_factor"),
        ('{"do_rescale": false}', "do_rescale"),
        ('{"image_mean": "CLIP"}', "image_mean"),
        ('{"image_std": [0.2, 0.0, 0.2]}', "image_std"),
        ('{"do_flip_channel_order": true}', "do_flip_channel_order"),
        ('{"offset": 1.0}', "offset"),
    ],
)
def test_a_preprocessor_that_means_other_pixels_is_refused(tmp_path, content, key):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"preprocessor_config\.json: {key} = "):
        read_pixels(tmp_path, CLIP_VISION, 3)


def test_the_usual_preprocessor_is_read(tmp_path):
    keys = dict.fromkeys(sorted(config_keys.OF_PICTURES)) | {"rescale_factor": 0.00392156862745098}
    text = (
        str(keys | {"image_mean": [0.1, 0.2, 0.3], "do_rescale": True}).replace("None", "null").replace("True", "true")
    )
    (tmp_path / "preprocessor_config.json").write_text(text.replace("'", '"'))
    assert read_pixels(tmp_path, CLIP_VISION, 3)["pixel_mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_quantised_weights_are_refused_and_places_are_not(tmp_path, dtype):
    save_file({"a.weight": np.ones((2, 2), dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"a\.weight holds .*quantised"):
        weight_files.read_weights(tmp_path)
    save_file({"e.position_ids": np.ones((2, 2), dtype)}, tmp_path / "model.safetensors")
    assert set(weight_files.read_weights(tmp_path)) == {"e.position_ids"}


@pytest.mark.parametrize("token", [-1, 40])
def test_tokens_beyond_the_table_are_refused(token):
    config = TextTransformerConfig(
        width=12, mlp_width=24, layers=1, heads=3, vocab_size=40, max_length=8, bos_id=1, eos_id=39, pad_id=0
    )
    tokens = np.full((2, 4), 3, np.int32)
    check_tokens(tokens, np.ones((2, 4), bool), None, config)
    tokens[1, 2] = token
    with pytest.raises(ConfigError, match="the rows of the token table"):
        check_tokens(tokens, np.ones((2, 4), bool), None, config)
