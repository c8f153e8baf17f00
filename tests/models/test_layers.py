"""Layers against their formulas in float64, and their gradients: forward, over devices, in half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from ranjax.models.attention import dot_product_attention
from ranjax.models.layers import LayerNorm, Linear
from ranjax.training import devices

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def expected_attention(query, key, value, allowed):
    """The formula with heads taken one by one, in numpy."""
    mixed = np.zeros(query.shape)
    allowed = np.ones((1, 1, 1, 1), bool) if allowed is None else np.asarray(allowed)
    allowed = np.broadcast_to(allowed, (query.shape[0], 1, query.shape[1], key.shape[1]))[:, 0]
    for head in range(3):
        q, k, v = (np.asarray(x)[:, :, 4 * head : 4 * head + 4] for x in (query, key, value))
        weights = np.where(allowed, np.exp(np.matmul(q, k.transpose(0, 2, 1)) / 2.0), 0.0)
        mixed[:, :, 4 * head : 4 * head + 4] = np.matmul(weights / weights.sum(-1, keepdims=True), v)
    return mixed


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [1, 5])
def test_attention_equals_its_formula(masked, queries, float64):
    allowed = None
    if masked:
        real = jnp.arange(5)[None] < jnp.asarray([3, 5])[:, None]
        allowed = jnp.tril(jnp.ones((5, 5), bool))[None, None, -queries:] & real[:, None, None, :]
    query, key, value = draw(2, queries, 12), draw(2, 5, 12), draw(2, 5, 12)
    found = dot_product_attention(query, key, value, allowed, 3)
    np.testing.assert_allclose(found, expected_attention(query, key, value, allowed), rtol=1e-10)


def test_attention_equals_that_of_jax_in_float32():
    allowed = jnp.asarray([[True] * 3 + [False] * 2, [True] * 5])[:, None, None, :]
    inputs = [draw(2, 5, 12).astype(jnp.float32) for _ in range(3)]
    direction = draw(2, 5, 12).astype(jnp.float32)

    def theirs(*inputs):
        q, k, v = (x.reshape(2, 5, 3, 4) for x in inputs)
        return jax.nn.dot_product_attention(q, k, v, mask=allowed).reshape(2, 5, 12)

    def slopes(function):
        return jax.value_and_grad(lambda *x: jnp.sum(function(*x) * direction), argnums=(0, 1, 2))(*inputs)

    ours = slopes(lambda *x: dot_product_attention(*x, allowed, 3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, slopes(theirs))


def test_a_query_that_may_look_nowhere_keeps_finite_gradients():
    allowed = jnp.zeros((1, 1, 1, 5), bool)
    inputs = [draw(1, 5, 12).astype(jnp.float32) for _ in range(3)]
    slopes = jax.grad(lambda *x: jnp.sum(dot_product_attention(*x, allowed, 3) ** 2), argnums=(0, 1, 2))(*inputs)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_layer_norm_equals_its_formula(float64):
    x, scale, bias = (np.asarray(draw(*shape)) for shape in ((2, 3, 6), (6,), (6,)))
    norm = LayerNorm(6, 1e-5)
    norm.scale, norm.bias = nnx.Param(jnp.asarray(scale)), nnx.Param(jnp.asarray(bias))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-10)


def test_gradients_of_replicated_weights_are_summed_over_devices(float64):
    mesh = devices.make_mesh(4)
    x = draw(8, 5)
    layer = nnx.split(Linear(5, 3, 1.0, nnx.Rngs(0)), nnx.Param)
    norm = nnx.split(LayerNorm(5, 1e-5), nnx.Param)
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (layer[1], norm[1]))

    def loss(weights, x):
        return jnp.mean(jnp.sin(nnx.merge(layer[0], weights[0])(nnx.merge(norm[0], weights[1])(x))))

    expected = jax.jit(jax.grad(loss))(weights, x)
    for check_vma in (True, False):

        def slopes(weights, x, check_vma=check_vma):
            found = jax.grad(lambda w: jax.lax.pmean(loss(w, x), devices.AXIS))(weights)
            return found if check_vma else jax.lax.pmean(found, devices.AXIS)

        specs = {"in_specs": (PartitionSpec(), PartitionSpec(devices.AXIS)), "out_specs": PartitionSpec()}
        found = jax.jit(jax.shard_map(slopes, mesh=mesh, check_vma=check_vma, **specs))(weights, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_half_precision_sums_rows_at_full_precision():
    graph, weights = nnx.split(Linear(1, 1, 1.0, nnx.Rngs(0)), nnx.Param)
    ones = jnp.ones((4096, 1), jnp.bfloat16)
    slope = jax.grad(lambda w: jnp.sum(nnx.merge(graph, w)(ones)))(weights)
    assert slope["bias"][...][0] == 4096
