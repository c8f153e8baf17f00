"""Co-attention against an independent NumPy reference; padding; gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models.coattention import CoAttention, standardisation

SHAPE = CoAttention(image=(5, 6), question=(7, 4), width=8, heads=2, layers=2, outputs=10)
APPLY = jax.jit(SHAPE.apply)  # eagerly each operation would be compiled by itself
MASK = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0]], bool)


def given():
    rng = np.random.default_rng(0)
    places, tokens = rng.normal(size=(3, 5, 6)).astype(np.float32), rng.normal(size=(3, 7, 4)).astype(np.float32)
    params = SHAPE.init(jax.random.key(1))
    # Every parameter away from zeros and ones, so that none can be left out unseen.
    leaves, tree = jax.tree.flatten(params)
    params = jax.tree.unflatten(tree, [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])
    return params, standardisation(places, tokens, MASK), places, tokens


def reference(params, stats, places, tokens, mask):
    """One question at a time, one head at a time, without padding at all."""
    params, stats = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (params, stats))

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]

    def softmax(x, axis):
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    found = []
    for image, text, real in zip(places.astype(np.float64), tokens.astype(np.float64), mask):
        x = {}
        for side, rows in (("image", image), ("question", text[real])):
            rows = (rows - stats[side]["mean"]) * stats[side]["scale"][0]
            x[side] = linear(params[side]["input"], rows) + params[side]["positions"][: len(rows)]
        for layer in range(SHAPE.layers):
            own = params["layers"][str(layer)]
            normed = {side: norm(own[side]["norm1"], x[side]) for side in x}
            for side, other in (("image", "question"), ("question", "image")):
                p, heads = own[side], []
                q, k, v = (
                    linear(p[n], y)
                    for n, y in (("query", normed[side]), ("key", normed[other]), ("value", normed[other]))
                )
                for h in range(SHAPE.heads):
                    part = slice(4 * h, 4 * h + 4)
                    heads.append(softmax(q[:, part] @ k[:, part].T / 2.0, 1) @ v[:, part])
                x[side] = x[side] + linear(p["out"], np.concatenate(heads, 1))
            for side in x:
                p = own[side]
                x[side] = x[side] + linear(p["fc2"], gelu(linear(p["fc1"], norm(p["norm2"], x[side]))))
        total = 0
        for side in x:
            rows = norm(params[side]["norm"], x[side])
            weights = softmax(linear(params[side]["pool"], rows), 0)
            pooled = np.concatenate([weights[:, h] @ rows[:, 4 * h : 4 * h + 4] for h in range(SHAPE.heads)])
            total = total + linear(params[side]["output"], pooled)
        found.append(norm(params["norm"], total))
    return np.stack(found)


def test_fused_vectors_are_those_of_a_reference_that_never_pads():
    params, stats, places, tokens = given()
    found = APPLY(params, stats, jnp.asarray(places), jnp.asarray(tokens), jnp.asarray(MASK))
    np.testing.assert_allclose(found, reference(params, stats, places, tokens, MASK), rtol=2e-4, atol=2e-4)


def test_padding_and_the_length_of_a_batch_have_no_influence():
    params, stats, places, tokens = given()
    whole = APPLY(params, stats, jnp.asarray(places), jnp.asarray(tokens), jnp.asarray(MASK))
    loud = np.where(MASK[:, :, None], tokens, 1e3).astype(np.float32)
    other = APPLY(params, stats, jnp.asarray(places), jnp.asarray(loud), jnp.asarray(MASK))
    np.testing.assert_allclose(other, whole, rtol=1e-5, atol=1e-5)
    short = APPLY(params, stats, jnp.asarray(places[:1]), jnp.asarray(tokens[:1, :3]), jnp.asarray(MASK[:1, :3]))
    np.testing.assert_allclose(short, whole[:1], rtol=1e-5, atol=1e-5)


def test_gradients_reach_places_and_real_tokens_and_are_right():
    params, stats, places, tokens = given()

    def total(places, tokens):
        return jnp.sum(jnp.sin(APPLY(params, stats, places, tokens, jnp.asarray(MASK))))

    by_places, by_tokens = jax.jit(jax.grad(total, (0, 1)))(jnp.asarray(places), jnp.asarray(tokens))
    assert (np.abs(by_places).sum(-1) > 0).all()
    np.testing.assert_array_equal(np.abs(by_tokens).sum(-1) > 0, MASK)
    direction = np.random.default_rng(2).normal(size=places.shape)
    step = 1e-4
    ends = [np.sin(reference(params, stats, places + sign * step * direction, tokens, MASK)).sum() for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert np.sum(np.asarray(by_places) * direction) == pytest.approx(expected, rel=2e-3)


def test_dropout_acts_with_a_key_alone_and_keeps_the_mean():
    params, stats, places, tokens = given()
    inputs = jnp.asarray(places), jnp.asarray(tokens), jnp.asarray(MASK)
    one, two = (APPLY(params, stats, *inputs, jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(one, two)
    plain = APPLY(params, stats, *inputs)
    np.testing.assert_array_equal(plain, APPLY(params, stats, *inputs))


def test_standardisation_leaves_out_padding_and_silences_constant_channels():
    tokens = np.random.default_rng(0).normal(3, 2, (4, 7, 4)).astype(np.float32)
    tokens[..., 3] = 5.0
    mask = np.arange(7)[None] < np.array([[3], [7], [1], [2]])
    noisy = np.where(mask[:, :, None], tokens, 1e6).astype(np.float32)
    found = standardisation(np.ones((2, 5, 6), np.float32), noisy, mask)
    real = tokens[mask]
    np.testing.assert_allclose(found["question"]["mean"], real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["question"]["scale"][0, 0, :3], 1 / real[:, :3].std(0), rtol=1e-4)
    assert found["question"]["scale"][0, 0, 3] == 0
    assert not found["image"]["scale"].any()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"coattention.width = 10: expected a multiple of coattention.heads = 4"):
        CoAttention((5, 6), (7, 4), width=10, heads=4)
