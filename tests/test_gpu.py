"""On a GPU: the same features, losses and attacks as on a CPU within tolerance, the same bits after a kill, and memory.

    RANJAX_TESTS_GPU=gpu python -m pytest -n 0 -m gpu tests/test_gpu.py

`RANJAX_TESTS_GPU=rehearsal` lets a second CPU device stand in the GPU's place, to try these tests without one.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax import models
from ranjax.attacks import losses
from ranjax.attacks.attack_table import ATTACKS, CLASSIFIER
from ranjax.attacks.classifier import Classifier
from ranjax.core.precision import exact
from ranjax.models import attention
from ranjax.models.towers.tower_table import TOWERS, tower_of
from ranjax.objectives import classification, contrastive, rectification, robust
from ranjax.training import devices
from ranjax.training.contrastive_step import make_step
from ranjax.training.optimizer import AdamWSettings, TrainState, adamw

ROOT = Path(__file__).resolve().parents[1]
REHEARSAL = os.environ.get("RANJAX_TESTS_GPU") == "rehearsal"
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def both():
    """The first device of the CPU, and the GPU."""
    cpu = jax.devices("cpu")
    return cpu[0], cpu[1] if REHEARSAL else jax.devices("gpu")[0]


def on(device, function, *arguments):
    """What a function gives on a device."""
    form = "plain" if device.platform == "cpu" else "auto"
    with jax.default_device(device), attention.switch(form):
        return jax.device_get(jax.jit(function)(*jax.device_put(arguments, device)))


def compare(both, function, *arguments, of_largest):
    """Holds the results of both devices to each other, by a share of the largest number of each array."""
    expected, found = (jax.tree.leaves(on(device, function, *arguments)) for device in both)
    for one, other in zip(expected, found):
        scale = max(float(np.abs(one).max()), 1e-6)
        np.testing.assert_allclose(np.asarray(other, np.float64), one, atol=of_largest * scale, rtol=0)


SMALL = {
    "vit": {"image_size": 128, "patch_size": 8, "width": 64, "layers": 2, "heads": 2},
    "resnet": {"image_size": 64, "stem_width": 8, "widths": (16, 32), "depths": (1, 1)},
    "modified_resnet": {"image_size": 64, "width": 8, "depths": (1, 1, 1, 1), "heads": 4, "pooled_width": 32},
    "efficientnet": {"image_size": 64, "widths": (8,) * 7, "depths": (1,) * 7, "stem_width": 8, "head_width": 16},
    "text_transformer": {"vocab_size": 50, "max_length": 70, "width": 64, "layers": 2, "heads": 2, "eos_id": 1},
    "bert": {"vocab_size": 50, "max_length": 70, "width": 64, "layers": 2, "heads": 2, "mlp_width": 64},
}


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)


def test_no_tower_is_left_out():
    assert set(SMALL) == set(TOWERS)


@pytest.mark.parametrize("name", SMALL)
def test_a_tower_gives_the_same_features_and_gradients(name, both):
    config = TOWERS[name].config(**SMALL[name])
    graph, state = nnx.split(tower_of(config).build(config, nnx.Rngs(0)))
    if TOWERS[name].kind == "image":
        inputs = (drawn(2, config.image_size, config.image_size, config.channels),)
    else:
        tokens = np.random.default_rng(0).integers(2, 50, (2, 70)).astype(np.int32)
        inputs = (tokens, np.arange(70)[None] < np.array([[40], [70]]))

    def features(state, inputs):
        tower = nnx.merge(graph, state)
        given = inputs if len(inputs) == 1 else (*inputs, tower.token_embedding[...][inputs[0]])
        return tower(*given)

    compare(both, exact(features), state, inputs, of_largest=1e-4)
    slope = jax.grad(lambda state, inputs: jnp.sum(jnp.sin(features(state, inputs))))
    # Gradients run in TF32 there.
    compare(both, slope, state, inputs, of_largest=3e-2)


LOGITS, HOT = drawn(8, 5) * 4 - 2, jnp.asarray(np.arange(40).reshape(8, 5) % 3 == 0, jnp.float32)
LABELS = jnp.arange(8, dtype=np.int32) % 5
Z, F = drawn(16, 12) - 0.4, drawn(16, 12)[::-1] - 0.6
LOSSES = {
    "cross_entropy": (losses.cross_entropy, LOGITS, LABELS),
    "binary_cross_entropy": (losses.binary_cross_entropy, LOGITS, HOT),
    "dlr": (losses.dlr, LOGITS, LABELS),
    "margin": (losses.margin, LOGITS, LABELS),
    "kl": (classification.kl, LOGITS, -LOGITS),
    "info_nce": (contrastive.info_nce, Z, F, jnp.float32(10.0)),
    "sigmoid": (contrastive.sigmoid_loss, Z, F, jnp.float32(10.0)),
    "consistency": (rectification.consistency, Z, F),
    "covariance": (rectification.covariance, Z),
    "singular": (rectification.singular, Z),
    "fare": (robust.fare, Z, F),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_same(name, both):
    function, *given = LOSSES[name]
    compare(both, exact(function), *given, of_largest=1e-4)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_as_strong(name, both):
    entry = ATTACKS[name]
    images, labels = drawn(16, 8, 8, 1), jnp.arange(16, dtype=np.int32) % 5
    weights = np.random.default_rng(1).normal(size=(2, 64, 64)).astype(np.float32) / 8

    def logits(images):
        hidden = jnp.tanh(images.reshape(len(images), -1) @ weights[0])
        return (hidden @ weights[1])[:, :5]

    def attacked(images, keys):
        loss = entry.loss_for(5)
        given = Classifier(logits, labels) if loss == CLASSIFIER else losses.of_classifier(logits, labels, loss)
        found = entry.run(given, images, keys, entry.at(entry.settings, "8/255"))
        return {"norm": found.norm, "wrong": jnp.mean(found.success), "loss": jnp.mean(found.loss)}

    keys = jax.random.split(jax.random.key(0), 16)
    expected, found = (on(device, exact(attacked), images, keys) for device in both)
    assert found["norm"].max() <= 8 / 255 + 1e-6
    assert abs(found["wrong"] - expected["wrong"]) <= 1 / 16
    # Steps by sign turn the rounding of a gradient near nothing into a pixel's whole step.
    assert found["loss"] == pytest.approx(expected["loss"], rel=0.03, abs=0.03)


@pytest.mark.parametrize(("length", "masked", "causal"), [(197, False, False), (77, True, True), (128, True, False)])
def test_fused_attention_is_plain_attention_within_half_precision(length, masked, causal, both):
    if REHEARSAL:
        pytest.skip("cuDNN's kernel runs on a GPU alone")
    draw = np.random.default_rng(0)
    operands = [draw.normal(size=(4, length, 768)).astype(jnp.bfloat16) for _ in range(3)]
    keys = jnp.asarray(np.arange(length)[None] < np.array([[length], [40], [9], [length - 1]])) if masked else None

    def run(form):
        def loss(q, k, v):
            out = attention.dot_product_attention(q, k, v, attention.visible(keys, causal, length), 12)
            assert attention.form_of(q, k, None, 12) == form
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        with attention.switch(form):
            return jax.device_get(jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*operands))

    for one, other in zip(jax.tree.leaves(run("cudnn")), jax.tree.leaves(run("plain"))):
        wide = np.asarray(other, np.float32)
        np.testing.assert_allclose(np.asarray(one, np.float32), wide, atol=0.03 * np.abs(wide).max(), rtol=0)


def test_a_step_holds_what_the_compiler_says(both):
    config = models.clip(vocab_size=50, eos_id=1, compute_dtype="bfloat16")
    functions, params = models.split(models.DualEncoder(config, nnx.Rngs(0)))
    settings = AdamWSettings(learning_rate=1e-4, steps=10)
    mesh = devices.make_mesh([both[1]])
    run = devices.data_parallel(make_step(functions, adamw(settings)), mesh)
    state = devices.replicate(TrainState.create(params, adamw(settings)), mesh)
    tokens = np.full((64, 32), 3, np.int32)
    batch = {"image": np.asarray(drawn(64, 64, 64, 1)), "tokens": tokens, "mask": tokens > 0}
    batch = devices.shard_batch(batch, mesh)
    sizes = run.trace(state, batch, jax.random.key(0)).lower().compile().memory_analysis()
    said = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    _, metrics = run(state, batch, jax.random.key(0))
    assert bool(metrics["finite"])
    stats = both[1].memory_stats()
    if not stats:
        pytest.skip("this device does not say how much of its memory was in use")
    assert stats["peak_bytes_in_use"] < 4 * said


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    """By deterministic kernels: sums by atomic adds have an order of their own in every run."""
    tiny = ROOT / "experiments" / "reliability" / "tiny.py"
    environment = {**os.environ, "XLA_FLAGS": "" if REHEARSAL else "--xla_gpu_deterministic_ops=true"}
    environment["JAX_PLATFORMS"] = "cpu" if REHEARSAL else "cuda"

    def line(name):
        run = [sys.executable, "-m", "ranjax.main", "--config", tiny, "--workdir", tmp_path / name]
        cached = f"--config.compile_cache={tmp_path / 'cache'}"
        return [*map(str, run), cached, "--config.noise.ratios=(0.0,)", "--until", "pretrain"]

    options = {"cwd": ROOT, "env": environment, "text": True, "stderr": subprocess.STDOUT, "stdout": subprocess.PIPE}
    whole = subprocess.run(line("whole"), check=False, **options)
    assert whole.returncode == 0, whole.stdout
    with subprocess.Popen(line("killed"), **options) as process:
        for output in process.stdout:
            if "step 4:" in output:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    again = subprocess.run(line("killed"), check=False, **options)
    assert again.returncode == 0, again.stdout
    one, other = (tmp_path / name / "pretrain/clean/encoder/model.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
