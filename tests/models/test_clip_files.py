import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_encoder import TINY, seeded

from ranjax.core.errors import ConfigError, DataError
from ranjax.models import WeightsError, load, save
from ranjax.models.checkpoints.naming import write_tree
from ranjax.models.checkpoints.transformers_layouts import CLIP


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def pairs(stored, dtype):
    images = jnp.asarray(stored["images_u8"].transpose(0, 2, 3, 1), dtype) / 255
    return images, jnp.asarray(stored["ids"], jnp.int32), jnp.asarray(stored["mask"] > 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-10)])
def test_embeddings_equal_those_of_transformers_on_torch(reference_cases, encode, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        functions, params, config = load(reference_cases / "clip_micro_trained", dtype=dtype)
        assert config.text.pooling == "eos"
        with np.load(reference_cases / "pgd_micro.npz") as stored:
            image, text = encode(functions, params, *pairs(stored, dtype))
            for ours, name in ((image, "image_embeds"), (text, "text_embeds")):
                np.testing.assert_allclose(unit(ours), stored[f"{name}_{dtype}"], atol=tolerance, rtol=0)
            logits = functions.logit_scale(params) * unit(image) @ unit(text).T
            np.testing.assert_allclose(logits, stored[f"logits_{dtype}"], atol=tolerance * 20, rtol=0)


def test_gradients_by_every_parameter_equal_those_of_torch(reference_cases, float64):
    functions, params, config = load(reference_cases / "clip_micro_init", dtype="float64")
    with np.load(reference_cases / "train_micro.npz") as stored:
        rows = stored["order"][0]
        images, tokens, mask = pairs({k: stored[k][rows] for k in ("images_u8", "ids", "mask")}, "float64")

        @jax.jit
        def loss(params):
            image, text = functions.image_features(params, images), functions.text_features(params, tokens, mask)
            logits = functions.logit_scale(params) * unit(image) @ unit(text).T
            both = jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0)
            return -jnp.mean(jnp.diagonal(both)) / 2

        gradients = write_tree(jax.grad(loss)(params), CLIP.keys(config))
        for name, ours in gradients.items():
            np.testing.assert_allclose(ours, stored[f"grad0_float64/{name}"], atol=1e-10, rtol=1e-8, err_msg=name)


def test_a_round_trip_is_bit_equal(tiny, tmp_path):
    functions, params = tiny
    save(tmp_path, functions, params, layout="clip")
    again, loaded, config = load(tmp_path)
    assert again == functions
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    save(tmp_path / "second", again, loaded, layout="clip")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_file_of_torch_layout_comes_out_with_the_same_keys_and_values(reference_cases, tmp_path):
    source = reference_cases / "clip_micro_init"
    functions, params, _ = load(source)
    save(tmp_path, functions, params, layout="clip")
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value.astype(np.float32), after[name], strict=True)


def test_shards_with_an_index_are_read_as_one(tiny, tmp_path):
    functions, params = tiny
    save(tmp_path, functions, params, layout="clip")
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(weights)
    place = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(place.values()):
        save_file({name: weights[name] for name in names if place[name] == shard}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    jax.tree.map(np.testing.assert_array_equal, params, load(tmp_path)[1])

    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match="lacks 1 of its 2 shards: model-00002"):
        load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../elsewhere.safetensors"}}))
    with pytest.raises(DataError, match="outside its folder"):
        load(tmp_path)


def test_missing_extra_and_misshaped_keys_are_all_listed(tiny, tmp_path, caplog):
    functions, params = tiny
    save(tmp_path, functions, params, layout="clip")
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = np.arange(8)
    save_file(weights, tmp_path / "model.safetensors")
    load(tmp_path)

    del weights["text_projection.weight"]
    weights["head.weight"] = np.zeros(3, np.float32)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: text_projection.weight; 1 extra: head.weight") as caught:
        load(tmp_path)
    assert (caught.value.missing, caught.value.extra) == (["text_projection.weight"], ["head.weight"])
    with caplog.at_level("WARNING", "ranjax"):
        loaded = load(tmp_path, strict=False)[1]
    assert "text_projection.weight" in caplog.text
    assert loaded["text_projection"]["kernel"].shape == (12, 10)

    weights["visual_projection.weight"] = np.zeros((10, 17), np.float32)
    save_file(weights, tmp_path / "model.safetensors")
    for strict in (True, False):
        with pytest.raises(WeightsError, match=r"visual_projection.weight is \[10, 17\], not \[10, 16\]"):
            load(tmp_path, strict=strict)


def test_what_is_not_safetensors_is_named_as_what_it_is(tiny, tmp_path):
    save(tmp_path, *tiny, layout="clip")
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for content, words in (
        (b"\n <!DOCTYPE html><html>login</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (whole[: len(whole) // 2], "not a whole safetensors file"),
        (b"", "not a whole safetensors file"),
    ):
        weights.write_bytes(content)
        with pytest.raises(DataError, match=words):
            load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match="holds no weights"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(DataError, match=r"pickle.*refused.*ranjax.models.checkpoints.convert"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"config.json is absent"):
        load(tmp_path, layout="clip")


def test_a_config_of_another_kind_is_refused(tiny, tmp_path):
    save(tmp_path, *tiny, layout="clip")
    content = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ConfigError, match="model_type = 'bert'"):
        CLIP.read(content | {"model_type": "bert"}, tmp_path, {})
    content["text_config"]["hidden_act"] = "relu6"
    with pytest.raises(ConfigError, match="hidden_act = 'relu6'"):
        CLIP.read(content, tmp_path, {})


def test_each_tower_keeps_its_own_nonlinearity(tiny, tmp_path):
    functions, params = tiny
    text = dataclasses.replace(TINY.text, activation="gelu")
    mixed = dataclasses.replace(functions, config=dataclasses.replace(TINY, text=text))
    save(tmp_path, mixed, params, layout="clip")
    assert load(tmp_path)[2] == mixed.config


def test_defaults_of_transformers_fill_a_short_config(tmp_path):
    config = CLIP.read({"model_type": "clip"}, tmp_path, {})
    assert (config.image.width, config.text.width, config.image_size, config.text.eos_id) == (768, 512, 224, 49407)
    legacy = CLIP.read({"model_type": "clip", "text_config": {"eos_token_id": 2}}, tmp_path, {})
    assert legacy.text.pooling == "highest_id"


def test_an_eos_that_transformers_would_read_otherwise_is_not_exported(tmp_path):
    functions, params = seeded(dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, eos_id=2)))
    with pytest.raises(ConfigError, match=r"model\.eos_id = 2"):
        save(tmp_path, functions, params, layout="clip")


def test_pixel_statistics_travel_in_the_preprocessor_s_config(reference_cases, tmp_path):
    shutil.copytree(reference_cases / "clip_micro_init", tmp_path / "clip")
    content = {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(content))
    config = load(tmp_path / "clip", grey_to_rgb=True)[2]
    assert config.pixel_mean == (0.5, 0.5, 0.5)
    assert config.grey_to_rgb
