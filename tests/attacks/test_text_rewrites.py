"""Whole rewritten captions: the worst of them by a true forward pass, inside every recipe for pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import pairs, pgd, text
from ranjax.attacks.text import rewrites

import toy_text as toy  # isort: skip

TEXTS = (["no", "effusion"], ["large", "effusion"], ["left", "heart"])
OTHERS = (
    (["large", "effusion"], ["the", "pneumothorax"], ["clear", "lungs"]),
    (["no", "effusion"], ["clear", "heart"]),
    (),
)


def given():
    """Rows, and their rewrites: three, two and none."""
    rows = toy.encode(TEXTS)
    tokens, mask = np.zeros((3, 3, toy.LENGTH), np.int32), np.zeros((3, 3, toy.LENGTH), bool)
    valid = np.zeros((3, 3), bool)
    for i, listed in enumerate(OTHERS):
        if listed:
            tokens[i, : len(listed)], mask[i, : len(listed)], _ = toy.encode(listed)
            valid[i, : len(listed)] = True
    return rows, rewrites.Rewrites(*map(jnp.asarray, (tokens, mask, valid)))


def reference(p, row, target):
    """Minus the cosine to the target, in plain NumPy, of one row."""
    tokens, mask, _ = (x[:1] for x in toy.encode([row]))
    hidden = np.tanh(p["table"][tokens[0]] + p["position"][: toy.LENGTH])
    pooled = hidden[mask[0]].sum(0) / mask[0].sum()
    found = np.tanh(pooled @ p["mix"])
    return -float(found @ target / np.linalg.norm(found) / np.linalg.norm(target))


def test_the_text_of_the_highest_loss_is_taken_and_a_row_without_one_stays():
    p, (rows, forms) = toy.params(), given()
    target = p["target"][:3] / np.linalg.norm(p["target"][:3], axis=1, keepdims=True)

    @toy.quick_jit
    def run(p, target, rows, forms):
        def loss(e, t, m):
            found = toy.features(p, e, t, m)
            return -jnp.sum(found * target, -1) / jnp.linalg.norm(found, axis=-1)

        return rewrites.choose(loss, p["table"], *rows, forms)

    found = run(p, target[:, : toy.WIDTH], rows, forms)
    for i, listed in enumerate(OTHERS):
        losses = [reference(p, row, target[i, : toy.WIDTH]) for row in listed]
        clean = reference(p, TEXTS[i], target[i, : toy.WIDTH])
        best = int(np.argmax(losses)) if losses else -1
        assert int(found.choices[i, 0]) == best
        assert float(found.clean_loss[i]) == pytest.approx(clean, abs=1e-5)
        # Even where no text raises the loss one is taken: the caption has to become false.
        assert float(found.loss[i]) == pytest.approx(max(losses, default=clean), abs=1e-5)
        new = toy.encode([listed[best] if losses else TEXTS[i]])
        np.testing.assert_array_equal(found.tokens[i], new[0][0])
        np.testing.assert_array_equal(found.mask[i], new[1][0])
    np.testing.assert_array_equal(found.edits, [1, 1, 0])
    np.testing.assert_array_equal(found.queries, [3, 2, 0])


def test_a_text_without_a_number_as_its_loss_is_not_taken():
    p, (rows, forms) = toy.params(), given()

    def loss(e, t, m):
        return jnp.where(jnp.any(t == toy.PIECES["pneumothorax"][0], axis=1), jnp.nan, jnp.sum(m, 1, dtype=jnp.float32))

    found = rewrites.choose(loss, p["table"], *rows, forms)
    assert int(found.choices[0, 0]) != 1
    assert np.isfinite(found.loss).all()


@functools.partial(jax.jit, static_argnames=("recipe", "towards"))
def craft(p, images, rows, keys, forms, recipe, towards=False):
    def text_towards(attacked, image_settings, text_settings):
        image = attacked.attack_image(attacked.encode_text(attacked.tokens, attacked.mask), image_settings)
        goal = attacked.encode_image(attacked.images)
        return attacked.result(image, attacked.attack_text(goal, text_settings, towards=True))

    return pairs.craft(
        lambda x: jnp.tanh(x.reshape(x.shape[0], -1)[:, : toy.WIDTH] - 0.5),
        functools.partial(toy.features, p),
        p["table"],
        images,
        *rows,
        keys,
        pgd.PGD("2/255", "1/255", 2),
        text.Substitution(max_words=1),
        forms,
        recipe=text_towards if towards else recipe,
    )


def inputs():
    rows, forms = given()
    images = jax.random.uniform(jax.random.key(1), (3, 3, 3, 1))
    return toy.params(), images, tuple(map(jnp.asarray, rows)), jax.random.split(jax.random.key(0), 3), forms


@pytest.mark.parametrize("recipe", ["coattack", "sga", "sep", "sequential", "text_only"])
def test_every_recipe_that_changes_the_text_takes_one_of_the_texts(recipe):
    p, images, rows, keys, forms = inputs()
    found = craft(p, images, rows, keys, forms, recipe)
    for i, listed in enumerate(OTHERS):
        texts = toy.encode(list(listed) or [TEXTS[i]])[0]
        assert any(np.array_equal(found.text.tokens[i], row) for row in texts)


def test_the_image_alone_leaves_the_texts():
    p, images, rows, keys, forms = inputs()
    found = craft(p, images, rows, keys, forms, "image_only")
    np.testing.assert_array_equal(found.text.tokens, rows[0])
    assert (np.asarray(found.text.choices) == -1).all()


def test_towards_a_target_the_nearest_text_is_taken():
    p, images, rows, keys, forms = inputs()
    near, far = (craft(p, images, rows, keys, forms, "text_only", towards) for towards in (True, False))
    # The losses of the two searches, against the clean images, are those of the texts that they chose.
    assert int(near.text.choices[0, 0]) != int(far.text.choices[0, 0])
    assert (np.asarray(near.text.loss[:2]) >= -np.asarray(far.text.loss[:2]) - 1e-6).all()


def test_texts_of_another_length_are_refused():
    p, (rows, forms) = toy.params(), given()
    with pytest.raises(ValueError, match="rewrites of shape"):
        rewrites.choose(
            lambda e, t, m: jnp.sum(m, 1, dtype=jnp.float32),
            p["table"],
            *rows,
            forms._replace(tokens=forms.tokens[..., :4]),
        )
