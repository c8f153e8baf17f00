"""State split over the axis "model": every shape of 8 devices does what one device does, and holds its part alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from linear_encoder import LinearEncoder, batch_at

from ranjax.core.errors import ConfigError
from ranjax.training import contrastive_step as pretrain
from ranjax.training import devices, fsdp, optimizer
from ranjax.training.checkpoints import Checkpoints

# Clipped from the first step on: the norm must be that of whole gradients.
SETTINGS = optimizer.AdamWSettings(learning_rate=1e-2, steps=20, warmup_steps=2, clip_norm=0.05)


@functools.cache
def _params():
    rng = np.random.default_rng(0)
    shapes = {"image": (16, 64), "table": (20, 64), "text": (64, 64), "bias": (64,)}
    params = {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in shapes.items()}
    return params | {"log_scale": np.float32(1.0)}


@functools.cache
def _program(count, model, accumulate=1, chunk=None):
    mesh = devices.make_mesh(count, model)
    return pretrain.program(
        LinearEncoder(), _params(), SETTINGS, mesh, batch_size=16, accumulate=accumulate, chunk=chunk
    )


def _steps(program, state, first, last):
    metrics = {}
    for k in range(first, last):
        batch = devices.shard_batch(batch_at(k, 16), program.mesh)
        state, metrics = program.step(state, batch, jax.random.key(0))
    return state, jax.device_get(metrics)


def _close(found, wanted, atol=2e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol), *map(jax.device_get, (found, wanted))
    )


@functools.cache
def _one_device():
    program = _program(1, 1)
    state, metrics = _steps(program, program.start(_params()), 0, 3)
    return jax.device_get(state), metrics


@pytest.mark.parametrize(
    ("model", "accumulate", "chunk"),
    [
        (4, 2, 1),
        (8, 1, None),
        pytest.param(1, 2, 1, marks=pytest.mark.slow),
        pytest.param(2, 1, None, marks=pytest.mark.slow),
    ],
)
def test_every_shape_of_eight_devices_equals_one_device(model, accumulate, chunk):
    program = _program(8, model, accumulate, chunk)
    state, metrics = _steps(program, program.start(_params()), 0, 3)
    wanted, wanted_metrics = _one_device()
    _close(metrics, wanted_metrics)
    _close(state.params, wanted.params)
    # Adam's first moment is the (clipped) gradient, averaged over steps.
    _close(state.opt_state, wanted.opt_state)
    assert float(metrics["gradient_norm"]) > SETTINGS.clip_norm
    weight = state.params["text"]
    assert weight.addressable_shards[0].data.size == weight.size // model
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (64, 64)]
    assert moments
    assert all(leaf.addressable_shards[0].data.size == leaf.size // model for leaf in moments)


@pytest.mark.parametrize(
    ("saved", "restored"), [((8, 8), (1, 1)), pytest.param((1, 1), (8, 2), marks=pytest.mark.slow)]
)
def test_a_checkpoint_goes_on_on_another_mesh(tmp_path, saved, restored):
    before, after = _program(*saved), _program(*restored)
    state, _ = _steps(before, before.start(_params()), 0, 2)
    with Checkpoints(tmp_path) as store:
        store.save(2, state)
        found = store.restore(after.abstract(_params()))
    assert found.params["text"].sharding.mesh.shape == after.mesh.shape
    _close(found, state, atol=0)
    found, metrics = _steps(after, found, 2, 3)
    wanted, wanted_metrics = _one_device()
    _close(metrics, wanted_metrics)
    _close(found.params, wanted.params)


def test_arrays_are_split_along_their_longest_side_that_divides():
    assert fsdp.spec((768, 3072), 8) == PartitionSpec(None, "model")
    assert fsdp.spec((3072, 768), 8) == PartitionSpec("model")
    assert fsdp.spec((30522, 768), 8) == PartitionSpec(None, "model")
    assert fsdp.spec((512, 512), 8) == PartitionSpec("model")
    for whole in ((), (64,), (31, 33), (7, 768 * 7 + 1)):
        assert fsdp.spec(whole, 8) == PartitionSpec()
    assert fsdp.spec((768, 3072), 1) == PartitionSpec()


def test_each_device_holds_its_part_and_the_weights_are_gathered_and_their_gradients_scattered():
    from experiments.scale import collectives

    program = _program(8, 8)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch_at(0, 16)))
    compiled = program.step.lower(program.abstract(_params()), batch, jax.random.key(0)).compile()
    kinds = collectives.totals(collectives.read(compiled.as_text()))
    split, small = 4 * (16 * 64 + 20 * 64 + 64 * 64), 4 * (64 + 1)
    embeddings = 2 * 16 * 64 * 4
    assert kinds["all-gather"][1] == split + embeddings
    assert kinds["reduce-scatter"][1] == (split + embeddings) // 8
    # Of parameters and both moments an eighth; the batch's two rows and a few counters are the rest.
    state, rows = 3 * (split // 8 + small), 2 * (16 * 4 + 7 * 4 + 7)
    assert state <= compiled.memory_analysis().argument_size_in_bytes <= state + rows + 64


def test_a_model_axis_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(
        ConfigError, match=r"model_axis = 3: expected a divisor of 8, the number of devices: 1, 2, 4, 8"
    ):
        devices.make_mesh(8, 3)
    with pytest.raises(ConfigError, match=r"pretrain.batch_size = 12: .*Nearest: 8 or 16"):
        pretrain.program(LinearEncoder(), _params(), SETTINGS, devices.make_mesh(8, 2), batch_size=12)
    with pytest.raises(ConfigError, match=r"pretrain.accumulate = 3: expected a divisor of 2"):
        _program(8, 2, accumulate=3)
