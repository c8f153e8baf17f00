"""Defences at test time against their formulas written out in NumPy, and what an attacker's gradient passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import KeyedLoss, transforms
from ranjax.core.errors import ConfigError, DataError
from ranjax.methods.defences import DEFENCES, Defence, Undefended, defended, image_views
from ranjax.methods.defences.padding_tuning import cosine_behind_border
from ranjax.methods.method_settings import TTC

SIZE, BATCH, WIDTH, CLASSES = 8, 3, 5, 3
draw = np.random.default_rng(0)
WEIGHTS = (0.3 * draw.normal(size=(SIZE * SIZE, WIDTH))).astype(np.float32)
HEAD = draw.normal(size=(WIDTH, CLASSES)).astype(np.float32)
IMAGES = draw.uniform(size=(BATCH, SIZE, SIZE, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), BATCH)
PARAMS = (jnp.asarray(WEIGHTS), jnp.asarray(HEAD))


def features(params, images):
    return jnp.tanh((images.reshape(images.shape[0], -1) - 0.5) @ params[0])


def classify(params, z):
    return z @ params[1]


def features_np(images):
    return np.tanh((np.asarray(images).reshape(len(images), -1) - 0.5) @ WEIGHTS)


def softmax(x, axis):
    grown = np.exp(x - x.max(axis, keepdims=True))
    return grown / grown.sum(axis, keepdims=True)


def entropy(logits):
    chances = softmax(logits, -1)
    return -(chances * np.log(chances)).sum(-1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def with_settings(name, **values):
    return dataclasses.replace(DEFENCES[name].settings, **values)


def run(name, settings=None, **options):
    function = defended(DEFENCES[name], features, classify, settings, **options)
    return np.asarray(jax.jit(function)(PARAMS, jnp.asarray(IMAGES), KEYS))


def views_of(settings, count):
    return np.asarray(jax.jit(lambda: image_views.crops(jnp.asarray(IMAGES), KEYS, count, settings.smallest))())


def agreement(z, neighbours, temperature):
    """A weight a view, image by image: rows of z are views."""
    cosine = unit(z) @ unit(z).T
    np.fill_diagonal(cosine, -np.inf)
    return softmax(np.sort(cosine, axis=1)[:, ::-1][:, :neighbours].mean(1) / temperature, 0)


def test_the_counterattack_equals_a_loop_by_hand_on_a_bent_encoder():
    settings = TTC(epsilon="8/255", step="2/255", steps=3, threshold=1e9, beta=1.5)
    found = run("ttc", settings)
    radius, step = 8 / 255, 2 / 255
    delta = np.stack([np.asarray(jax.random.uniform(k, (SIZE, SIZE, 1), jnp.float32, -radius, radius)) for k in KEYS])
    delta = np.clip(IMAGES + delta, 0, 1) - IMAGES
    before, iterates = features_np(IMAGES), [delta]
    for _ in range(3):
        z = features_np(IMAGES + delta)
        slope = ((2 * (z - before) * (1 - z**2)) @ WEIGHTS.T).reshape(IMAGES.shape)
        delta = np.clip(IMAGES + np.clip(delta + step * np.sign(slope), -radius, radius), 0, 1) - IMAGES
        iterates.append(delta)
    weights = softmax(1.5 * np.arange(4.0), 0)
    moved = np.clip(IMAGES + np.tensordot(weights, np.stack(iterates), axes=1), 0, 1)
    np.testing.assert_allclose(found, features_np(moved) @ HEAD, atol=2e-4)


def test_both_gradients_of_the_counterattack_have_its_values_and_the_unrolled_one_sees_its_steps():
    ways = [defended(DEFENCES["ttc"], features, classify, gradient=way) for way in ("through", "identity")]

    @jax.jit
    def slopes(images):
        found = [jax.value_and_grad(lambda x, way=way: jnp.sum(way(PARAMS, x, KEYS)[:, 0]))(images) for way in ways]
        moved = jax.lax.stop_gradient(DEFENCES["ttc"].preprocess(model, images, KEYS, DEFENCES["ttc"].settings))
        return found, jax.grad(lambda x: jnp.sum(model.logits(x)[:, 0]))(moved)

    model = Undefended(lambda x: features(PARAMS, x), lambda z: classify(PARAMS, z))
    ((value, through), (same, identity)), plain = slopes(jnp.asarray(IMAGES))
    assert float(value) == float(same)
    np.testing.assert_allclose(identity, plain, atol=1e-6)
    assert np.abs(np.asarray(through) - np.asarray(identity)).max() > 1e-3


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_self_calibrated_consistency_follows_the_formula(weight):
    settings = with_settings("scc", epsilon="8/255", step="2/255", steps=2, views=3, weight=weight, temperature=0.4)
    radius, step = 8 / 255, 2 / 255
    found = run("scc", settings)
    push = TTC(epsilon="8/255", step="2/255", steps=2, threshold=1e9)
    model = Undefended(lambda x: features(PARAMS, x), lambda z: classify(PARAMS, z))
    pushed = jax.jit(lambda: DEFENCES["ttc"].preprocess(model, jnp.asarray(IMAGES), KEYS, push))()

    # A crop is linear in the image: its matrix is its answer to the unit images.
    def crop(x, key):
        return image_views.crops(x[None], key[None], 3, settings.smallest)[:, 0].reshape(3, -1)

    units = jnp.eye(SIZE * SIZE).reshape(-1, SIZE, SIZE, 1)
    matrices = np.asarray(jax.jit(jax.vmap(lambda key: jax.vmap(lambda x: crop(x, key))(units)))(KEYS), np.float64)
    for i in range(BATCH):
        views = np.moveaxis(matrices[i], 0, 2)  # [view, pixel, pixel]

        def at(x, views=views):
            z = np.tanh((views @ x - 0.5) @ WEIGHTS)
            return z, z @ HEAD

        z, logits = at(np.asarray(pushed[i], np.float64).ravel())
        soft = softmax(np.log(softmax(logits, -1).mean(0)) / 0.4, 0)
        others = np.arange(CLASSES) != logits[0].argmax()

        def consistency(x, at=at, soft=soft, others=others):
            z, logits = at(x)
            return soft @ logits[0] - logits[0][others].max() + weight * (unit(z[1:]) @ unit(z[0])).mean()

        image = np.asarray(IMAGES[i], np.float64).ravel()
        delta, ways = np.zeros_like(image), 1e-6 * np.eye(SIZE * SIZE)
        for _ in range(2):
            moved = image + delta
            slope = np.array([consistency(moved + way) - consistency(moved - way) for way in ways])
            delta = np.clip(image + np.clip(delta + step * np.sign(slope), -radius, radius), 0, 1) - image
        np.testing.assert_allclose(found[i], at(image + delta)[1][0], atol=2e-4)


def test_tuning_by_entropy_follows_the_formula():
    settings = with_settings("r_tpt", views=6, confident=0.5, neighbours=2, rate=0.2, temperature=0.05)
    found = run("r_tpt", settings)
    views = views_of(settings, 6)
    np.testing.assert_array_equal(views[0], IMAGES)
    for i in range(BATCH):
        z = features_np(views[:, i])
        chosen = np.argsort(entropy(z @ HEAD), kind="stable")[:3]
        chances = softmax(z[chosen] @ HEAD, -1)
        uneven = entropy(z[chosen] @ HEAD)[:, None]
        # d entropy / d logits = -p (log p + entropy)
        slope = ((-chances * (np.log(chances) + uneven)) @ HEAD.T).mean(0)
        shift = -0.2 * np.linalg.norm(z[0]) * slope / np.linalg.norm(slope)
        wanted = agreement(z, 2, 0.05) @ ((z + shift) @ HEAD)
        np.testing.assert_allclose(found[i], wanted, atol=1e-4)


def test_directional_bias_follows_the_formula():
    settings = with_settings("dbd", views=6, kept=0.5, noise=0.0, threshold=0.3)
    found = run("dbd", settings)
    views = views_of(settings, 7)
    for i in range(BATCH):
        raw = features_np(views[:, i])
        z, kept = unit(raw), np.argsort(entropy(raw[1:] @ HEAD), kind="stable")[:3]
        shifts = z[1:][kept] - z[0]
        direction = shifts.mean(0)
        factor = 2.5 if (unit(shifts) @ unit(direction)).mean() > 0.3 else 1.0
        wanted = unit(z[0] + factor * direction) * np.linalg.norm(raw[0]) @ HEAD
        np.testing.assert_allclose(found[i], wanted, atol=1e-4)


@pytest.mark.slow
def test_padding_keeps_the_inside_and_leaves_alone_what_it_takes_as_clean():
    x = jnp.asarray(IMAGES)
    framed = np.asarray(image_views.padded_within(x, 2))
    border = np.asarray(image_views.border_of(x, 2))
    assert framed.shape == IMAGES.shape
    assert (framed * border == 0).all()
    assert border.sum() == SIZE**2 - (SIZE - 4) ** 2
    flat = np.asarray(image_views.padded_within(jnp.full_like(x, 0.5), 2))
    np.testing.assert_allclose(flat, 0.5 * (1 - border) * np.ones_like(flat), atol=1e-6)
    # All are clean by a cosine of -1, and none by 1; without steps the border stays black.
    settings = with_settings("ttp", border=2, threshold=-1.0, steps=0)
    plain = features_np(IMAGES) @ HEAD
    np.testing.assert_allclose(run("ttp", settings), plain, atol=1e-5)
    found = run("ttp", dataclasses.replace(settings, threshold=1.0))
    views = views_of(settings, settings.views)
    for i in range(BATCH):
        z = features_np(np.asarray(image_views.padded_within(jnp.asarray(views[:, i]), 2)))
        wanted = agreement(z, settings.views - 1, settings.temperature) @ (z @ HEAD)
        np.testing.assert_allclose(found[i], wanted, atol=1e-3)
    # A cosine between the images' own splits them.
    model = Undefended(lambda y: features(PARAMS, y), lambda z: classify(PARAMS, z))
    cosine = np.sort(np.asarray(cosine_behind_border(model, x, 2)))
    split = run("ttp", dataclasses.replace(settings, threshold=float(cosine[:2].mean())))
    assert (np.abs(split - plain).max(1) > 1e-4).sum() == 1
    with pytest.raises(ConfigError, match=r"ttp.border = 4: expected less than half"):
        run("ttp", with_settings("ttp", border=4))


@pytest.mark.slow
def test_a_step_of_the_border_lowers_the_entropy_that_it_descends():
    def uncertainty(steps):
        settings = with_settings("ttp", border=2, threshold=1.0, steps=steps, confident=1.0, temperature=1e6, rate=0.3)
        return entropy(run("ttp", settings)).mean()

    assert uncertainty(2) < uncertainty(0)


@pytest.mark.slow
def test_the_mean_over_draws_has_the_mean_of_their_gradients():
    function = defended(DEFENCES["random_resize"], features, classify)

    def loss(images, keys):
        return function(PARAMS, images, keys)[:, 0]

    @jax.jit
    def both(images):
        mean = transforms.expectation(KeyedLoss(loss), 3)
        found = jax.grad(lambda x: jnp.sum(mean.function(x, KEYS)))(images)
        parts = [mean.part(images, KEYS, jnp.uint32(i))[0] for i in range(3)]
        own = [jax.grad(lambda x, i=i: jnp.sum(mean.part(x, KEYS, jnp.uint32(i))[0]))(images) for i in range(3)]
        return mean.function(images, KEYS), sum(parts), found, sum(own), own[0] - own[1]

    value, wanted, slope, mean_slope, differ = both(jnp.asarray(IMAGES))
    value = value[0] if isinstance(value, tuple) else value
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, mean_slope, atol=1e-6)
    assert np.abs(np.asarray(differ)).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DEFENCES])
def test_an_image_is_answered_alike_alone_and_among_others_and_the_gradient_follows_the_answer(name):
    entry = DEFENCES[name]
    # The default border is wider than images of 8 pixels allow.
    settings = with_settings(name, border=2) if name == "ttp" else None
    function = jax.jit(defended(entry, features, classify, settings))
    whole = np.asarray(function(PARAMS, jnp.asarray(IMAGES), KEYS))
    assert whole.shape == (BATCH, CLASSES)
    assert np.isfinite(whole).all()
    alone = np.concatenate([function(PARAMS, jnp.asarray(IMAGES[i : i + 1]), KEYS[i : i + 1]) for i in range(BATCH)])
    np.testing.assert_allclose(alone, whole, atol=1e-4)
    other = np.asarray(function(PARAMS, jnp.asarray(IMAGES), jax.random.split(jax.random.key(2), BATCH)))
    assert (np.abs(other - whole).max() > 1e-6) == entry.random
    if "identity" not in entry.gradients:  # a sign has a stand-in slope
        step = 1e-3 * np.sign(np.random.default_rng(3).normal(size=IMAGES.shape)).astype(np.float32)
        slope = jax.jit(jax.grad(lambda x: jnp.sum(function(PARAMS, x, KEYS)[:, 0])))(jnp.asarray(IMAGES))
        rise = [function(PARAMS, jnp.asarray(IMAGES + sign * step), KEYS)[:, 0].sum() for sign in (1, -1)]
        np.testing.assert_allclose(np.sum(slope * step), (rise[0] - rise[1]) / 2, rtol=0.08, atol=2e-4)


def test_entries_and_calls_that_break_the_contract_are_refused_in_one_line(unchecked):
    with pytest.raises(ConfigError, match=r"Defence.preprocess = None: expected a function"):
        Defence(name="nothing", label="Nothing")
    with pytest.raises(ConfigError, match=r"Defence.gradients"):
        Defence(name="own", label="Own", answer=len, gradients=("identity",))
    with pytest.raises(ConfigError, match=r"gradient = 'identity': expected one of through"):
        defended(DEFENCES["dbd"], features, classify, gradient="identity")
    with pytest.raises(ConfigError, match=r"did you mean 'r_tpt'"):
        DEFENCES.resolve("rtpt")
    with pytest.raises(ConfigError, match=r"expected a DirectionSettings"):
        defended(DEFENCES["dbd"], features, classify, TTC())
    with pytest.raises(DataError, match="one per image"):
        defended(DEFENCES["low_pass"], features, classify)(PARAMS, jnp.asarray(IMAGES), KEYS[:2])
