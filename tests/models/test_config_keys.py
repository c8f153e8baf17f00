"""Keys of a checkpoint's files: used, known to change nothing, or refused by their name."""

import copy
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_torch_references import read, unpack
from test_tower_references import folder_of
from tiny_encoder import TINY, seeded

from ranjax.core.errors import ConfigError, DataError
from ranjax.models import load, save
from ranjax.models.checkpoints import config_keys, transformers_towers, weight_files
from ranjax.models.checkpoints.assemble import load_image_tower
from ranjax.models.checkpoints.layouts import LAYOUTS
from ranjax.models.checkpoints.transformers_towers import CLIP_TEXT, CLIP_VISION, read_pixels
from ranjax.models.dual_encoder import check_images
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
        ({"attention_bias": False}, "attention_bias"),
        ({"adapter": 0}, "adapter"),
    ],
)
def test_a_value_that_is_not_read_is_refused_by_its_key(change, key):
    with pytest.raises(ConfigError, match=rf"config\.json: {key} = "):
        transformers_towers._CLIP_TEXT.read(TEXT | change)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        *(({"layer_norm_eps": value}, "layer_norm_eps") for value in (0, -1e-5, float("nan"), float("inf"))),
        *(({key: -1}, key.removesuffix("_token_id") + "_id") for key in ("bos_token_id", "pad_token_id")),
    ],
)
def test_a_value_at_which_a_tower_computes_nothing_is_refused(change, key):
    with pytest.raises(ConfigError, match=key):
        CLIP_TEXT.read(TEXT | change, {})


@pytest.mark.parametrize("part", ["vision", "text"])
def test_a_part_of_another_model_type_is_refused(part, tmp_path):
    read_config = _checkpoint("clip_quick_gelu_patch8", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for kind in ("clip", f"clip_{part}_model"):
        content[f"{part}_config"]["model_type"] = kind
        (tmp_path / "config.json").write_text(json.dumps(content))
        read_config()
    content[f"{part}_config"]["model_type"] = "bert"
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"{part}_config\.model_type = 'bert'"):
        read_config()


@pytest.mark.parametrize("statistics", [{"image_mean": [123.7, 116.3, 103.5]}, {"image_std": [58.4, 57.1, 57.4]}])
def test_statistics_of_pixels_from_0_to_255_are_refused(statistics, tmp_path):
    read_config = _checkpoint("clip_quick_gelu_patch8", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    with pytest.raises(ConfigError, match=r"numbers of pixels in \[0, 1\]"):
        read_config()


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
        ('{"do_rescale": "no"}', "do_rescale"),
        ('{"do_normalize": "false"}', "do_normalize"),
        ('{"do_convert_grayscale": true}', "do_convert_grayscale"),
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


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_floats_of_8_bits_are_refused_in_one_line(kind, tmp_path):
    header = json.dumps({"a.weight": {"dtype": kind, "shape": [2, 2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(DataError, match=f"holds tensors of {kind}.*quantised") as error:
        weight_files.read_weights(tmp_path)
    assert "\n" not in str(error.value)


def test_complex_weights_and_numbers_beyond_float32_are_refused(tmp_path):
    save_file({"a.weight": np.ones(2, np.complex64)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="holds complex64"):
        weight_files.read_weights(tmp_path)
    save(tmp_path, *seeded(TINY), layout="ranjax")
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"log_scale": np.asarray(1e300)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="log_scale holds numbers beyond float32"):
        load(tmp_path)


def test_numbers_that_are_none_are_refused_in_a_config(tmp_path):
    read_config = _checkpoint("clip_quick_gelu_patch8", tmp_path)
    text = (tmp_path / "config.json").read_text().rstrip().removesuffix("}")
    for value in ("NaN", "Infinity"):
        (tmp_path / "config.json").write_text(f'{text}, "logit_scale_init_value": {value}}}')
        with pytest.raises(ConfigError, match=r"logit_scale_init_value = .*finite number"):
            read_config()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, m: (t.tolist(), m), "tokens = 'list': expected an array of NumPy or JAX"),
        (lambda t, m: (t.astype(np.float32), m), r"tokens\.dtype = 'float32'"),
        (lambda t, m: (t, m & False), "mask = 'row 0': expected True on the tokens of every text"),
        (lambda t, m: (np.where(t == 39, 5, t), m), "tokens = 'row 0': expected the end token 39 in every text"),
        (lambda t, m: (t, m & (t != 39)), "the end token 39"),
        (lambda t, m: (t, m), ""),
    ],
)
def test_texts_that_a_tower_would_read_at_a_wrong_place_are_refused(change, said):
    tokens, mask = np.full((2, 4), 3, np.int32), np.ones((2, 4), bool)
    tokens[:, 3] = 39
    if not said:
        check_tokens(*change(tokens, mask), None, TINY.text)
        return
    with pytest.raises(ConfigError, match=said):
        check_tokens(*change(tokens, mask), None, TINY.text)


@pytest.mark.parametrize(("images", "said"), [([[0.5]], "an array of NumPy or JAX"), (np.zeros((0, 16, 16, 1)), "one")])
def test_images_that_are_no_array_or_none_at_all_are_named(images, said):
    with pytest.raises(ConfigError, match=said):
        check_images(images, TINY)


@pytest.mark.parametrize("token", [-1, 40])
def test_tokens_beyond_the_table_are_refused(token):
    config = TextTransformerConfig(
        width=12, mlp_width=24, layers=1, heads=3, vocab_size=40, max_length=8, bos_id=1, eos_id=39, pad_id=0
    )
    tokens = np.full((2, 4), 3, np.int32)
    tokens[:, 3] = 39
    check_tokens(tokens, np.ones((2, 4), bool), None, config)
    tokens[1, 2] = token
    with pytest.raises(ConfigError, match="the rows of the token table"):
        check_tokens(tokens, np.ones((2, 4), bool), None, config)


@pytest.mark.parametrize(
    ("value", "said"),
    [(255.0, "Normalisation"), (-0.5, "Normalisation"), (np.nan, "nan, nan"), (np.inf, "inf"), (1.0 + 1e-7, "")],
)
def test_pixels_beyond_their_range_or_without_a_number_are_refused(value, said):
    functions, params = seeded(TINY)
    images = np.full((1, 16, 16, 1), 0.5, np.float32)
    images[0, 3, 4] = value
    if not said:
        check_images(jnp.asarray(images), TINY)
        return
    with pytest.raises(ConfigError, match="finite values in") as error:
        functions.image_features(params, jnp.asarray(images))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


FOLDERS = ("open_clip_vit", "open_clip_modified_resnet", "open_clip_biomed", "open_clip_resnet50", "open_clip_siglip",
           "siglip", "medclip", "clip_quick_gelu_patch8", "own")  # fmt: skip
SURPRISES = (7, -1, 2.5, "x", "", True, None, [], [1, "a"], {}, {"a": 1})


def _checkpoint(name, folder):
    if name == "own":
        save(folder, *seeded(TINY), layout="ranjax")
    elif name.startswith("clip"):
        unpack(read(name), folder)
    else:
        folder_of(name, folder)
    layout = next(layout for layout in LAYOUTS.values() if layout.meets(folder))
    weights = dict(layout.tidy(weight_files.read_weights(folder, layout.weights_files)))
    return lambda: layout.read(layout.content(folder), folder, weights)


def _objects(value, path=()):
    """Yields the path of every object inside a JSON value."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from _objects(inner, (*path, key))


def _at(value, path):
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("name", FOLDERS)
def test_every_object_of_every_file_refuses_a_key_that_nobody_knows(name, tmp_path):
    read_config = _checkpoint(name, tmp_path)
    read_config()
    files = [path for path in tmp_path.glob("*.json") if "tokenizer" not in path.name]
    tried = 0
    for path in files:
        content = json.loads(path.read_text())
        for place in _objects(content):
            if {"label2id", "id2label"} & {*place}:
                continue  # names of a classifier's classes
            changed = copy.deepcopy(content)
            _at(changed, place)["rope_theta_of_tomorrow"] = 3.0
            path.write_text(json.dumps(changed))
            with pytest.raises(ConfigError, match="rope_theta_of_tomorrow"):
                read_config()
            tried += 1
        path.write_text(json.dumps(content))
    assert tried


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "own" else pytest.mark.slow) for n in FOLDERS])
def test_values_of_other_types_end_in_one_line_or_are_read(name, tmp_path):
    read_config = _checkpoint(name, tmp_path)
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        for place in _objects(content):
            for key in _at(content, place):
                for value in SURPRISES:
                    changed = copy.deepcopy(content)
                    _at(changed, place)[key] = value
                    path.write_text(json.dumps(changed))
                    try:
                        read_config()
                    except (ConfigError, DataError):
                        continue
                    except Exception as error:
                        raise AssertionError(f"{path.name}: {'.'.join((*place, key))} = {value!r}") from error
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dims": 3}, r"config\.json: dims = 3"),
        ({"architecture": 7}, r"config\.json: architecture = 7"),
        ({"global_pool": "map"}, "global_pool = 'map': expected '' or 'avg'"),
        ({"model_args": {"in_chans": 1}}, "model_args = "),
        ({"pretrained_cfg": {"mean": [0.5, 0.5, "x"]}}, r"pretrained_cfg\.mean"),
        ({"pretrained_cfg": {"std": [0.5, 0.5, 0.0]}}, r"pretrained_cfg\.std"),
        ({"pretrained_cfg": {"input_size": 224}}, r"pretrained_cfg\.input_size = 224"),
        ({"pretrained_cfg": {"normalise": True}}, r"pretrained_cfg\.normalise"),
        ({"pretrained_cfg": "in1k"}, "pretrained_cfg = 'in1k': expected an object"),
    ],
)
def test_keys_of_timm_s_config_are_used_harmless_or_refused(change, said, tmp_path):
    unpack(read("tf_efficientnet_lite0"), tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    usual = {"tag": "in1k", "interpolation": "bicubic", "crop_pct": 0.9, "url": "x", "mean": [0.1, 0.2, 0.3]}
    cfg = {**(content.get("pretrained_cfg") or {}), **usual}
    path.write_text(json.dumps({**content, "num_classes": 1000, "global_pool": "avg", "pretrained_cfg": cfg}))
    assert load_image_tower(tmp_path).pixels["pixel_mean"] == (0.1, 0.2, 0.3)
    path.write_text(json.dumps(content | change))
    with pytest.raises(ConfigError, match=said):
        load_image_tower(tmp_path)


def test_pixels_are_normalised_as_transformers_5_writes_it(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    inner = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_rescale": True}
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIP", "image_processor": inner}))
    assert read_pixels(tmp_path, CLIP_VISION, 3) == {"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (0.4, 0.5, 0.6)}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner | {"do_rescale": False}}))
    with pytest.raises(ConfigError, match=r"processor_config\.json: do_rescale"):
        read_pixels(tmp_path, CLIP_VISION, 3)


@pytest.mark.parametrize(
    "content",
    [{"weight_map": {"a": 3}}, {"weight_map": ["a"]}, {"weight_map": None}, [], {"metadata": [1], "weight_map": {}}],
)
def test_an_index_of_shards_that_is_none_is_one_line(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    if isinstance(content, dict) and content["weight_map"] == {}:
        assert weight_files.read_weights(tmp_path) == {}
        return
    with pytest.raises(DataError, match=r"index\.json") as error:
        weight_files.read_weights(tmp_path)
    assert "\n" not in str(error.value)


def test_two_sets_of_weights_of_one_name_are_refused(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(DataError, match="of which libraries read one"):
        weight_files.read_weights(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_in_the_place_of_a_file_is_no_absent_file(kind, tmp_path):
    """A cut download leaves links to nothing; the defaults of an absent preprocessor would be other pixels."""
    path = tmp_path / "preprocessor_config.json"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "blobs" / "absent")
    with pytest.raises(DataError, match=f"preprocessor_config.json is no file, but a {kind}"):
        read_pixels(tmp_path, CLIP_VISION, 3)
