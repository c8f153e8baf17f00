"""AutoAttack: a linear model's closed form in every norm, survivors alone, its warnings, and models of any kind."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from ranjax.attacks import any_model, pgd
from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import AutoAttack
from ranjax.evaluation import autoattack as module

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


@pytest.fixture(scope="module")
def case():
    """A linear classifier on grey images, labels, and how far each boundary is in every norm; image 3 is wrong."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(36, 5)).astype(np.float32)
    images = (0.5 + rng.uniform(-0.1, 0.1, (20, 6, 6, 1))).astype(np.float32)
    logits = (images.reshape(20, -1) - 0.5) @ w
    labels = logits.argmax(1)
    gap = logits[np.arange(20), labels][:, None] - logits
    least = {}
    for norm, order in DUAL.items():
        length = np.linalg.norm(w[:, labels].T[:, :, None] - w[None], order, axis=1)
        least[norm] = np.where(np.arange(5) == labels[:, None], np.inf, gap / np.maximum(length, 1e-9)).min(1)
    labels[3] = (labels[3] + 1) % 5
    for norm in DUAL:
        least[norm][3] = 0
    return jnp.asarray(w), images, labels, least


def linear(w, images):
    return (images.reshape(images.shape[0], -1) - 0.5) @ w


@pytest.mark.parametrize("norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))])
def test_of_a_linear_model_those_survive_whose_boundary_is_further(case, norm):
    w, images, labels, least = case
    radius = float(np.sort(least[norm])[9:11].mean())
    found = AutoAttack((linear, w), radius, norm, steps=25, queries=100, batch_size=16).run(images, labels)
    assert list(found.survived) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    # Within a hair of the boundary APGD under l1 may fall short; FAB does not.
    clear = np.abs(least[norm] - radius) > 0.02 * radius
    np.testing.assert_array_equal(found.robust[clear], (least[norm] > radius)[clear])
    np.testing.assert_array_equal(found.clean, np.arange(20) != 3)
    for before, after in zip(list(found.survived.values()), list(found.survived.values())[1:]):
        assert not (after & ~before).any()
    broken = found.clean & ~found.robust
    told = np.asarray(linear(w, jnp.asarray(found.images))).argmax(1)
    np.testing.assert_array_equal(told != labels, ~found.robust)
    change = (found.images - images).reshape(20, -1)
    length = np.linalg.norm(change, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
    assert (length[~broken] == 0).all()
    assert length.max() <= radius * (1 + 1e-4)
    assert found.notes == ()
    assert f"{found.accuracy:7.2%}" in str(found)


def test_only_survivors_are_attacked_in_batches_of_few_sizes(case):
    w, images, labels, least = case
    sizes = []
    buckets = list(module._buckets(np.arange(70), 32))
    assert [(len(rows), size) for rows, size in buckets] == [(64, 32), (6, 8)]
    assert [size for _, size in module._buckets(np.arange(2), 32)] == [2]
    attack = AutoAttack(
        (linear, w), float(np.median(least["linf"])), attacks=("apgd_ce", "apgd_t"), steps=5, batch_size=16
    )

    def counted(part, logits_fn, shared, rows, index, size):
        sizes.append((part.name, len(index)))
        return AutoAttack._packed(attack, part, logits_fn, shared, rows, index, size)

    attack._packed = counted
    found = attack.run(images, labels)
    left = [count for name, count in sizes if name == "apgd_t"]
    assert len(left) == 4  # five classes: four targets
    assert sizes[0] == ("apgd_ce", 19)
    assert left[0] == found.survived["apgd_ce"].sum()
    assert left == sorted(left, reverse=True)
    # The same attack again compiles nothing.
    compiled = {key: row_map._compiled._cache_size() for key, row_map in attack._maps.items()}
    attack.run(images, labels)
    assert compiled == {key: row_map._compiled._cache_size() for key, row_map in attack._maps.items()}
    assert set(compiled.values()) == {1}


def test_an_example_does_not_depend_on_its_companions(case):
    w, images, labels, least = case
    attack = AutoAttack(
        (linear, w), float(np.median(least["linf"])), attacks=("apgd_ce", "square"), steps=5, queries=50
    )
    ids = [f"image {i}" for i in range(20)]
    whole, part = attack.run(images, labels, ids), attack.run(images[5:9], labels[5:9], ids[5:9])
    np.testing.assert_array_equal(whole.robust[5:9], part.robust)
    np.testing.assert_allclose(whole.images[5:9], part.images, atol=1e-6)


def test_multi_hot_labels_and_two_classes_have_forms_of_their_own(case):
    w, images, _, _ = case
    logits = np.asarray(linear(w, jnp.asarray(images)))
    hot = (logits > 0).astype(np.float32)
    least = (np.abs(logits) / np.abs(np.asarray(w)).sum(0)).min(1)
    radius = float(np.sort(least)[9:11].mean())
    attack = AutoAttack((linear, w), radius, attacks=("apgd_dlr", "apgd_t"), steps=25)
    np.testing.assert_array_equal(attack.run(images, hot).robust, least > radius)
    two = w[:, :2]
    gap = logits[:, 0] - logits[:, 1]
    least = np.abs(gap) / float(jnp.abs(two[:, 0] - two[:, 1]).sum())
    with pytest.warns(UserWarning, match="the DLR of 2 classes is undefined"):
        found = AutoAttack((linear, two), radius, attacks=("apgd_t",), steps=25).run(images, (gap < 0).astype(int))
    np.testing.assert_array_equal(found.robust, least > radius)


def test_a_random_model_is_attacked_in_expectation(case):
    w, images, labels, least = case

    def noisy(w, x, keys):
        return linear(w, x) + 1e-3 * jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)

    radius = float(np.sort(least["linf"])[9:11].mean())
    found = AutoAttack((noisy, w), radius, version="rand", draws=3, steps=15, batch_size=32).run(images, labels)
    assert list(found.survived) == ["apgd_ce", "apgd_dlr"]
    clear = np.abs(least["linf"] - radius) > 0.05 * radius
    np.testing.assert_array_equal(found.robust[clear], (least["linf"] > radius)[clear])
    with pytest.raises(DataError, match="a random model is given as"):
        AutoAttack(lambda x: linear(w, x), radius, version="rand").run(images, labels)


def test_what_hides_gradients_never_comes_without_a_warning(case):
    w, images, labels, _ = case
    right = np.asarray(linear(w, jnp.asarray(images))).argmax(1)

    def coarse(w, x):
        return jnp.round(2 * linear(w, x)) / 2 + 1e-3 * jnp.arange(5, dtype=jnp.float32)[None]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = AutoAttack((coarse, w), 0.05, attacks=("apgd_ce", "square"), steps=4, queries=250).run(images, right)
    said = [str(one.message).removeprefix("AutoAttack: ") for one in caught if one.category is UserWarning]
    assert tuple(said) == found.notes
    assert "gradient of exactly 0" in said[0]
    assert said[1].startswith("Square broke")
    assert f"WARNING: {said[0]}" in str(found)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(5)(x.reshape(x.shape[0], -1) - 0.5)


def test_a_model_is_a_function_a_flax_module_or_a_pair(case):
    w, images, labels, _ = case
    x = jnp.asarray(images[:2])
    variables = {"params": {"Dense_0": {"kernel": w, "bias": jnp.zeros(5)}}}

    class Classifier(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(w)

        def __call__(self, images):
            return linear(self.w[...], images)

    models = (lambda x: linear(w, x), jax.jit(lambda x: linear(w, x)), (linear, w), (Net(), variables), Classifier())
    for model in models:
        logits_fn, params = any_model.as_logits(model, images)
        np.testing.assert_allclose(jax.jit(logits_fn)(params, x), linear(w, x), atol=1e-5)
        # The weights are arguments of the program, not constants in it.
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) >= w.size
        assert "dense<" not in jax.jit(logits_fn).lower(params, x).as_text().replace("dense<5.0", "")
        found = pgd.PGD(eps="8/255", steps=5)(model, images, labels, batch_size=8)
        assert found.images.shape == images.shape
        assert found.success.shape == (20,)
        np.testing.assert_allclose(found.norm, np.abs(found.images - images).max((1, 2, 3)), atol=1e-6)
        assert (found.loss >= found.clean_loss).all()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"version": "standrad"}, ConfigError, "did you mean 'standard'"),
        ({"norm": "l0"}, ConfigError, "norm = 'l0'"),
        ({"eps": 4}, ConfigError, "Written in 0-255"),
        ({"attacks": ("pgd",)}, ConfigError, "attacks = 'pgd'"),
        ({"queries": 300}, ConfigError, "a multiple of 250"),
        ({"labels": np.full(20, 7)}, DataError, "0 to 4"),
        ({"labels": np.zeros(3, int)}, DataError, r"expected integers \(20,\)"),
        ({"ids": ["a"] * 20}, DataError, "20 ids, 1 of them different"),
        ({"model": 3}, DataError, "the model is a int"),
    ],
)
def test_what_does_not_fit_is_refused(case, change, kind, words):
    w, images, labels, _ = case
    given = {"model": (linear, w), "eps": 0.01, **change}
    labels, ids = given.pop("labels", labels), given.pop("ids", None)
    with pytest.raises(kind, match=words), warnings.catch_warnings():
        AutoAttack(given.pop("model"), **given).run(images, labels, ids)
