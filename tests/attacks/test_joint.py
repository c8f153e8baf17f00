"""Joint attacks on a toy dual encoder: limits, constraints, several captions, and success by both definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import pairs, pgd, success, text
from ranjax.core.errors import ConfigError
from ranjax.core.math import unit

import toy_text as toy  # isort: skip

BATCH, SIDE = 4, 4
TEXT = text.Substitution(max_words=2, top_k=6)
PGD = pgd.PGD(0.05, 0.02, 4)
OFF = pgd.PGD(0.0, 0.02, 4)
CAPTIONS = [["clear", "lungs"], ["no", "rib", "heart"], ["large", "effusion"], ["heart", "clear", "opacity"]]
MORE = [["rib", "clear"], [], ["left", "heart"], ["large", "rib"]]
TABLE = toy.lexicon().table


def params():
    rng = np.random.default_rng(5)
    pixels = SIDE * SIDE
    mixes = {"in": rng.normal(size=(pixels, 16)) / 2, "out": rng.normal(size=(16, toy.WIDTH)) / 2}
    return toy.params() | {name: jnp.asarray(x, jnp.float32) for name, x in mixes.items()}


def image_fn(p, images):
    hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ p["in"])
    return hidden @ p["out"]


@functools.partial(toy.quick_jit, static_argnames=("recipe", "settings", "similarity"))
def craft(p, images, rows, keys, image_settings, table, recipe, settings=TEXT, similarity=None, **options):
    text_fn = functools.partial(toy.features, p)
    encoder = functools.partial(image_fn, p)
    return pairs.craft(
        encoder,
        text_fn,
        p["table"],
        images,
        *rows,
        keys,
        image_settings,
        settings,
        table,
        recipe=recipe,
        similarity=similarity,
        **options,
    )


@toy.quick_jit
def pair_loss(p, images, tokens, mask):
    text = unit(toy.features(p, p["table"][tokens], tokens, mask))
    return -jnp.sum(unit(image_fn(p, images)) * text, -1)


def inputs():
    images = jax.random.uniform(jax.random.key(1), (BATCH, SIDE, SIDE, 1))
    return images, tuple(map(jnp.asarray, toy.encode(CAPTIONS))), jax.random.split(jax.random.key(2), BATCH)


def target():
    """Features of the pairs in another order."""
    images, (tokens, mask, _), _ = inputs()
    p = params()
    text = toy.features(p, p["table"][tokens], tokens, mask)
    return pairs.Target(*(jnp.roll(x, 1, axis=0) for x in (image_fn(p, images), text)))


@pytest.fixture(scope="module")
def crafted():
    images, rows, keys = inputs()
    made = functools.partial(craft, params(), images, rows, keys, PGD, TABLE)
    return {recipe: made(recipe, target=target()) for recipe in pairs.RECIPES}


@pytest.mark.parametrize("recipe", pairs.RECIPES)
def test_constraints_of_both_sides_hold(crafted, recipe):
    images, (tokens, mask, _), _ = inputs()
    found = crafted[recipe]
    assert float(jnp.abs(found.image.images - images).max()) <= 0.05 + 1e-6
    assert float(found.image.images.min()) >= 0
    assert float(found.image.images.max()) <= 1
    assert (found.text.edits <= TEXT.max_words).all()
    for row in range(BATCH):
        for slot, (old, new) in enumerate(zip(CAPTIONS[row], toy.to_words(found.text, row))):
            assert (new != old) == bool(found.text.changed[row, slot])
            assert new == old or (old not in toy.PROTECTED and new not in toy.PROTECTED)
    np.testing.assert_allclose(found.clean_loss, pair_loss(params(), images, tokens, mask), atol=1e-5)


def test_a_surrogate_encoder_is_followed_and_the_encoder_itself_scores(crafted):
    p, (images, rows, keys) = params(), inputs()

    def low(images):
        halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
        return image_fn(halves, images.astype(jnp.bfloat16)).astype(jnp.float32)

    craft_low = toy.quick_jit(
        lambda p: pairs.craft(
            functools.partial(image_fn, p), functools.partial(toy.features, p), p["table"], images, *rows, keys, PGD,
            TEXT, TABLE, recipe="coattack", surrogate_fn=low,
        )
    )  # fmt: skip
    found = craft_low(p)
    assert float(jnp.abs(found.image.images - images).max()) <= 0.05 + 1e-6
    np.testing.assert_allclose(
        found.loss, pair_loss(p, found.image.images, found.text.tokens, found.text.mask), rtol=1e-5, atol=1e-6
    )
    exact = crafted["coattack"]
    assert not np.array_equal(found.image.trace, exact.image.trace)
    np.testing.assert_allclose(found.image.loss, exact.image.loss, rtol=0.1)


def test_one_side_alone_leaves_the_other(crafted):
    images, (tokens, mask, _), _ = inputs()
    np.testing.assert_array_equal(crafted["image_only"].text.tokens, tokens)
    np.testing.assert_array_equal(crafted["text_only"].image.images, images)
    assert not crafted["image_only"].text.edits.any()
    assert not crafted["text_only"].image.norm.any()
    sep = crafted["sep"]
    np.testing.assert_array_equal(sep.text.tokens, crafted["text_only"].text.tokens)
    np.testing.assert_array_equal(sep.image.images, crafted["image_only"].image.images)


def test_joint_beats_single(crafted):
    loss = {recipe: float(found.loss.mean()) for recipe, found in crafted.items()}
    clean = float(crafted["sep"].clean_loss.mean())
    assert clean < min(loss["image_only"], loss["text_only"])
    for recipe in ("sep", "sequential", "coattack", "sga"):
        assert loss[recipe] > max(loss["image_only"], loss["text_only"])
    assert loss["sequential"] >= loss["sep"] - 1e-3


@pytest.mark.parametrize("recipe", ["sequential", "coattack", "sga"])
def test_no_radius_gives_the_text_attack_and_no_words_the_image_attack(crafted, recipe):
    images, rows, keys = inputs()
    off = craft(params(), images, rows, keys, OFF, TABLE, recipe)
    np.testing.assert_array_equal(off.image.images, images)
    np.testing.assert_array_equal(off.text.tokens, crafted["text_only"].text.tokens)


def test_nothing_to_replace_gives_the_image_attack():
    images, _, keys = inputs()
    rows = tuple(map(jnp.asarray, toy.encode([["no", "left"], ["the"], ["left", "the"], ["no"]])))
    mute, alone = (craft(params(), images, rows, keys, PGD, TABLE, recipe) for recipe in ("sequential", "image_only"))
    np.testing.assert_allclose(mute.image.images, alone.image.images, atol=1e-6)
    np.testing.assert_array_equal(mute.text.tokens, rows[0])


@pytest.mark.parametrize("recipe", ["coattack", "sga"])
def test_a_pair_does_not_depend_on_its_batch(crafted, recipe):
    images, rows, keys = inputs()
    order = np.array([2, 0, 3, 1])
    other = craft(params(), images[order], tuple(x[order] for x in rows), keys[order], PGD, TABLE, recipe)
    whole = crafted[recipe]
    np.testing.assert_array_equal(np.asarray(whole.text.tokens)[order], other.text.tokens)
    np.testing.assert_allclose(np.asarray(whole.image.images)[order], other.image.images, atol=1e-6)
    np.testing.assert_allclose(np.asarray(whole.loss)[order], other.loss, atol=1e-5)


def test_several_captions_guide_one_image():
    images, first, keys = inputs()
    second = tuple(map(jnp.asarray, toy.encode(MORE)))
    mask = second[1].at[1].set(False)  # the second image has one caption only
    second = (second[0], mask, second[2])
    rows = tuple(jnp.stack(both, axis=1) for both in zip(first, second))
    found = craft(params(), images, rows, keys, PGD, TABLE, "sequential")
    assert found.text.tokens.shape == rows[0].shape
    assert found.loss.shape == found.text.edits.shape == (BATCH, 2)
    assert found.text.trace.shape == (3, BATCH, 2)
    assert (np.asarray(found.loss).sum(1) > np.asarray(found.clean_loss).sum(1)).all()
    assert found.loss[1, 1] == 0  # an empty caption counts for nothing
    single = craft(params(), images, first, keys, PGD, TABLE, "sequential")
    np.testing.assert_allclose(found.image.images[1], single.image.images[1], atol=1e-6)
    np.testing.assert_array_equal(found.text.tokens[1, 0], single.text.tokens[1])
    assert float(jnp.abs(found.image.images[0] - single.image.images[0]).max()) > 1e-3


def test_what_does_not_fit_is_refused():
    images, rows, keys = inputs()
    with pytest.raises(ConfigError, match="did you mean 'coattack'"):
        craft(params(), images, rows, keys, PGD, TABLE, "co-attack")
    with pytest.raises(ValueError, match="for 2 images"):
        craft(params(), images[:2], rows, keys[:2], PGD, TABLE, "sep")


def test_success_by_both_definitions():
    clean = jnp.array([True, True, True, False, False])
    attacked = jnp.array([False, True, False, True, False])
    found = success.attack_success(clean, attacked)
    assert float(found.recall_drop) == pytest.approx(3 / 5 - 2 / 5)
    assert float(found.turned_wrong) == pytest.approx(2 / 3)
    none = success.attack_success(jnp.zeros(3, bool), jnp.zeros(3, bool))
    assert float(none.recall_drop) == 0
    assert np.isnan(float(none.turned_wrong))
    same = success.attack_success(clean, clean)
    assert (float(same.recall_drop), float(same.turned_wrong)) == (0, 0)
    with pytest.raises(ValueError, match="bool"):
        success.attack_success(clean, attacked.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"\[Q\]"):
        success.attack_success(clean, attacked[:2])


def test_a_bound_on_similarity_holds_and_costs_loss():
    images, rows, keys = inputs()
    free = craft(params(), images, rows, keys, PGD, TABLE, "text_only")
    bound = craft(params(), images, rows, keys, PGD, TABLE, "text_only", similarity=0.9)
    p, (tokens, mask, _) = params(), rows

    def embed(tokens, mask):
        return unit(toy.features(p, p["table"][tokens], tokens, mask))

    cosine = jnp.sum(embed(tokens, mask) * embed(bound.text.tokens, bound.text.mask), -1)
    assert float(cosine.min()) >= 0.9 - 1e-5
    assert float(free.loss.mean()) >= float(bound.loss.mean()) - 1e-6
    wide = jnp.sum(embed(tokens, mask) * embed(free.text.tokens, free.text.mask), -1)
    assert float(wide.min()) < 0.9
