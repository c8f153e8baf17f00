"""The optimizer's schedule, mask, clipping; the mesh's refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ranjax.core.errors import ConfigError
from ranjax.training import devices, optimizer

SETTINGS = {"learning_rate": 0.1, "steps": 20, "warmup_steps": 4}


def test_schedule_is_the_stored_one(reference_cases, float64):
    stored = np.load(reference_cases / "train_micro.npz")["lr"]
    rate = optimizer.warmup_cosine(optimizer.AdamWSettings(learning_rate=1e-3, steps=20, warmup_steps=4))
    np.testing.assert_allclose([rate(jnp.int32(k)) for k in range(20)], stored, rtol=1e-12)


def test_schedule_ends_at_zero_and_may_lack_a_warm_up():
    rate = optimizer.warmup_cosine(optimizer.AdamWSettings(learning_rate=1.0, steps=10))
    assert rate(jnp.int32(0)) == 1
    assert rate(jnp.int32(10)) == rate(jnp.int32(99)) == 0
    only = optimizer.warmup_cosine(optimizer.AdamWSettings(learning_rate=1.0, steps=4, warmup_steps=4))
    np.testing.assert_allclose(rate(jnp.int32(5)), 0.5, rtol=1e-6)
    assert only(jnp.int32(3)) == 1


def test_a_step_without_gradient_shrinks_matrices_alone():
    params = {
        "kernel": jnp.ones((2, 3)),
        "bias": jnp.ones(3),
        "norm": {"scale": jnp.ones(3)},
        "log_scale": jnp.ones(()),
    }
    adamw = optimizer.adamw(optimizer.AdamWSettings(weight_decay=0.2, **SETTINGS))
    updates, _ = adamw.update(jax.tree.map(jnp.zeros_like, params), adamw.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["kernel"], 1 - 0.025 * 0.2, rtol=1e-6)
    for name in ("bias", "norm", "log_scale"):
        jax.tree.map(np.testing.assert_array_equal, after[name], params[name])
    mask = {"bias": False, "kernel": True, "log_scale": False, "norm": {"scale": False}}
    assert optimizer.decay_mask(params) == mask


def test_clipping_is_off_by_default_and_bounds_the_norm_when_on():
    params = {"w": jnp.zeros(4)}
    grads = {"w": jnp.asarray([30.0, 40.0, 0.0, 0.0])}

    def first_moment(**kwargs):
        adamw = optimizer.adamw(optimizer.AdamWSettings(**SETTINGS, **kwargs))
        _, state = adamw.update(grads, adamw.init(params), params)
        return next(s.mu["w"] for s in state if isinstance(s, optax.ScaleByAdamState)) / 0.1

    np.testing.assert_allclose(first_moment(), grads["w"], rtol=1e-5)
    np.testing.assert_allclose(first_moment(clip_norm=5.0), grads["w"] / 10, rtol=1e-5)


def test_the_log_scale_stays_in_its_range():
    def clip(value):
        return optimizer.clip_log_scale({"a": {"log_scale": jnp.float32(value)}, "w": jnp.float32(9)})

    assert clip(7.0)["a"]["log_scale"] == np.float32(np.log(100))
    assert clip(-1.0)["a"]["log_scale"] == 0
    assert clip(2.0) == {"a": {"log_scale": 2}, "w": 9}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("steps", 0),
        ("warmup_steps", 21),
        ("beta1", 1.0),
        ("eps", 0.0),
        ("weight_decay", -0.1),
        ("clip_norm", 0.0),
    ],
)
def test_wrong_settings_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        optimizer.AdamWSettings(**(SETTINGS | {field: value}))


def test_batches_that_do_not_divide_are_refused_with_the_nearest_sizes():
    mesh = devices.make_mesh(8)
    with pytest.raises(ConfigError, match=r"batch_size = 20.*multiple of 8.*Nearest: 16 or 24"):
        devices.shard_batch({"x": np.zeros((20, 2))}, mesh)
    step = devices.data_parallel(lambda s, b, k: (s, jax.lax.pmean(jnp.sum(b["x"]), "data")), mesh)
    with pytest.raises(ConfigError, match="Nearest: 8"):
        step(jnp.float32(0), {"x": np.zeros((3, 2), np.float32)}, jax.random.key(0))
    with pytest.raises(ValueError, match="same number of rows"):
        devices.shard_batch({"x": np.zeros(8), "y": np.zeros(16)}, mesh)
    with pytest.raises(ConfigError, match="devices = 9"):
        devices.make_mesh(9)


@pytest.mark.parametrize("count", [1, 4])
def test_replicas_are_copies_so_that_donation_spares_the_original(count):
    mesh = devices.make_mesh(count)
    original = {"a": jnp.ones(1000), "b": np.ones(1000, np.float32)}
    replicas = devices.replicate(original, mesh)
    step = devices.data_parallel(lambda s, b, k: (jax.tree.map(lambda x: x * 2, s), jnp.float32(0)), mesh)
    state, _ = step(replicas, np.zeros(4, np.float32), jax.random.key(0))
    assert replicas["a"].is_deleted()
    for name in original:
        np.testing.assert_array_equal(original[name], 1)
        np.testing.assert_array_equal(state[name], 2)
