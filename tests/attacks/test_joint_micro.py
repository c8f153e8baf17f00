"""Joint attacks on a small trained CLIP: agreement with stored float64 results, and the order the literature shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import pairs, pgd, text

import micro_clip  # isort: skip
import micro_text as micro  # isort: skip

TEXT = text.Substitution(max_words=3, top_k=8)
PGD = pgd.PGD(8 / 255, 2 / 255, 10, start="none", keep="last")


@functools.partial(micro.quick_jit, static_argnames=("recipe", "text_settings", "channels_first"))
def craft(w, images, rows, keys, settings, allowed, recipe, text_settings=TEXT, channels_first=False, **options):
    def image_fn(x):
        return micro_clip.image_features(w, x if channels_first else jnp.moveaxis(x, -1, 1))

    return pairs.craft(
        image_fn,
        functools.partial(micro.clip_text, w),
        w["text_model.embeddings.token_embedding.weight"],
        images,
        *rows,
        keys,
        settings,
        text_settings,
        allowed,
        recipe=recipe,
        **options,
    )


def inputs(folder, dtype):
    stored = np.load(folder / "pgd_micro.npz")
    tokens = stored["ids"].astype(np.int32)
    rows = jnp.asarray(tokens), jnp.asarray(stored["mask"] > 0), jnp.asarray(micro.slots_of(tokens))
    images = jnp.asarray(stored["images_u8"].astype(dtype) / np.asarray(255, dtype))
    keys = jax.random.split(jax.random.key(0), len(tokens))
    weights = micro_clip.load(folder / "clip_micro_trained", dtype)
    return weights, images, rows, keys, images + jnp.asarray(stored["noise"].astype(dtype))


@pytest.mark.slow
def test_text_then_image_agrees_in_float64(reference_cases, float64):
    stored = np.load(reference_cases / "joint_micro.npz")
    w, images, rows, keys, start = inputs(reference_cases, np.float64)
    allowed = micro.lexicon().table
    found = craft(w, images, rows, keys, PGD, allowed, "sequential", channels_first=True, initial=start)
    np.testing.assert_array_equal(found.text.tokens, stored["adv_ids"])
    np.testing.assert_allclose(found.image.trace.mean(1), stored["joint_loss"], atol=1e-9)
    np.testing.assert_allclose(found.image.images, stored["joint_adv"], atol=1e-9)
    np.testing.assert_allclose(-found.loss, stored["joint_sim"], atol=1e-9)
    np.testing.assert_allclose(-found.clean_loss, stored["sim_clean"], atol=1e-9)
    np.testing.assert_allclose(-found.text.loss, stored["sim_text_only"], atol=1e-9)
    single = min(stored["image_only_sim"].mean(), stored["sim_text_only"].mean())
    assert -found.loss.mean() < single < stored["sim_clean"].mean()


@pytest.fixture(scope="module")
def crafted(reference_cases):
    """Every recipe on the same pairs, and the inputs."""
    w, images, rows, keys, _ = inputs(reference_cases, np.float32)
    images = jnp.moveaxis(images, 1, -1)
    settings = pgd.PGD(2 / 255, 0.5 / 255, 10)
    results = {
        recipe: craft(w, images, rows, keys, settings, micro.lexicon().table, recipe, text.Substitution(max_words=1))
        for recipe in ("sep", "coattack", "sga")
    }
    return images, rows, results


@pytest.mark.slow
def test_joint_recipes_beat_separate_beats_single(crafted):
    _, _, results = crafted
    loss = {recipe: float(found.loss.mean()) for recipe, found in results.items()}
    sep = results["sep"]
    clean, image_alone, text_alone = (float(x.mean()) for x in (sep.clean_loss, sep.image.loss, sep.text.loss))
    assert min(image_alone, text_alone) > clean
    assert loss["sep"] > max(image_alone, text_alone)
    assert loss["sga"] > loss["sep"]


@pytest.mark.slow
def test_every_recipe_keeps_the_constraints_of_both_sides(crafted):
    images, (tokens, mask, words), results = crafted
    for recipe, found in results.items():
        assert float(jnp.max(jnp.abs(found.image.images - images))) <= 2 / 255 + 1e-6, recipe
        assert float(found.image.images.min()) >= 0, recipe
        assert float(found.image.images.max()) <= 1, recipe
        changed = np.asarray(found.text.tokens) != np.asarray(tokens)
        assert (changed.sum(1) <= 1).all(), recipe
        assert not changed[np.asarray(words) < 0].any(), recipe
        np.testing.assert_array_equal(found.text.mask, mask)
