"""Features and their gradients by the input against values that transformers on torch computed in float64.

`experiments/parity/make_references.py` wrote the values.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ranjax.models import load, load_bert_mlm

REFERENCES = Path(__file__).parent / "references"
CLIPS = ("clip_gelu_patch4_grey", "clip_quick_gelu_patch8", "clip_largest_id_pooled")


def read(name):
    with np.load(REFERENCES / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


def unpack(stored, folder):
    """Writes config.json and float16 weights as a checkpoint's folder holds them."""
    weights = {key.removeprefix("weights/"): value for key, value in stored.items() if key.startswith("weights/")}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads(stored["config"].tobytes())))
    return folder


def compare(encode, inputs, stored, part, tolerance):
    """`encode: inputs -> features`: features and gradient, in one compilation."""
    direction = jnp.asarray(stored[f"{part}/direction"], inputs.dtype)

    def loss(x):
        features = encode(x)
        return jnp.sum(features * direction), features

    gradient, features = jax.jit(jax.grad(loss, has_aux=True))(inputs)
    for ours, name in ((features, "features"), (gradient, "gradient")):
        truth = stored[f"{part}/{name}"]
        # A tower that is dead behind its ReLUs would agree with anything.
        assert np.abs(truth).max(axis=tuple(range(1, truth.ndim))).all(), name
        assert np.linalg.norm(np.asarray(ours, np.float64) - truth) <= tolerance * np.linalg.norm(truth), name


def compare_two_towers(load, name, folder, dtype, tolerance):
    """`folder` holds the checkpoint."""
    stored = read(name)
    functions, params, _ = load(folder, dtype=dtype)
    tokens, mask = jnp.asarray(stored["text/tokens"]), jnp.asarray(stored["text/mask"])
    rows = functions.token_table(params)[tokens]
    images = jnp.asarray(stored["image/images"], dtype)
    compare(lambda x: functions.image_features(params, x), images, stored, "image", tolerance)
    compare(lambda x: functions.text_features(params, tokens, mask, x), rows, stored, "text", tolerance)


@pytest.mark.parametrize("name", CLIPS)
def test_clip_equals_torch_in_float64(name, tmp_path, float64):
    compare_two_towers(load, name, unpack(read(name), tmp_path), "float64", 1e-10)


def test_clip_equals_torch_in_float32_within_rounding(tmp_path):
    compare_two_towers(load, CLIPS[0], unpack(read(CLIPS[0]), tmp_path), "float32", 1e-5)


def test_a_vision_tower_beside_bert_equals_torch(tmp_path, float64):
    compare_two_towers(load, "vision_bert", unpack(read("vision_bert"), tmp_path), "float64", 1e-10)


def test_a_masked_language_model_equals_torch(tmp_path, float64):
    stored = read("bert_mlm")
    functions, params, _ = load_bert_mlm(unpack(stored, tmp_path), dtype="float64")
    tokens, mask = jnp.asarray(stored["text/tokens"]), jnp.asarray(stored["text/mask"])
    rows = functions.token_table(params)[tokens]
    compare(lambda x: functions.logits(params, tokens, mask, x), rows, stored, "text", 1e-10)
