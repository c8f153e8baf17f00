"""Every tower's features and gradients against open_clip, timm and transformers on torch in float64; files in and out.

`experiments/parity/make_tower_references.py` wrote the values.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from test_torch_references import compare, compare_two_towers, read, unpack

from ranjax.models import load, save
from ranjax.models.checkpoints.assemble import load_image_tower
from ranjax.models.towers.tower_table import tower_of

OPEN_CLIP = ("open_clip_vit", "open_clip_modified_resnet", "open_clip_biomed", "open_clip_resnet50", "open_clip_siglip")
ENCODERS = (*OPEN_CLIP, "siglip", "medclip")
# Made of parts that the other cases compare by default.
LATER = ("open_clip_vit", "open_clip_resnet50", "siglip")
DEFAULT_FIRST = [pytest.param(name, marks=[pytest.mark.slow] if name in LATER else []) for name in ENCODERS]

# What experiments/parity/make_references.py normalises pixels by.
REFERENCE = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def folder_of(name, folder):
    """Writes a reference's files as its own library lays them out."""
    stored = read(name)
    if name == "medclip":
        content = json.loads(stored["config"].tobytes())
        own = {"ranjax": {"image_size": content["image_size"]}}
        (folder / "config.json").write_text(json.dumps(content["bert"] | own))
        weights = {key.removeprefix("weights/"): value for key, value in stored.items() if key.startswith("weights/")}
        save_file(weights, folder / "model.safetensors")
        return folder
    if not name.startswith("open_clip"):
        pixels = {f"image_{part}": value for part, value in REFERENCE.items()}
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
        return unpack(stored, folder)
    content = json.loads(stored["config"].tobytes())
    bert = content.pop("bert", None)
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    if bert is not None:
        (folder / "config.json").write_text(json.dumps(bert))
    weights = {key.removeprefix("weights/"): value for key, value in stored.items() if key.startswith("weights/")}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize("name", DEFAULT_FIRST)
def test_an_encoder_equals_torch_in_float64(name, tmp_path, float64):
    compare_two_towers(load, name, folder_of(name, tmp_path), "float64", 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_equals_torch_in_float32_within_rounding(name, tmp_path):
    compare_two_towers(load, name, folder_of(name, tmp_path), "float32", 1e-5)


@pytest.mark.parametrize(
    ("name", "pixel_mean"),
    [
        pytest.param("resnet_basic", (0.485, 0.456, 0.406), marks=pytest.mark.slow),
        ("resnet_bottleneck", (0.485, 0.456, 0.406)),
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5)),
        pytest.param("efficientnet_lite0", (0.485, 0.456, 0.406), marks=pytest.mark.slow),
    ],
)
def test_an_image_tower_of_transformers_or_timm_equals_torch(name, pixel_mean, tmp_path, float64):
    stored = read(name)
    config, params, pixels = load_image_tower(unpack(stored, tmp_path), dtype="float64")
    graph = nnx.graphdef(nnx.eval_shape(lambda: tower_of(config).build(config, nnx.Rngs(0))))
    mean, std = (jnp.asarray(REFERENCE[part])[None, None, None] for part in ("mean", "std"))
    images = jnp.asarray(stored["image/images"], "float64")
    compare(lambda x: nnx.merge(graph, params)((x - mean) / std), images, stored, "image", 1e-10)
    assert pixels["pixel_mean"] == pixel_mean


@pytest.mark.parametrize("name", ENCODERS)
def test_a_round_trip_out_and_in_is_bit_equal_and_keeps_every_key(name, tmp_path):
    source, first, second = (tmp_path / part for part in ("source", "first", "second"))
    source.mkdir()
    functions, params, config = load(folder_of(name, source))
    assert save(first, functions, params) == config.layout
    again, loaded, same = load(first)
    assert (again, same) == (functions, config)
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    save(second, again, loaded)
    weights = next(first.glob("*.safetensors"))
    assert weights.read_bytes() == (second / weights.name).read_bytes()
    before, after = load_file(source / weights.name), load_file(weights)
    # MedCLIP's files hold BERT's pooler, which its code does not use.
    assert {key for key in before.keys() - after.keys() if ".pooler." not in key} == set()
    assert {key.rsplit(".", 1)[-1] for key in after.keys() - before.keys()} <= {"num_batches_tracked"}
    for key in before.keys() & after.keys():
        value = before[key]
        np.testing.assert_array_equal(value.astype(np.float32), after[key], strict=True)
