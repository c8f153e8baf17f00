"""APGD against a plain numpy form of the published algorithm, and the targeted loss over several classes."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import ImageAttack, apgd, jitted, losses, presets

PARAMS, IMAGES, KEYS = toy.make_params(), toy.make_images(), toy.make_keys()
LABELS = toy.labels_of(PARAMS, IMAGES)
WAVES = np.random.default_rng(11).normal(size=(16, 9))


def value_by_hand(x, waves):
    return np.sin(x.reshape(-1) @ waves).sum()


def gradient_by_hand(x, waves):
    return (waves @ np.cos(x.reshape(-1) @ waves)).reshape(x.shape)


def rugged(images, waves):
    """A loss of many tops, so that steps are halved."""
    return jnp.sum(jnp.sin(images.reshape(images.shape[0], -1) @ jnp.asarray(waves)), axis=-1)


def checkpoints(steps):
    """p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), in steps, exactly."""
    last, p, found = Fraction(0), Fraction(22, 100), []
    while p < 1:
        found.append(-(-p * steps // 1))
        last, p = p, p + max(p - last - Fraction(3, 100), Fraction(6, 100))
    return [int(w) for w in found]


def apgd_by_hand(x, epsilon, steps, norm, waves):
    """One image, from itself; returns the best image, the trace and how often the step was halved."""

    def project(z):
        d = z - x
        if norm == "linf":
            return np.clip(x + np.clip(d, -epsilon, epsilon), 0, 1)
        length = np.sqrt((d * d).sum())
        return np.clip(x + d * min(1.0, epsilon / max(length, 1e-300)), 0, 1)

    def direction(g):
        return np.sign(g) if norm == "linf" else g / np.sqrt((g * g).sum())

    where, eta, rho, alpha = checkpoints(steps), 2 * epsilon, 0.75, 0.75
    path, f = [x], [value_by_hand(x, waves)]
    top, f_top, g = x, f[0], gradient_by_hand(x, waves)
    f_top_before, halved_before, begin, halvings = f[0], True, 0, 0
    now, before = x, x
    for k in range(steps):
        z = project(now + eta * direction(g))
        a = alpha if k else 1.0
        now, before = project(now + a * (z - now) + (1 - a) * (now - before)), now
        path.append(now)
        f.append(value_by_hand(now, waves))
        g = gradient_by_hand(now, waves)
        if f[-1] > f_top:
            top, f_top = now, f[-1]
        if k + 1 in where:
            rises = sum(f[i + 1] > f[i] for i in range(begin, k + 1))
            stalled = rises <= rho * (k + 1 - begin)
            stuck = not halved_before and f_top_before >= f_top
            halved_before, f_top_before, begin = stalled or stuck, f_top, k + 1
            if halved_before:
                eta, now, g, halvings = eta / 2, top, gradient_by_hand(top, waves), halvings + 1
    return top, np.array(f), halvings


# agreement with the algorithm: checkpoints, both conditions, momentum, the best kept
@pytest.mark.parametrize(("norm", "epsilon", "pitch"), [("linf", 0.2, 6.0), ("l2", 0.8, 1.2)])
def test_agrees_with_a_plain_form(norm, epsilon, pitch, float64):
    waves = WAVES * pitch  # gentler where steps follow the gradient itself: rounding would be blown up
    images = toy.make_images(8, dtype=np.float64)
    settings = apgd.APGD(epsilon, 100, norm=norm, start="none")
    result = jax.jit(lambda x, k: apgd.apgd(lambda a: rugged(a, waves), x, k, settings))(images, toy.make_keys(8))
    halvings = []
    for row in range(8):
        top, trace, count = apgd_by_hand(images[row], epsilon, 100, norm, waves)
        np.testing.assert_allclose(result.trace[:, row], trace, rtol=0, atol=1e-8)
        np.testing.assert_allclose(result.images[row], top, rtol=0, atol=1e-9)
        halvings.append(count)
    np.testing.assert_array_equal(result.loss, result.trace.max(0))
    assert 1 < np.mean(halvings) < 8  # the conditions are neither always nor never met


def test_checkpoints_of_a_hundred_steps():
    check, since = apgd.schedule(100)
    assert np.flatnonzero(check).tolist() == checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert since[check].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
    assert [apgd.schedule(n)[0].sum() for n in (0, 1, 2)] == [0, 0, 1]


# ball and box under both norms, the best of the trace, targeted by negation, masks, identity at epsilon 0
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_invariants(norm):
    run = jitted(toy.loss, apgd.APGD(0.1, 12, norm=norm), attack=apgd.apgd)
    mask = np.random.default_rng(3).random(toy.SHAPE) < 0.7
    for epsilon in (0.0, 8 / 255, 1.0):
        settings = apgd.APGD(epsilon, 12, norm=norm)
        result = run(PARAMS, IMAGES, KEYS, LABELS, settings=settings, mask=mask)
        delta = np.asarray(result.images) - IMAGES
        length = np.abs(delta).max((1, 2, 3)) if norm == "linf" else np.sqrt(np.square(delta).sum((1, 2, 3)))
        assert length.max() <= epsilon + 1e-6
        assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
        assert np.array_equal(result.images[:, ~mask], IMAGES[:, ~mask])
        if epsilon == 0:
            assert np.array_equal(result.images, IMAGES)
    assert float(result.loss.mean()) > float(result.clean_loss.mean())


def test_targeted_lowers_the_loss():
    target = (LABELS + 1) % toy.CLASSES
    settings = apgd.APGD(0.1, 8, start="none", targeted=True)
    result = jax.jit(lambda x, k: apgd.apgd(lambda a: toy.loss(PARAMS, a, target)[0], x, k, settings))(IMAGES, KEYS)
    assert np.all(result.loss < result.clean_loss)
    np.testing.assert_array_equal(result.loss, result.trace.min(0))


# towards each wrong class, on top of cross-entropy: what is called a success is one, and the ball holds
def test_the_ensemble():
    settings = apgd.APGD(0.03, 10, start="none")

    @jax.jit
    def attack(params, images, labels, keys):
        return presets.autoattack_lite(lambda x: toy.logits(params, x), images, labels, keys, settings)

    result = attack(PARAMS, IMAGES, LABELS, KEYS)
    assert 0 < int(result.success.sum()) < toy.BATCH
    np.testing.assert_array_equal(result.success, losses.is_wrong(toy.logits(PARAMS, result.images), LABELS))
    assert float(result.norm.max()) <= 0.03 + 1e-6
    assert not np.any(result.clean_success)


# the worst of several attacks: success first, then loss, per image
def test_worst_of():
    images = jnp.arange(6, dtype=jnp.float32).reshape(3, 2, 1)
    loss = jnp.asarray([[1.0, 5.0], [3.0, 2.0], [2.0, 4.0]])
    success = jnp.asarray([[False, False], [False, True], [False, True]])
    stacked = ImageAttack(
        images, loss, loss, loss[:, None], loss, loss[:, None], jnp.ones((3, 2), bool), success, success
    )
    worst = apgd.worst_case(stacked)
    np.testing.assert_array_equal(worst.loss, [3, 4])
    np.testing.assert_array_equal(worst.images[:, 0], [2, 5])
    np.testing.assert_array_equal(worst.trace, [[3, 4]])


def test_refuses_what_has_no_targets():
    two = lambda x: toy.logits(PARAMS, x)[:, :2]  # noqa: E731
    with pytest.raises(ValueError, match="at least 4 classes"):
        apgd.apgd_targeted(two, IMAGES, LABELS, KEYS, apgd.APGD(0.1, 2))
    with pytest.raises(ValueError, match="targeted DLR loss is raised"):
        apgd.apgd_targeted(two, IMAGES, LABELS, KEYS, apgd.APGD(0.1, 2, targeted=True))
    settings = apgd.APGD(0.1, 2, start="none")  # two classes: the margin stands in
    shapes = jax.eval_shape(lambda x, k: presets.autoattack_lite(two, x, LABELS % 2, k, settings), IMAGES, KEYS)
    assert shapes.success.shape == (toy.BATCH,)
