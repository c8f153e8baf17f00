"""Transformed losses, minimal norms, named attacks, and models with state of their own."""

from __future__ import annotations

import dataclasses

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax import attacks
from ranjax.attacks import KeyedLoss, ascent, jitted, losses, minimal_norm, pgd, presets, transforms

PARAMS, IMAGES, KEYS = toy.make_params(), toy.make_images(), toy.make_keys()
LABELS = toy.labels_of(PARAMS, IMAGES)
SETTINGS = pgd.PGD("8/255", "2/255", 3, start="none", keep="last")


# expectation over transformations: nothing changes for a deterministic model, whatever the number of samples
def test_expectation_of_a_deterministic_loss():
    @jax.jit
    def run(images, keys):
        loss = lambda x: toy.loss(PARAMS, x, LABELS)  # noqa: E731
        return [pgd.pgd(f, images, keys, SETTINGS) for f in (loss, transforms.expectation(loss, 4))]

    plain, averaged = run(IMAGES, KEYS)
    np.testing.assert_array_equal(averaged.images, plain.images)
    np.testing.assert_array_equal(averaged.trace, plain.trace)
    np.testing.assert_array_equal(averaged.success, plain.success)


# expectation over a random defence: the mean loss, fresh draws at each step, the same for the same key
def test_expectation_of_a_random_loss():
    def noisy(images, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key))(keys)
        return jnp.sum(images, axis=(1, 2, 3)) + noise

    loss = transforms.expectation(KeyedLoss(noisy), 64)
    score = jax.jit(lambda x, k: loss(x, k))(jnp.asarray(IMAGES), KEYS)
    error = np.asarray(score) - IMAGES.sum((1, 2, 3))
    assert 0 < np.abs(error).max() < 5 / 8
    run = jax.jit(lambda x, k: pgd.pgd(KeyedLoss(noisy), x, k, SETTINGS))
    result = run(IMAGES, KEYS)
    jumps = np.asarray(result.trace) - np.asarray(result.trace)[:1]
    assert len(np.unique(jumps[1:].round(6))) > toy.BATCH  # not one draw for all steps
    np.testing.assert_array_equal(result.trace, run(IMAGES, KEYS).trace)


# input diversity and scales: the loss is of transformed images, the identity where nothing is transformed
def test_transformed_losses():
    flat = jnp.full((4, 8, 8, 1), 0.5)
    keys = toy.make_keys(4)
    total = lambda x: jnp.sum(x, axis=(1, 2, 3))  # noqa: E731
    never = transforms.diverse(total, probability=0.0)
    always = transforms.diverse(total, probability=1.0, smallest=0.5)
    np.testing.assert_array_equal(never(flat, keys), total(flat))
    shrunk = np.asarray(always(flat, keys))
    assert np.all((shrunk < 32) & (shrunk > 4))
    assert len(set(shrunk.round(3).tolist())) == 4
    np.testing.assert_allclose(transforms.scaled(total, (1.0,))(flat, keys), total(flat))
    np.testing.assert_allclose(
        transforms.scaled(total, (0.5, 1.0, 1.5), noise=0.0)(flat, keys), 3 * total(flat), rtol=1e-5
    )
    noisy = transforms.scaled(total, (0.5, 1.0))(flat, keys)
    assert np.all(np.abs(noisy - 2 * total(flat)) > 1e-4)
    with pytest.raises(ValueError, match="resizes"):
        transforms.scaled(total)(flat[..., 0], keys)


# a sum over parts is differentiated part by part: the same loss, success and gradient as of the whole at once
def test_parts_add_up_to_the_whole():
    def inner(x):
        return jnp.sum(x * x, axis=(1, 2, 3)), jnp.sum(x, axis=(1, 2, 3)) > 30

    summed = transforms.scaled(inner, (0.5, 1.0, 1.5))
    whole = KeyedLoss(summed.function)
    images, keys = jnp.asarray(IMAGES), KEYS
    for found, wanted in zip(
        *(jax.jit(lambda x, k, f=f: ascent.score_and_gradient(f, x, k, 3))(images, keys) for f in (summed, whole))
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


# the set of scales through the compiled attack: inside the ball, raises the plain loss, needs a key per example
def test_scaled_attack():
    preset = presets.get("sga").with_epsilon("8/255")
    run = jitted(toy.loss, preset.settings, transform=preset.transform)
    result = run(PARAMS, IMAGES, KEYS, LABELS)
    assert float(result.norm.max()) <= 8 / 255 + 1e-6
    before, after = (toy.loss(PARAMS, jnp.asarray(x), LABELS)[0].mean() for x in (IMAGES, result.images))
    assert float(after) > float(before)


# minimal norm over a list of radii in one call: monotone, 0 where already wrong, infinite where nothing succeeds
def test_minimal_norm():
    epsilons = ("1/255", "8/255", "32/255", "128/255")
    wrong = np.asarray(LABELS).copy()
    wrong[0] = (wrong[0] + 1) % toy.CLASSES

    @jax.jit
    def search(params, images, keys, labels):
        loss = lambda x: toy.loss(params, x, labels)  # noqa: E731
        return minimal_norm(loss, images, keys, pgd.PGD("8/255", "2/255", 6), epsilons)

    result = search(PARAMS, IMAGES, KEYS, jnp.asarray(wrong))
    success, found = np.asarray(result.success), np.asarray(result.epsilon)
    assert np.all(np.diff(success.astype(int), axis=0) >= 0)
    assert found[0] == 0
    assert np.array_equal(result.images[0], IMAGES[0])
    assert success[:, 0].all()
    assert len(set(found.tolist())) >= 3
    hit = np.isfinite(found) & (found > 0)
    np.testing.assert_array_equal(losses.is_wrong(toy.logits(PARAMS, result.images), jnp.asarray(wrong))[hit], True)
    assert np.all(np.asarray(result.norm)[hit] <= found[hit] + 1e-6)
    np.testing.assert_array_equal(np.isinf(found), ~success[-1])
    steep = minimal_norm(lambda x: (x[:, 0, 0, 0], x[:, 0, 0, 0] > 2), IMAGES, KEYS, SETTINGS, (0.5,))
    assert np.all(np.isinf(steep.epsilon))
    assert np.array_equal(steep.images, IMAGES)


def test_minimal_norm_refuses():
    for epsilons in ((), (0.2, 0.1), (0, 0.1)):
        with pytest.raises(ValueError, match="epsilons"):
            minimal_norm(lambda x: x, IMAGES, KEYS, SETTINGS, epsilons)
    with pytest.raises(ValueError, match=r"a function that returns \(loss, success\)"):
        minimal_norm(lambda x: x[:, 0, 0, 0], IMAGES, KEYS, SETTINGS, (0.1,))


# presets: every name, the published numbers, a source and a word on differences
def test_presets():
    numbers = {
        "coattack": (2, 0.25, 10),
        "sga": (2, 0.5, 10),
        "fare": (4, 1, 10),
        "tecoa": (1, 1, 2),
    }
    for name, (epsilon, step, count) in numbers.items():
        preset = presets.get(name)
        assert preset.settings.steps == count
        np.testing.assert_allclose((preset.settings.epsilon * 255, preset.settings.step_size * 255), (epsilon, step))
        assert preset.settings.start == "uniform"
        assert callable(getattr(losses, preset.loss))
        assert "arXiv" in preset.source
        assert preset.differs
    assert presets.get("autoattack-lite").settings.steps == 100
    wider = presets.get("fare").with_epsilon("2/255")
    np.testing.assert_allclose((wider.settings.epsilon * 255, wider.settings.step_size * 255), (2, 0.5))


# the model's state is untouched: training flag, parameters, random streams
def test_model_state_is_left_alone():
    class Classifier(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.dropout = nnx.Linear(16, toy.CLASSES, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, images):
            return self.dropout(self.linear(images.reshape(images.shape[0], -1)))

    model = Classifier(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    before = jax.tree.map(lambda x: np.array(jax.random.key_data(x) if _is_key(x) else x), state)
    loss = lambda state, x, y: losses.cross_entropy(nnx.merge(graph, state)(x), y)  # noqa: E731
    result = jitted(loss, SETTINGS)(state, IMAGES, KEYS, LABELS)
    assert np.all(result.loss > result.clean_loss)
    after = jax.tree.map(lambda x: np.array(jax.random.key_data(x) if _is_key(x) else x), nnx.split(model)[1])
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert model.dropout.deterministic


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# settings are pytrees that keep what they are, and hashable
def test_settings_are_pytrees():
    settings = pgd.PGD(0.1, 0.02, 5, norm="l2", restarts=2)
    assert jax.tree.leaves(settings) == [0.1, 0.02]
    assert jax.tree.map(lambda x: x, settings) == settings
    assert dataclasses.replace(settings, restarts=1) != settings


def test_the_package_names_what_a_library_user_needs():
    assert attacks.pgd is pgd
    assert attacks.PGD is pgd.PGD
    for name in dir(attacks):
        assert name == "ATTACKS" or getattr(attacks, name).__name__.endswith(name)
    assert "pgd" in attacks.ATTACKS
    with pytest.raises(AttributeError, match="no attribute 'sound'"):
        attacks.sound  # noqa: B018
