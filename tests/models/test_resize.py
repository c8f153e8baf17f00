import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models.resize import resize_positions


def test_the_same_size_changes_nothing_and_says_nothing(tiny, caplog):
    functions, params = resize_positions(*tiny, image_size=16, max_length=8)
    assert functions == tiny[0]
    assert params["vision"]["positions"] is tiny[1]["vision"]["positions"]
    assert not caplog.records


def test_a_larger_image_gets_interpolated_positions_and_hears_of_it(tiny, caplog):
    functions, params = tiny
    ramp = jnp.broadcast_to(jnp.asarray([9.0, 0, 1, 0, 1], jnp.float32)[:, None], (5, 16))
    given = {**params, "vision": {**params["vision"], "positions": ramp}}
    larger, resized = resize_positions(functions, given, image_size=32)
    grid = np.asarray(resized["vision"]["positions"])[1:, 0].reshape(4, 4)
    assert resized["vision"]["positions"][0, 0] == 9
    np.testing.assert_allclose(grid, np.broadcast_to(grid[0], (4, 4)), atol=1e-6)
    assert (np.diff(grid[0]) > 0).all()
    assert "2 x 2 patches to 4 x 4" in caplog.text
    assert larger.image_features(resized, jnp.zeros((1, 32, 32, 1), jnp.float32)).shape == (1, 10)


def test_shorter_texts_keep_their_features_and_longer_ones_are_possible(tiny, batch, encode, caplog):
    images, tokens, mask = batch
    shorter = resize_positions(*tiny, max_length=5)
    short = encode(*shorter, images, tokens[:, :5], mask[:, :5])[1][:2]
    np.testing.assert_allclose(short, encode(*tiny, images, tokens, mask)[1][:2], atol=1e-6)
    _, longer = resize_positions(*tiny, max_length=11)
    assert longer["text"]["positions"].shape == (11, 12)
    assert "8 tokens to 5" in caplog.text
    assert "8 tokens to 11" in caplog.text


def test_an_image_that_does_not_divide_into_patches_is_refused(tiny):
    with pytest.raises(ConfigError, match="image_size = 20"):
        resize_positions(*tiny, image_size=20)
