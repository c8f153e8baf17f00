"""Encoders that a method changed, out of a run: LoRA merged into the kernels, back in bit for bit."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from ranjax import models
from ranjax.cli import console
from ranjax.models.checkpoints.naming import paths
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run.stages.adapt_outputs import load_tower
from ranjax.training.devices import make_mesh

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that ended after adapt, with a LoRA and a fully tuned encoder."""
    config, workdir = configs.default_config(), tmp_path_factory.mktemp("export") / "run"
    data = config.data.radiographs
    config.data.image_size = 32
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 40, 24, 16, 16
    config.pretrain.steps, config.pretrain.batch_size = 2, 16
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.patch_size = 16
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 24
    config.noise.ratios = (0.0,)
    config.adapt.methods = ("lora", "fft", "lp_filter")
    config.adapt.seeds = 2
    config.adapt.tower.epochs, config.adapt.tower.batch_size, config.adapt.tower.seeds = 1, 20, 2
    configs.validate(config)
    pipeline.execute(config, workdir, mesh=make_mesh(1), stop=lambda: False, say=lambda line: None, until="adapt")
    return workdir


def test_lora_is_merged_and_the_round_trip_is_bit_equal(made, tmp_path, capsys):
    out = tmp_path / "lora"
    assert console.call(["export", str(made), "--method", "lora", "--seed", "1", "--out", str(out)]) == 0
    assert "the run has no results.json yet" in capsys.readouterr().out
    functions, params, _ = models.load(out)
    _, base, _ = models.load(made / "pretrain" / "clean" / "encoder")
    adapters = jax.tree.map(lambda x: x[1], load_tower(made / "adapt" / "clean", "lora")["encoder"])
    merged, replaced = models.lora.merge(base, adapters)
    jax.tree.map(np.testing.assert_array_equal, params, merged)
    jax.tree.map(np.testing.assert_array_equal, models.lora.unmerge(params, replaced), base)
    changed = {path for path, leaf in paths(params).items() if not np.array_equal(leaf, paths(base)[path])}
    assert changed
    assert all(path[0] == "vision" and path[-1] == "kernel" for path in changed)
    models.save(tmp_path / "again", functions, params)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    card = (out / "README.md").read_text()
    assert "LoRA's adapters are merged into the kernels" in card
    assert "Not evaluated when this card was written" in card


def test_a_fully_tuned_tower_is_what_was_trained(made, tmp_path):
    assert console.call(["export", str(made), "--method", "fft", "--out", str(tmp_path / "fft")]) == 0
    _, params, _ = models.load(tmp_path / "fft")
    trained = paths(jax.tree.map(lambda x: x[0], load_tower(made / "adapt" / "clean", "fft")["encoder"]))
    assert len(trained) > 10
    for path, leaf in trained.items():
        np.testing.assert_array_equal(paths(params)[path], leaf)


def test_a_filter_goes_beside_the_encoder_with_the_head(made, tmp_path):
    out = tmp_path / "filtered"
    assert console.call(["export", str(made), "--method", "lp_filter", "--out", str(out)]) == 0
    _, params, _ = models.load(out)
    _, base, _ = models.load(made / "pretrain" / "clean" / "encoder")
    jax.tree.map(np.testing.assert_array_equal, params, base)
    head = load_file(out / "head.safetensors")
    taps = models.input_filter.gaussian(configs.default_config().adapt.filter)
    np.testing.assert_array_equal(head["input_filter/rows"], taps["rows"])
    assert any(name.startswith("params/") for name in head)
    assert "input_filter" in json.loads((out / "head.json").read_text())
    assert "behind a low-pass filter" in (out / "README.md").read_text()


@pytest.mark.filterwarnings("default")
def test_transformers_loads_what_was_taken_out_to_the_same_features(made, tmp_path):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    from transformers import AutoTokenizer, CLIPModel

    from ranjax.data.text.tokenizer import Tokenizer

    out = tmp_path / "lora"
    assert console.call(["export", str(made), "--method", "lora", "--out", str(out)]) == 0
    model, report = CLIPModel.from_pretrained(out, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    functions, params, config = models.load(out)
    text = ["No effusion. The heart is normal."]
    theirs = AutoTokenizer.from_pretrained(out)(text, return_tensors="pt", padding="max_length", max_length=32)
    ours = Tokenizer.load(out).encode(text, 32)
    np.testing.assert_array_equal(theirs["input_ids"], ours.ids)
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    pixels = torch.tensor(((images - config.pixel_mean[0]) / config.pixel_std[0]).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        image = model.eval().get_image_features(pixels).pooler_output
        words = model.get_text_features(**theirs).pooler_output
    np.testing.assert_allclose(image, functions.image_features(params, images), atol=2e-5)
    np.testing.assert_allclose(words, functions.text_features(params, ours.ids, ours.mask), atol=2e-5)
