"""The attack towards a target image, against a NumPy reference with the gradient by hand, and its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import apgd, pairs, pgd
from ranjax.core.errors import ConfigError

import test_joint as joint  # isort: skip
import test_text_rewrites as rewrites  # isort: skip

BATCH, SIDE, DIM = 5, 6, 7
RNG = np.random.default_rng(4)
WEIGHTS = RNG.normal(size=(SIDE * SIDE, DIM))
IMAGES = RNG.uniform(0.05, 0.95, (BATCH, SIDE, SIDE, 1))
GOALS = RNG.uniform(size=(BATCH, SIDE * SIDE)) @ WEIGHTS


def cosine(image, goal):
    feature = image.reshape(-1) @ WEIGHTS
    return feature @ goal / np.linalg.norm(feature) / np.linalg.norm(goal)


def gradient(image, goal):
    """Of the cosine: (g - cos f) W^T / |f| with unit vectors f of the image's feature and g of the goal."""
    feature = image.reshape(-1) @ WEIGHTS
    length = np.linalg.norm(feature)
    f, g = feature / length, goal / np.linalg.norm(goal)
    return (WEIGHTS @ (g - (f @ g) * f) / length).reshape(image.shape)


def project(image, clean, epsilon, norm):
    delta = image - clean
    if norm == "linf":
        return np.clip(clean + np.clip(delta, -epsilon, epsilon), 0, 1)
    return np.clip(clean + delta * min(1, epsilon / np.linalg.norm(delta)), 0, 1)


def reference(clean, goal, epsilon, size, steps, norm):
    """Projected gradient ascent from the clean image; the best iterate is kept."""
    image = best = clean
    for _ in range(steps):
        slope = gradient(image, goal)
        step = np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)
        image = project(image + size * step, clean, epsilon, norm)
        best = max(best, image, key=lambda x: cosine(x, goal))
    return best


def attack(settings, image_attack=pgd.pgd):
    target = pairs.Target(jnp.asarray(GOALS, jnp.float32), jnp.zeros((BATCH, DIM)))
    rows = [jnp.repeat(x[:1], BATCH, axis=0) for x in joint.inputs()[1]]
    text = jnp.asarray(RNG.normal(size=DIM), jnp.float32)
    encoders = (
        lambda x: x.reshape(len(x), -1) @ jnp.asarray(WEIGHTS, jnp.float32),
        lambda embeddings, tokens, mask: jnp.broadcast_to(text, (len(tokens), DIM)),
    )
    inputs = (
        joint.params()["table"],
        jnp.asarray(IMAGES, jnp.float32),
        *rows,
        jax.random.split(jax.random.key(0), BATCH),
    )
    how = {"recipe": "targeted", "target": target, "image_attack": image_attack}
    return jax.jit(lambda: pairs.craft(*encoders, *inputs, settings, joint.TEXT, joint.TABLE, **how))()


BALLS = [("linf", 0.03, 0.01), ("l2", 0.4, 0.1)]


@pytest.mark.parametrize(("norm", "epsilon", "size"), BALLS)
def test_pgd_follows_the_cosine_to_the_target_as_the_reference_does(norm, epsilon, size):
    found = attack(pgd.PGD(epsilon, size, 6, norm=norm, start="none"))
    expected = np.stack([reference(x, g, epsilon, size, 6, norm) for x, g in zip(IMAGES, GOALS)])
    np.testing.assert_allclose(found.image.images, expected, atol=2e-5)
    np.testing.assert_allclose(found.image.loss, list(map(cosine, expected, GOALS)), atol=1e-5)
    np.testing.assert_allclose(found.image.clean_loss, list(map(cosine, IMAGES, GOALS)), atol=1e-5)
    unit = expected.reshape(BATCH, -1) @ WEIGHTS
    np.testing.assert_allclose(found.features, unit / np.linalg.norm(unit, axis=1, keepdims=True), atol=2e-5)


@pytest.mark.parametrize(("norm", "epsilon", "size"), BALLS)
def test_apgd_stays_in_the_ball_and_comes_at_least_as_near(norm, epsilon, size):
    found = attack(apgd.APGD(epsilon, 30, norm=norm), apgd.apgd)
    delta = np.asarray(found.image.images, np.float64) - IMAGES
    length = np.abs(delta).max((1, 2, 3)) if norm == "linf" else np.linalg.norm(delta.reshape(BATCH, -1), axis=1)
    assert length.max() <= epsilon + 1e-6
    few = [cosine(reference(x, g, epsilon, size, 6, norm), g) for x, g in zip(IMAGES, GOALS)]
    assert (np.asarray(found.image.loss) >= np.array(few) - 1e-3).all()


def test_the_text_stays_and_a_target_is_needed():
    images, (tokens, mask, words), keys = joint.inputs()
    craft = functools.partial(joint.craft, joint.params(), images, (tokens, mask, words), keys, joint.PGD, joint.TABLE)
    with pytest.raises(ConfigError, match="target = None: expected features of the target pairs"):
        craft("targeted")
    found = craft("targeted", target=joint.target())
    np.testing.assert_array_equal(found.text.tokens, tokens)
    assert not found.text.edits.any()


@functools.partial(joint.toy.quick_jit, static_argnames=("recipe", "order"))
def towards(p, images, rows, keys, forms, target, recipe="targeted_keywords", **options):
    image_fn = lambda x: jnp.tanh(x.reshape(len(x), -1)[:, : joint.toy.WIDTH] - 0.5)  # noqa: E731
    text_fn = functools.partial(joint.toy.features, p)
    settings = pgd.PGD("8/255", "2/255", 4)
    inputs = (p["table"], images, *rows, keys, settings, joint.TEXT, forms)
    return pairs.craft(image_fn, text_fn, *inputs, recipe=recipe, target=target, **options)


def unit(vectors):
    return np.asarray(vectors) / np.linalg.norm(vectors, axis=-1, keepdims=True)


def text_units(p, texts):
    """Unit features of rows of words, in plain NumPy."""
    found = []
    for tokens, mask, _ in (map(np.squeeze, joint.toy.encode([row])) for row in texts):
        hidden = np.tanh(p["table"][tokens] + p["position"][: len(tokens)])
        found.append(np.tanh(hidden[mask].sum(0) / mask.sum() @ p["mix"]))
    return unit(np.stack(found))


@pytest.mark.parametrize("order", pairs.ORDERS)
def test_both_sides_move_towards_the_target_pair_and_the_second_follows_the_first(order):
    p, images, rows, keys, forms = rewrites.inputs()
    goal = pairs.Target(*(RNG.normal(size=(3, joint.toy.WIDTH)).astype(np.float32) for _ in range(2)))
    found = towards(p, images, rows, keys, forms, goal, order=order)
    image, text = map(unit, goal)
    attacked = unit(np.tanh(np.asarray(found.image.images).reshape(3, -1)[:, : joint.toy.WIDTH] - 0.5))
    np.testing.assert_allclose(found.features, attacked, atol=1e-5)
    for i, listed in enumerate(rewrites.OTHERS):
        options = text_units(p, listed or [rewrites.TEXTS[i]])
        near = options @ (text[i] + attacked[i] if order == "image_first" else text[i])
        best = int(np.argmax(near))
        assert int(found.text.choices[i, 0]) == (best if listed else -1)
        follows = 0 if order == "image_first" else attacked[i] @ options[best]
        assert float(found.image.loss[i]) == pytest.approx(attacked[i] @ image[i] + follows, abs=1e-5)
        assert float(found.loss[i]) == pytest.approx(-attacked[i] @ options[best], abs=1e-5)
    if order == "image_first":
        alone = towards(p, images, rows, keys, forms, goal, recipe="targeted")
        np.testing.assert_array_equal(found.image.images, alone.image.images)
        np.testing.assert_array_equal(alone.text.tokens, rows[0])


def test_an_unknown_order_is_refused():
    p, images, rows, keys, forms = rewrites.inputs()
    goal = pairs.Target(*(np.ones((3, joint.toy.WIDTH), np.float32) for _ in range(2)))
    with pytest.raises(ConfigError, match="order = 'both': expected one of image_first, text_first"):
        towards(p, images, rows, keys, forms, goal, order="both")
