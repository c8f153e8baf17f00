import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models import lora
from ranjax.models.checkpoints.naming import paths


@pytest.fixture(scope="module")
def adapters(tiny):
    """Adapters of rank 2 as after some training: `up` is no longer zero."""
    fresh = lora.add(tiny[1], 2, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), fresh)


def test_fresh_adapters_change_nothing_and_cover_attention_and_mlp_of_both_towers(tiny):
    _, params = tiny
    fresh = lora.add(params, 2, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, lora.apply(params, fresh), params)
    places = {"/".join(path[:-1]) for path in paths(fresh)}
    assert len(places) == (2 + 2) * 6
    assert "text/blocks/layers/1/mlp/fc2/kernel" in places
    assert not any("bias" in place or "projection" in place for place in places)


def test_merged_kernels_equal_the_formula_and_unmerging_is_bit_exact(tiny, adapters):
    _, params = tiny
    merged, replaced = lora.merge(params, adapters, alpha=6.0)
    path = ("vision", "blocks", "layers", "0", "attention", "query", "kernel")
    base, pair = paths(params)[path], [paths(adapters)[(*path, part)] for part in ("down", "up")]
    np.testing.assert_allclose(paths(merged)[path], base + 3.0 * pair[0] @ pair[1], atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, lora.unmerge(merged, replaced), params)
    untouched = set(paths(params)) - set(paths(replaced))
    assert all(paths(merged)[path] is paths(params)[path] for path in untouched)


def test_adapters_get_gradients_through_the_features(tiny, batch, adapters):
    functions, params = tiny

    @jax.jit
    def slope(adapters):
        return jax.grad(lambda a: jnp.sum(functions.image_features(lora.apply(params, a), batch[0]) ** 2))(adapters)

    gradient = slope(adapters)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["vision"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["text"]))


def test_what_does_not_fit_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"lora\.rank = 12.*1 to 11"):
        lora.add(tiny[1], 12, jax.random.key(0))
    with pytest.raises(ConfigError, match=r"lora\.pattern = 'nowhere'"):
        lora.add(tiny[1], 2, jax.random.key(0), pattern="nowhere")
