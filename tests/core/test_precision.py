"""What is exact asks for full float32 products, in all that it calls, and changes nothing on a CPU."""

import jax
import numpy as np

from ranjax.core.precision import exact


def product(a, b):
    return jax.nn.softmax(a @ b) @ b.T


def test_exact_products_ask_for_float32_and_are_the_same_on_a_cpu():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 64)).astype(np.float32), rng.normal(size=(64, 96)).astype(np.float32)
    inner = jax.jit(product)
    plain, full = jax.jit(lambda a, b: inner(a, b)), jax.jit(exact(lambda a, b: inner(a, b)))
    assert "HIGHEST" not in plain.lower(a, b).as_text()
    assert full.lower(a, b).as_text().count("HIGHEST, HIGHEST") == 2
    assert np.array_equal(plain(a, b), full(a, b))
    assert exact(product).__name__ == "product"
