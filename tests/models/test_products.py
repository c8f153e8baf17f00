"""Gradients written by hand against those of differentiation, in float64, and their sum over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ranjax.models import products
from ranjax.training import devices

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def plain_affine(x, kernel, bias):
    return x @ kernel + bias[None]


def plain_layer_norm(x, scale, bias):
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5) * scale[None] + bias[None]


def plain_attention(query, key, value, allowed):
    q, k, v = (x.reshape(2, 5, 3, 4).transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) / 2.0
    if allowed is not None:
        scores = jnp.where(jnp.broadcast_to(allowed, scores.shape), scores, -1e30)
    mixed = jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores, -1), v)
    return mixed.transpose(0, 2, 1, 3).reshape(2, 5, 12)


def check(ours, plain, *inputs):
    """Values, gradients, and the gradient of a function of the gradients."""
    direction = draw(*jax.eval_shape(plain, *inputs).shape)

    def twice(fn, *inputs):
        def slopes(*inputs):
            return jax.grad(lambda *x: jnp.sum(fn(*x) * direction), argnums=tuple(range(len(inputs))))(*inputs)

        first = slopes(*inputs)
        second = jax.grad(lambda *x: sum(jnp.sum(jnp.sin(s)) for s in slopes(*x)))(*inputs)
        return fn(*inputs), first, second

    found, expected = (jax.jit(functools.partial(twice, fn))(*inputs) for fn in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected)


@pytest.mark.parametrize("width", [3, 9])
def test_affine(width, float64):
    check(products.affine, plain_affine, draw(7, 5), draw(5, width), draw(width))


def test_layer_norm(float64):
    check(lambda x, s, b: products.layer_norm(x, s, b, 1e-5), plain_layer_norm, draw(7, 6), draw(6), draw(6))


def test_a_pointwise_function(float64):
    check(lambda x: products.pointwise(jax.nn.silu, x), jax.nn.silu, draw(4, 6))


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked, float64):
    allowed = None
    if masked:
        real = jnp.arange(5)[None] < jnp.asarray([3, 5])[:, None]
        allowed = jnp.tril(jnp.ones((5, 5), bool))[None, None] & real[:, None, None, :]
    inputs = [draw(2, 5, 12) for _ in range(3)]
    check(lambda *x: products.attention(*x, allowed, 3), lambda *x: plain_attention(*x, allowed), *inputs)


def test_jax_s_attention_equals_ours_in_float32():
    allowed = jnp.asarray([[True] * 3 + [False] * 2, [True] * 5])[:, None, None, :]
    inputs = [draw(2, 5, 12).astype(jnp.float32) for _ in range(3)]
    direction = draw(2, 5, 12).astype(jnp.float32)

    def slopes(whose):
        loss = lambda *x: jnp.sum(products.attention(*x, allowed, 3, whose) * direction)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*inputs)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), slopes("own"), slopes("jax"))


def test_attention_of_one_query(float64):
    query, key, value = draw(2, 1, 12), draw(2, 5, 12), draw(2, 5, 12)

    def plain(query, key, value):
        return plain_attention(jnp.broadcast_to(query, key.shape), key, value, None)[:, :1]

    check(lambda *x: products.attention(*x, None, 3), plain, query, key, value)


def test_gradients_of_replicated_weights_are_summed_over_devices(float64):
    mesh = devices.make_mesh(4)
    x, kernel, bias, scale = draw(8, 5), draw(5, 3), draw(3), draw(5)

    def loss(weights, x):
        normal = products.layer_norm(x, weights["scale"], weights["scale"], 1e-5)
        return jnp.mean(products.pointwise(jnp.sin, products.affine(normal, weights["kernel"], weights["bias"])))

    weights = {"kernel": kernel, "bias": bias, "scale": scale}
    expected = jax.jit(jax.grad(loss))(weights, x)
    for check_vma in (True, False):

        def slopes(weights, x, check_vma=check_vma):
            found = jax.grad(lambda w: jax.lax.pmean(loss(w, x), devices.AXIS))(weights)
            return found if check_vma else jax.lax.pmean(found, devices.AXIS)

        specs = {"in_specs": (PartitionSpec(), PartitionSpec(devices.AXIS)), "out_specs": PartitionSpec()}
        found = jax.jit(jax.shard_map(slopes, mesh=mesh, check_vma=check_vma, **specs))(weights, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_half_precision_sums_rows_at_full_precision():
    ones = jnp.ones((4096, 1), jnp.bfloat16)
    by_bias = jax.grad(lambda b: jnp.sum(products.affine(ones, ones[:1], b)))(jnp.zeros((1,), jnp.bfloat16))
    assert by_bias[0] == 4096


def test_half_precision_is_differentiated_twice():
    x, kernel, bias = (draw(*shape).astype(jnp.bfloat16) for shape in ((7, 5), (5, 3), (3,)))

    def slope(fn, x, kernel):
        return jax.grad(lambda k: jnp.sum(jnp.sin(fn(x, k, bias)), dtype=jnp.float32))(kernel)

    def second(fn):
        return jax.jit(jax.grad(lambda x: jnp.sum(slope(fn, x, kernel), dtype=jnp.float32)))(x)

    found, expected = (np.asarray(second(fn), np.float32) for fn in (products.affine, plain_affine))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
