"""Keys and draws made on the host are those of JAX, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.core import keys


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5, 2**40 + 7, -3])
def test_a_stream_is_the_key_that_jax_derives(seed):
    expected = jax.random.fold_in(jax.random.key(seed), np.uint32(keys.stable_hash("craft")))
    assert words(keys.stream(seed, "craft")) == words(expected)
    assert words(keys.streams([seed, 1], "craft"))[0] == words(expected)


def test_keys_of_examples_and_steps_are_those_that_jax_folds_in():
    key, ids = keys.stream(3, "demo"), ["a", "b", "patient/1"]
    expected = [jax.random.fold_in(key, np.uint32(keys.stable_hash(i))) for i in ids]
    found = keys.example_keys(key, ids)
    assert words(found) == [words(k) for k in expected]
    assert words(keys.take(found, np.array([2, 0]))) == [words(expected[2]), words(expected[0])]
    assert words(keys.fold_in(key, 2**20)) == words(jax.random.fold_in(key, 2**20))


def test_keys_inside_a_compiled_function_are_the_same():
    key = keys.stream(3, "demo")
    assert words(jax.jit(lambda key: keys.fold_in(key, 5))(key)) == words(keys.fold_in(key, 5))


@pytest.mark.parametrize("shape", [(), (1,), (7, 9), (400, 400)])
def test_a_draw_of_any_shape_is_the_one_of_jax(shape):
    key = keys.stream(0, "init")
    expected = 0.02 * jax.random.normal(key, shape, jnp.float32)
    assert np.array_equal(keys.normal(key, shape, 0.02), expected)
    # Inside a program the factors merge, which may round otherwise.
    inside = jax.jit(lambda: keys.normal(nnx.Rngs(key).params(), shape, 0.02))()
    np.testing.assert_allclose(inside, keys.normal(nnx.Rngs(key).params(), shape, 0.02), rtol=3e-7)
