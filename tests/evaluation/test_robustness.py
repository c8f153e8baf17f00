"""Robust accuracy against a linear model, where the worst case is known in closed form; zero-shot by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import pgd
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.keys import example_keys, stream
from ranjax.evaluation import white_box as robustness
from ranjax.evaluation import zero_shot

PIXELS, EPSILON = 8, 0.03


def logits_fn(params, images):
    return images.reshape(images.shape[0], -1) @ params["head"] + params["bias"][None]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    images = (0.3 + 0.4 * rng.random((13, 2, 4, 1))).astype(np.float32)
    params = {"head": jnp.asarray(rng.normal(size=(PIXELS, 2)), jnp.float32), "bias": jnp.zeros(2)}
    flat = images.reshape(13, -1)
    gap = flat @ np.asarray(params["head"][:, 0] - params["head"][:, 1])
    params["bias"] = jnp.asarray([-np.median(gap), 0.0], jnp.float32)
    labels = (gap - np.median(gap) < 0).astype(np.int32)
    labels[0] = 1 - labels[0]
    keys = example_keys(stream(0, "test"), [f"id{i}" for i in range(13)])
    return params, images, labels, keys


@pytest.fixture(scope="module")
def attack():
    settings = pgd.PGD(epsilon=EPSILON, step_size=EPSILON / 4, steps=10, restarts=2)
    return robustness.WhiteBox(logits_fn, settings, batch_size=5)


def margins(params, images, labels):
    """By how much the label leads, and how much of that a Linf ball of radius 1 could take (no pixel near 0 or 1)."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    head, bias = np.asarray(params["head"], np.float64), np.asarray(params["bias"], np.float64)
    logits = rows @ head + bias[None]
    sign = 1 - 2 * labels
    return sign * (logits[:, 0] - logits[:, 1]), np.abs(head[:, 0] - head[:, 1]).sum()


def test_robust_accuracy_of_a_linear_model_is_its_closed_form(case, attack):
    params, images, labels, keys = case
    margin, reach = margins(params, images, labels)
    found = attack(params, images, labels, keys, keep_images=True)
    np.testing.assert_array_equal(found.clean_correct, margin > 0)
    np.testing.assert_array_equal(found.correct, margin > EPSILON * reach)
    assert 0 < found.correct.sum() < found.clean_correct.sum() < 13
    assert not found.correct[0]
    assert found.images.shape == images.shape
    assert np.abs(found.images - images).max() <= EPSILON + 1e-6
    np.testing.assert_allclose(found.logits, logits_fn(params, found.images), atol=1e-5)
    np.testing.assert_allclose(found.clean_logits, logits_fn(params, images), atol=1e-5)
    assert found.finite.all()
    by_epsilon = [(margin > e * reach).sum() for e in (0.01, 0.02, 0.03)]
    found = [attack(params, images, labels, keys, settings=attack.settings.with_epsilon(e)) for e in (0.01, 0.02, 0.03)]
    assert [f.correct.sum() for f in found] == by_epsilon
    assert found[0].images is None


def test_every_example_counts_once_and_batches_do_not_matter(case, attack):
    params, images, labels, keys = case
    whole = attack(params, images, labels, keys)
    assert whole.correct.shape == (13,)
    order = np.random.default_rng(1).permutation(13)
    shuffled = attack(params, images[order], labels[order], keys[order])
    np.testing.assert_array_equal(shuffled.correct, whole.correct[order])
    np.testing.assert_allclose(shuffled.logits, whole.logits[order], atol=1e-5)


def test_other_heads_and_radii_compile_nothing_anew(case, attack):
    params, images, labels, keys = case
    attack(params, images, labels, keys)
    compiled = attack._mapped._compiled._cache_size()
    other = jax.tree.map(lambda x: 2 * x, params)
    attack(other, images, labels, keys, settings=attack.settings.with_epsilon(0.05))
    attack(params, images[:3], labels[:3], keys[:3])
    assert attack._mapped._compiled._cache_size() == compiled == 1


def test_multi_label_needs_every_class_right(case):
    params, images, labels, keys = case
    hot = np.eye(2, dtype=np.float32)[labels]
    settings = pgd.PGD(epsilon=EPSILON, step_size=EPSILON / 4, steps=3)
    attack = robustness.WhiteBox(logits_fn, settings, loss="binary_cross_entropy", batch_size=5)
    found = attack(params, images, hot, keys)
    clean = ((np.asarray(logits_fn(params, images)) > 0) == (hot > 0.5)).all(1)
    np.testing.assert_array_equal(found.clean_correct, clean)
    assert (found.correct <= found.clean_correct).all()
    single = (np.asarray(found.logits) > 0) == (hot > 0.5)
    np.testing.assert_array_equal(found.correct, clean & single.all(1))


# what stands beside an image (a question about it) goes with its row through batches and radii, and is left as it is
def test_what_stands_beside_each_image_stays_with_it(case):
    params, images, labels, keys = case
    shift = np.linspace(-0.5, 0.5, 13, dtype=np.float32)[:, None] * np.array([1.0, -1.0], np.float32)

    def beside_fn(given, x):
        own, beside = given
        return logits_fn(own, x) + beside

    attack = robustness.WhiteBox(beside_fn, pgd.PGD(epsilon=EPSILON, step_size=EPSILON / 4, steps=3), batch_size=5)
    found = attack(params, images, labels, keys, side_inputs=shift, keep_images=True)
    np.testing.assert_allclose(found.clean_logits, logits_fn(params, images) + shift, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits_fn(params, jnp.asarray(found.images)) + shift, atol=1e-5)
    left = robustness.survivors([attack], params, images, labels, keys, [EPSILON], found.clean_correct, shift)
    np.testing.assert_array_equal(left[EPSILON], found.correct)
    with pytest.raises(DataError, match=r"\[3\] rows of side inputs for 13 images"):
        attack(params, images, labels, keys, side_inputs=shift[:3])


def test_bad_input_is_named(case, attack):
    params, images, labels, keys = case
    with pytest.raises(DataError, match="do not fit"):
        attack(params, images, labels[:4], keys)
    with pytest.raises(DataError, match="label -1"):
        attack(params, images, np.where(labels == 1, -1, 0), keys)
    with pytest.raises(ConfigError, match="batch_size"):
        robustness.WhiteBox(logits_fn, attack.settings, batch_size=0)


def test_zero_shot_by_hand():
    prompts = jnp.asarray([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0], [0.0, 0.0]])
    classes = zero_shot.class_embeddings(prompts[:3], jnp.asarray([0, 0, 1]), 2)
    half = 2**-0.5
    np.testing.assert_allclose(classes, [[half, half], [0, -1]], atol=1e-6)
    found = zero_shot.logits(jnp.asarray([[0.0, 9.0], [0.0, 0.0]]), classes, 10.0)
    np.testing.assert_allclose(found, [[10 * half, -10.0], [0.0, 0.0]], atol=1e-5)
    assert np.isfinite(jax.grad(lambda x: zero_shot.logits(x, classes, 10.0).sum())(jnp.zeros((1, 2)))).all()
    with pytest.raises(DataError, match=r"without: \[1\]"):
        zero_shot.class_embeddings(prompts[:2], jnp.asarray([0, 0]), 2)
    with pytest.raises(DataError, match="prompts"):
        zero_shot.class_embeddings(prompts, jnp.asarray([0]), 2)


def test_a_curve_and_its_survivors_are_the_closed_form_at_every_radius(case, attack):
    params, images, labels, keys = case
    margin, reach = margins(params, images, labels)
    radii = (0.01, 0.02, 0.03)
    for epsilon in radii:
        found = attack(params, images, labels, keys, settings=attack.settings.with_epsilon(epsilon))
        np.testing.assert_array_equal(found.correct, margin > epsilon * reach)
    left = robustness.survivors([attack], params, images, labels, keys, radii[::-1], margin > 0)
    assert list(left) == sorted(radii)
    for epsilon, alive in left.items():
        np.testing.assert_array_equal(alive, margin > epsilon * reach)
    none = robustness.survivors([attack], params, images, labels, keys, radii, np.zeros(13, bool))
    assert not any(alive.any() for alive in none.values())
    with pytest.raises(ConfigError, match="radii above 0"):
        robustness.survivors([attack], params, images, labels, keys, (0.0,), margin > 0)


def test_the_attack_on_a_random_model_goes_through_its_draws_and_a_fresh_one_judges(case):
    params, images, labels, keys = case

    def noisy(params, images, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        return logits_fn(params, images + 0.001 * noise)

    settings = pgd.PGD(epsilon=EPSILON, step_size=EPSILON / 4, steps=10)
    margin, reach = margins(params, images, labels)
    found = robustness.WhiteBox(noisy, settings, batch_size=13, draws=4)(params, images, labels, keys)
    sure = np.abs(margin - EPSILON * reach) > 0.05
    assert sure.sum() > 6
    np.testing.assert_array_equal(found.correct[sure], (margin > EPSILON * reach)[sure])
    with pytest.raises(ConfigError, match="draws"):
        robustness.WhiteBox(noisy, settings, draws=-1)
