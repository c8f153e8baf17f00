"""The pre-training step: the stored 20-step trajectory, eight devices, accumulation, compilation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from linear_encoder import LinearEncoder, batch_at, init_params

from ranjax import models
from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.transformers_layouts import CLIP
from ranjax.models.trainable import select
from ranjax.objectives import contrastive
from ranjax.training import contrastive_step as pretrain
from ranjax.training import devices, optimizer
from ranjax.training.optimizer import TrainState

SETTINGS = optimizer.AdamWSettings(learning_rate=1e-3, steps=20, warmup_steps=4)


def _run_micro(folder, dtype):
    stored = np.load(folder / "train_micro.npz")
    functions, params, _ = models.load(folder / "clip_micro_init")
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    start = params
    adamw = optimizer.adamw(SETTINGS)
    step = jax.jit(pretrain.make_step(functions, adamw, axis_name=None))
    state, key = TrainState.create(params, adamw), jax.random.key(0)
    images = (stored["images_u8"].astype(dtype) / 255).transpose(0, 2, 3, 1)
    rows, after = [], {0: start}
    for k, order in enumerate(stored["order"]):
        tokens, mask = stored["ids"][order].astype(np.int32), stored["mask"][order].astype(bool)
        state, metrics = step(state, {"image": images[order], "tokens": tokens, "mask": mask}, key)
        rows.append([metrics["loss"], metrics["gradient_norm"], state.params["log_scale"]])
        after[k + 1] = state.params
    return stored, functions, np.array(rows, np.float64), after


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_twenty_steps_equal_the_stored_trajectory(dtype, reference_cases):
    tight = dtype == "float64"
    with jax.enable_x64(tight):
        stored, functions, rows, after = _run_micro(reference_cases, np.dtype(dtype))
        np.testing.assert_allclose(rows[:, 0], stored["loss_float64"], atol=1e-8 if tight else 1e-5)
        np.testing.assert_allclose(rows[:, 1], stored["grad_norm_float64"], rtol=1e-8 if tight else 1e-4)
        np.testing.assert_allclose(rows[:, 2], stored["logit_scale_float64"], atol=1e-8 if tight else 1e-5)
        for k in (1, 5, 20):
            named = _by_stored_name(functions, after[k])
            for name in stored["names"]:
                want = stored[f"after{k}_float64/{name}"]
                # Adam divides by sqrt(v): where a gradient is about 0 (attention's key bias), rounding makes the step.
                slack = 1e-8 if tight else 2e-3 * k if name.endswith("k_proj.bias") else 2e-5 * k
                np.testing.assert_allclose(named[name], want, atol=slack, err_msg=f"{name} after {k}")


def _by_stored_name(functions, params):
    from ranjax.models.checkpoints.naming import write_tree

    return write_tree(params, CLIP.keys(functions.config))


def test_weight_decay_reaches_exactly_the_stored_tensors(reference_cases):
    functions, params, _ = models.load(reference_cases / "clip_micro_init")
    stored = json.loads((reference_cases / "train_micro.json").read_text())
    named = _by_stored_name(
        functions, jax.tree.map(lambda x, m: np.full(x.shape, m), params, optimizer.decay_mask(params))
    )
    assert sorted(name for name, mask in named.items() if mask.all()) == sorted(stored["decayed"])
    assert sorted(name for name, mask in named.items() if not mask.any()) == sorted(stored["not_decayed"])


def _sgd_step(count, accumulate=1, rows=16):
    """One step of plain gradient descent, so that the change of the parameters is the gradient."""
    sgd = optax.sgd(1.0)
    mesh = devices.make_mesh(count)
    step = devices.data_parallel(pretrain.make_step(LinearEncoder(), sgd, accumulate=accumulate), mesh)
    before = init_params()
    state = devices.replicate(TrainState.create(before, sgd), mesh)
    state, metrics = step(state, devices.shard_batch(batch_at(0, rows), mesh), jax.random.key(0))
    grads = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before, state.params)
    return jax.device_get(metrics), grads


def test_eight_devices_and_accumulation_equal_one_device():
    metrics, grads = _sgd_step(1)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    for count, accumulate in ((8, 1), (8, 2), (1, 4)):
        other, other_grads = _sgd_step(count, accumulate)
        for name in metrics:
            np.testing.assert_allclose(other[name], metrics[name], rtol=2e-5, err_msg=name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), other_grads, grads)


def test_accumulation_needs_a_divisor():
    with pytest.raises(ConfigError, match="a divisor of 16"):
        _sgd_step(1, accumulate=5)
    with pytest.raises(ConfigError, match="accumulate = 0"):
        pretrain.make_step(LinearEncoder(), optax.sgd(1.0), accumulate=0)


def test_a_second_call_does_not_compile_again():
    traces = []
    sgd = optax.sgd(0.1)
    inner = pretrain.make_step(LinearEncoder(), sgd)

    def counted(state, batch, key):
        traces.append(1)
        return inner(state, batch, key)

    mesh = devices.make_mesh(2)
    step = devices.data_parallel(counted, mesh)
    state = devices.replicate(TrainState.create(init_params(), sgd), mesh)
    for k in range(3):
        state, _ = step(state, devices.shard_batch(batch_at(k, 16), mesh), jax.random.fold_in(jax.random.key(0), k))
        if k == 0:
            first = len(traces)
    assert len(traces) == first


def test_the_first_bad_tensor_is_named():
    def objective(image, text, scale, axis_name):
        loss, aux = contrastive.info_nce(image, text, scale, axis_name)
        # The root of 0 has an infinite slope, times 0: the loss is fine, the gradient by the images is not.
        return loss + jnp.sqrt(jnp.sum(image * 0)), aux

    sgd = optax.sgd(0.1)
    params, batch, key = init_params(), batch_at(0, 16), jax.random.key(0)
    state = TrainState.create(params, sgd)
    _, fine = jax.jit(pretrain.make_step(LinearEncoder(), sgd, axis_name=None))(state, batch, key)
    assert fine["finite"]
    assert fine["bad_tensor"] == -1
    _, bad = jax.jit(pretrain.make_step(LinearEncoder(), sgd, objective=objective, axis_name=None))(state, batch, key)
    assert jnp.isfinite(bad["loss"])
    assert not bad["finite"]
    assert optimizer.tensor_paths(params)[int(bad["bad_tensor"])] == "image"


def test_augmentation_does_not_depend_on_the_number_of_devices():
    key, spec = jax.random.key(3), PartitionSpec
    whole = devices.row_keys(key, 16)
    split = jax.shard_map(
        lambda k: devices.row_keys(k, 2, "data"), mesh=devices.make_mesh(8), in_specs=spec(), out_specs=spec("data")
    )(key)
    np.testing.assert_array_equal(jax.random.key_data(whole), jax.random.key_data(split))
    assert len(np.unique(jax.random.key_data(whole), axis=0)) == 16


def test_eight_bit_images_are_scaled():
    bits = jnp.asarray([[0, 255]], jnp.uint8)
    np.testing.assert_array_equal(pretrain.as_float(bits), np.asarray([[0, 1]], np.float32))


def test_what_is_not_chosen_stays_bit_equal_and_has_no_optimizer_state():
    params = init_params()
    chosen = select(params, ["image|log_scale"])
    frozen = [leaf for leaf, on in zip(jax.tree.leaves(params), jax.tree.leaves(chosen)) if not on]
    assert frozen
    plain = optimizer.adamw(SETTINGS)
    adamw = optimizer.only(plain, chosen)
    step = jax.jit(pretrain.make_step(LinearEncoder(), adamw, axis_name=None, trainable=chosen))
    state = TrainState.create(params, adamw)
    assert len(jax.tree.leaves(state.opt_state)) < len(jax.tree.leaves(plain.init(params)))
    after, metrics = step(state, batch_at(0), jax.random.key(0))
    assert metrics["gradient_norm"] > 0
    for old, new, on in zip(*map(jax.tree.leaves, (params, after.params, chosen))):
        assert np.array_equal(old, new) is not on


def test_validation_goes_by_the_objective_that_trains():
    class Biased(LinearEncoder):
        def logit_bias(self, params):
            return jnp.asarray(-3.0)

    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(5, 6)).astype(np.float32) for _ in range(2))
    params = init_params()
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (image, text)]
    cosines = np.exp(1.0) * units[0] @ units[1].T
    own = np.eye(5, dtype=bool)
    pairwise = np.log1p(np.exp(-np.where(own, 1, -1) * (cosines - 3))).sum() / 5
    rows, columns = (np.log(np.exp(cosines).sum(axis)) - cosines[own] for axis in (1, 0))
    for objective, truth in (("sigmoid", pairwise), ("info_nce", (rows.mean() + columns.mean()) / 2)):
        ours = pretrain.held_out_loss(Biased(), params, jnp.asarray(image), jnp.asarray(text), objective)
        np.testing.assert_allclose(ours, truth, rtol=1e-5)
