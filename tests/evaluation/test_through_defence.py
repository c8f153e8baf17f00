"""Attacks through a defence on models whose answer is known by hand, and the verdict on one that hides its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation.through_defence import published_images, through_defence

SIZE, COUNT = 6, 24
draw = np.random.default_rng(0)
WEIGHTS = draw.normal(size=(SIZE * SIZE, 2)).astype(np.float32)
IMAGES = (0.5 + 0.02 * draw.normal(size=(COUNT, SIZE, SIZE, 1))).astype(np.float32)
LABELS = ((IMAGES - 0.5).reshape(COUNT, -1) @ WEIGHTS).argmax(1)
RADII = ("0.5/255", "2/255")
BUDGET = {"epsilons": RADII, "steps": 6, "attacks": ("apgd_ce",), "queries": 60, "draws": 0, "batch_size": COUNT}


def plain(params, images):
    return 20 * ((images - 0.5).reshape(images.shape[0], -1) @ params)


def survivors_by_hand(radius):
    margin = (IMAGES - 0.5).reshape(COUNT, -1) @ WEIGHTS
    gap = margin[np.arange(COUNT), LABELS] - margin[np.arange(COUNT), 1 - LABELS]
    return gap > radius * np.abs(WEIGHTS[:, 0] - WEIGHTS[:, 1]).sum()


def attacked(function, **options):
    return through_defence(function, plain, jnp.asarray(WEIGHTS), IMAGES, LABELS, **{**BUDGET, **options})


def test_a_defence_that_does_nothing_withstands_what_the_margin_allows_and_is_not_masked():
    found = attacked(lambda params, images, keys: plain(params, images), name="nothing")
    wanted = np.stack([survivors_by_hand(0.5 / 255), survivors_by_hand(2 / 255)])
    np.testing.assert_array_equal(found.worst, wanted)
    np.testing.assert_array_equal(found.published, wanted)
    assert found.verdict == "not masked"
    assert found.headline == tuple(wanted.mean(1).tolist())
    assert "as published" in str(found)


@pytest.mark.slow
def test_a_defence_that_hides_its_gradient_is_masked_and_its_figure_withheld_until_it_is_seen_through():
    def rounded(params, images, keys):
        return plain(params, jnp.round(images * 255) / 255)

    def seen(params, images, keys):
        return plain(params, images + jax.lax.stop_gradient(jnp.round(images * 255) / 255 - images))

    hidden = attacked(rounded)
    assert hidden.masked
    assert hidden.headline is None
    assert "gradient of exactly 0" in hidden.verdict
    assert "transferred images break" in hidden.verdict
    assert "withheld" in str(hidden)
    # The same model, its rounding taken as the identity in the backward pass, and both together.
    shown = attacked({"through": rounded, "identity": seen})
    assert not shown.masked
    assert shown.worst[-1].sum() <= hidden.worst[-1].sum()
    assert set(shown.survived) == {"apgd_ce through", "apgd_ce identity", "transfer", "square"}


@pytest.mark.slow
def test_a_random_defence_is_judged_by_one_draw_that_stays_and_larger_radii_leave_fewer():
    def noisy(params, images, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        return plain(params, images + 0.002 * noise)

    found, again = (attacked(noisy, draws=2, queries=0) for _ in range(2))
    np.testing.assert_array_equal(found.worst, again.worst)
    assert (found.worst[1] <= found.worst[0]).all()
    assert (found.worst[0] <= found.clean).all()
    assert "square" not in found.survived
    other = attacked(noisy, draws=2, queries=0, seed=1)
    assert (other.clean != found.clean).any() or (other.worst != found.worst).any()


def test_published_images_serve_every_defence_and_stay_in_their_ball():
    options = {name: BUDGET[name] for name in ("epsilons", "steps", "attacks", "batch_size")}
    moved = published_images(plain, jnp.asarray(WEIGHTS), IMAGES, LABELS, **options)
    assert np.abs(moved["0.5/255"] - IMAGES).max() <= 0.5 / 255 + 1e-6
    found = attacked(lambda params, images, keys: plain(params, images), transferred=moved, queries=0)
    np.testing.assert_array_equal(found.undefended_attacked[1], survivors_by_hand(2 / 255))


def test_bad_input_is_refused():
    def same(params, images, keys):
        return plain(params, images)

    with pytest.raises(ConfigError, match="attacks"):
        attacked(same, attacks=("square",))
    with pytest.raises(ConfigError, match="draws = -1"):
        attacked(same, draws=-1)
    with pytest.raises(ConfigError, match="functions = 0"):
        attacked({})
    with pytest.raises(DataError, match="different ids"):
        attacked(same, ids=["a"] * COUNT)
