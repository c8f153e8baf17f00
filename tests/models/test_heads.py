import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models.heads import LinearHead, ResidualHead

HEAD = ResidualHead(6, 3)
head_init = jax.jit(HEAD.init)
head_apply = jax.jit(HEAD.apply, static_argnames="train")


@pytest.fixture(scope="module")
def features():
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)


def by_hand(params, mean, var, features):
    """z and logits of the residual head in numpy, float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    f = np.asarray(features, np.float64)
    hidden = (f @ p["expand"]["kernel"] + p["expand"]["bias"] - mean) / np.sqrt(var + 1e-5)
    hidden = np.maximum(hidden * p["norm"]["scale"] + p["norm"]["bias"], 0)
    z = p["residual_scale"] * (hidden @ p["contract"]["kernel"] + p["contract"]["bias"]) + f
    return z, z @ p["classifier"]["kernel"] + p["classifier"]["bias"]


def test_the_linear_head_passes_features_through(features):
    params, stats = LinearHead(6, 3).init(jax.random.key(0))
    z, logits, same = LinearHead(6, 3).apply(params, stats, features, train=True)
    np.testing.assert_array_equal(z, features)
    classifier = params["classifier"]
    np.testing.assert_allclose(logits, features @ classifier["kernel"] + classifier["bias"][None], rtol=1e-6)
    assert stats == same == {}


def test_the_residual_head_equals_its_formula_in_training_and_evaluation(features):
    params, stats = head_init(jax.random.key(1))
    assert params["expand"]["kernel"].shape == (6, 24)
    np.testing.assert_array_equal(params["residual_scale"], np.ones(6))
    hidden = np.asarray(features, np.float64) @ np.asarray(params["expand"]["kernel"], np.float64)
    hidden = hidden + np.asarray(params["expand"]["bias"], np.float64)

    z, logits, moved = head_apply(params, stats, features, train=True)
    for ours, truth in zip((z, logits), by_hand(params, hidden.mean(0), hidden.var(0), features)):
        np.testing.assert_allclose(ours, truth, atol=1e-5)
    np.testing.assert_allclose(moved["mean"], 0.1 * hidden.mean(0), atol=1e-6)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * hidden.var(0, ddof=1), atol=1e-6)

    z, logits, same = head_apply(params, moved, features, train=False)
    for ours, truth in zip((z, logits), by_hand(params, *(np.asarray(moved[k]) for k in ("mean", "var")), features)):
        np.testing.assert_allclose(ours, truth, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, moved, same)


def test_evaluation_treats_every_row_on_its_own(features):
    params, stats = head_init(jax.random.key(2))
    whole = head_apply(params, stats, features, train=False)[1]
    np.testing.assert_allclose(HEAD.apply(params, stats, features[3:4], train=False)[1], whole[3:4], atol=1e-6)


def test_many_seeds_are_one_vmap(features):
    keys = jax.random.split(jax.random.key(3), 4)
    params, stats = jax.jit(jax.vmap(HEAD.init))(keys)
    z, logits, moved = jax.jit(jax.vmap(lambda p, s: HEAD.apply(p, s, features, True)))(params, stats)
    assert (z.shape, logits.shape, moved["mean"].shape) == ((4, 8, 6), (4, 8, 3), (4, 24))
    alone = head_apply(*head_init(keys[2]), features, train=True)
    np.testing.assert_allclose(logits[2], alone[1], atol=1e-5)
    assert hash(HEAD) == hash(ResidualHead(6, 3))


def test_running_moments_carry_no_gradient(features):
    params, stats = head_init(jax.random.key(4))
    gradient = jax.jit(jax.grad(lambda f: jnp.sum(HEAD.apply(params, stats, f, True)[2]["var"])))(features)
    assert not np.any(gradient)


@pytest.mark.parametrize("head", [HEAD, LinearHead(6, 3)])
def test_float64_heads_compute_in_float64(head, features, float64):
    def widen(tree):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), tree)

    params, stats = widen(jax.eval_shape(head.init, jax.random.key(5)))
    outputs = jax.eval_shape(lambda *inputs: head.apply(*inputs, train=True), params, stats, widen(features))
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(outputs))


def test_what_cannot_be_computed_is_refused(features):
    params, stats = head_init(jax.random.key(6))
    with pytest.raises(ConfigError, match="at least 2 rows"):
        HEAD.apply(params, stats, features[:1], train=True)
    with pytest.raises(ConfigError, match="at least one feature"):
        LinearHead(0, 3)
