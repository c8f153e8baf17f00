"""Square: its schedule and bumps against loops, its moves inside ball and box, and a linear model it must break."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import losses, projections, square
from ranjax.attacks.square import Square
from ranjax.core.errors import ConfigError, DataError

EPSILON = {"linf": 0.1, "l2": 0.6, "l1": 2.0}


def share_by_the_paper(query, share, queries=None):
    """The schedule of the paper's Section 4.1 for 10,000 queries, written out: halved after each of these queries."""
    number = query if queries is None else int(query / queries * 10000)
    for halvings, last in enumerate((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)):
        if number <= last:
            return share / 2**halvings
    return share / 512


@pytest.mark.parametrize("rescale", [False, True])
def test_the_share_of_the_square_falls_as_the_paper_has_it(rescale):
    settings = Square("8/255", 5000, rescale=rescale)
    expected = [share_by_the_paper(i, 0.8, 5000 if rescale else None) for i in range(5000)]
    np.testing.assert_array_equal(square.shares(settings), expected)
    sides = square.sides(settings, 32, 32)
    assert sides[0] == round((0.8 * 32 * 32) ** 0.5)
    assert sides[-1] == max(round((expected[-1] * 32 * 32) ** 0.5), 1)
    odd = square.sides(Square(1.0, 5000, norm="l2", rescale=rescale), 32, 32)
    assert odd.min() == 3
    assert (odd % 2 == 1).all()


def bump_by_loops(side, power):
    """Appendix B: nested rectangles about the centre, the k-th of which adds 1 / k**power."""

    def rectangles(height, width):
        out = np.zeros((height, width))
        top, left = height // 2, width // 2
        for k in range(max(height // 2 + 1, width // 2 + 1)):
            out[max(top, 0) : min(top + 2 * k + 1, height), max(0, left) : min(left + 2 * k + 1, width)] += (
                1 / (k + 1) ** power
            )
            top, left = top - 1, left - 1
        return out / (np.sqrt((out**2).sum()) if power == 2 else np.abs(out).sum())

    out = np.zeros((side, side))
    if side // 2:
        out[: side // 2] = rectangles(side // 2, side)
    out[side // 2 :] = -rectangles(side - side // 2, side)
    return out / (np.sqrt((out**2).sum()) if power == 2 else np.abs(out).sum())


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 13])
def test_the_bump_is_that_of_the_paper(side, power):
    np.testing.assert_allclose(square.bump(side, power), bump_by_loops(side, power), atol=1e-12)


def margin(params, labels):
    return losses.of_classifier(lambda x: toy.logits(params, x), labels, "margin")


@pytest.fixture(scope="module")
def attacked():
    params, images, keys = toy.make_params(), jnp.asarray(toy.make_images()), toy.make_keys()
    labels = toy.labels_of(params, images)

    @jax.jit
    def run(params, images, keys, labels, settings):
        return square.square(margin(params, labels), images, keys, settings)

    found = {
        norm: run(params, images, keys, labels, Square(epsilon, 60, norm, rescale=True))
        for norm, epsilon in EPSILON.items()
    }
    part = run(params, images[:5], keys[:5], labels[:5], Square(EPSILON["linf"], 60, rescale=True))
    return params, images, labels, found, part


@pytest.mark.parametrize("norm", EPSILON)
def test_the_result_lies_in_ball_and_box_and_its_loss_is_that_of_its_images(attacked, norm):
    params, images, labels, found, _ = attacked
    result = found[norm]
    assert float(result.norm.max()) <= EPSILON[norm] + 1e-5
    np.testing.assert_allclose(result.norm, projections.norm_of(norm)(result.images - images), rtol=1e-6)
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    loss, wrong = margin(params, labels)(result.images)
    np.testing.assert_allclose(result.loss, loss, atol=1e-5)
    np.testing.assert_array_equal(result.success, wrong)
    assert (np.diff(np.asarray(result.trace), axis=0) >= -1e-6).all()  # the best so far never falls
    assert int(result.success.sum()) > 0
    assert not bool(result.clean_success.any())


def test_a_result_depends_on_its_example_alone(attacked):
    *_, found, part = attacked
    for name in ("images", "loss", "success"):
        np.testing.assert_array_equal(getattr(part, name), getattr(found["linf"], name)[:5])


def test_an_example_that_is_broken_stays_as_it_is():
    """A model that any stripe breaks on some images: these keep their first iterate, the others go on."""
    images = jnp.full((4, 6, 6, 1), 0.5)
    easy = jnp.asarray([True, False, True, False])

    def loss(x):
        rise = jnp.mean(x - 0.5, axis=(1, 2, 3))
        return rise, easy

    keys, settings = toy.make_keys(4), Square(0.1, 30, rescale=True)
    first = square.begin(loss, images, keys, settings)
    best, trace = jax.jit(lambda: square.query(loss, images, keys, settings, first, 0, 30))()
    np.testing.assert_array_equal(best.images[::2], first.images[::2])
    assert (np.asarray(best.raised)[1::2] > np.asarray(first.raised)[1::2]).all()
    assert trace.shape == (30, 4)


def test_it_finds_the_corner_of_a_linear_model():
    """On <w, x>, with one sign a patch of w, the worst corner of the ball is eps * sum |w| away: Square comes near.

    No square touches the last row and column, so w has nothing there.
    """
    rng = np.random.default_rng(0)
    patches = np.kron(rng.choice([-1.0, 1.0], (4, 4)), np.ones((2, 2)))
    patches[-1], patches[:, -1] = 0, 0
    w = jnp.asarray(patches[..., None], jnp.float32)
    images, keys = jnp.full((3, 8, 8, 1), 0.5), toy.make_keys(3)
    result = jax.jit(
        lambda w: square.square(lambda x: jnp.sum(w[None] * (x - 0.5), axis=(1, 2, 3)), images, keys, Square(0.1, 1500))
    )(w)
    assert (np.asarray(result.loss) > 0.9 * 0.1 * float(jnp.abs(w).sum())).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="norm = 'l3'"):
        Square(0.1, norm="l3")
    with pytest.raises(ConfigError, match="queries = 0"):
        Square(0.1, 0)
    with pytest.raises(ConfigError, match="share"):
        Square(0.1, share=1.5)
    with pytest.raises(DataError, match="4 axes"):
        square.square(lambda x: x.sum(1), jnp.zeros((2, 3)), toy.make_keys(2), Square(0.1))
