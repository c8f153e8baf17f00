"""Every setting of every method reaches its fit: each one is changed in turn, and what is fitted changes."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.methods import METHODS, Examples, Fit, Images, Task, TowerFit, fit_method, settings_of, tune
from ranjax.methods.test_time import counterattack
from ranjax.run import config as configs

# What a setting of this value becomes; others are doubled. The second are settings under which it matters.
OTHER = {
    0.0: 0.5,
    "4/255": "8/255",
    "1/255": "3/255",
    "embedding": "tokens",
    "tokens": "blocks",
    "margin": "cross_entropy",
}
CONDITIONS = {
    **{"top_k": {"svd": 1.0}, "svd_every": {"svd": 1.0}, "pull": {"pull": 1.0}},
    **{
        "copies": {"copies": 2},
        "patience": {"patience": 1},
        "examples": {"examples": 10},
        "displaced": {"displaced": 10},
        "rank": {"rank": 1},
        "most_hidden": {"most_hidden": 3},
    },
}
# Which features a head is given, a library user sees to; when training ends, test_head_training.py shows.
GIVEN = ("features", "filtered", "copies", "patience")
PATTERNS = {"targets": ("^tower/last/",), "trainable": ("^tower/last/",)}


def keys_of(method):
    return [field.name for field in dataclasses.fields(method.settings)] if method.keys is None else method.keys


def changed(settings, name):
    now = getattr(settings, name)
    if isinstance(now, bool):
        return dataclasses.replace(settings, **{name: not now})
    if isinstance(now, tuple) and isinstance(now[0], float):
        return dataclasses.replace(settings, **{name: tuple(2 * value for value in now)})
    other = {"epochs_share": 1.0, **PATTERNS}.get(name, OTHER.get(now) if isinstance(now, (str, float)) else None)
    return dataclasses.replace(settings, **{name: 2 * now if other is None else other})


def pairs(method):
    """(setting, settings in which it matters, the same with another value of it)."""
    for name in keys_of(method):
        base = dataclasses.replace(method.settings, **CONDITIONS.get(name, {}))
        assert getattr(changed(base, name), name) != getattr(base, name)
        yield name, base, changed(base, name)


def differ(one, two):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def of_family(family):
    return [name for name, method in METHODS.items() if method.family == family and not method.variant_of]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.settings is not None])
def test_each_key_sets_its_setting_and_those_of_variants(name):
    method, config = METHODS[name], configs.default_config()
    for setting in keys_of(METHODS[method.variant_of or name]):
        value = getattr(changed(METHODS[method.variant_of or name].settings, setting), setting)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        configs.override(config, f"adapt.{method.variant_of or name}.{setting}", text)
        found = settings_of(config.adapt, name)
        assert getattr(found, setting) == method.changes.get(setting, value)


# One kind of solution and one kind of training here; the others are minutes of compilation.
SLOW = ("mlp", "nmtune", "ran_v1", "at", "robust_ridge")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in of_family("head")]
)
def test_each_number_of_a_head_changes_the_fit(name):
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 3
    features = rng.normal(size=(40, 6)).astype(np.float32) + np.eye(6, dtype=np.float32)[labels]
    examples = Examples(features, labels, features + rng.normal(size=features.shape).astype(np.float32))

    def attack(predict, variables, split, rows, loss):
        toward = np.roll(np.eye(6, dtype=np.float32), 1 if loss == "margin" else 2, axis=0)[labels[rows]]
        # Each image by an amount of its own, and by more against a head of larger outputs.
        reach = 0.3 + rows[:, None] / 40 + np.abs(np.asarray(predict(variables, jnp.asarray(features)))).mean()
        return features[rows] + toward * reach.astype(np.float32)

    shared = Fit(epochs=4, batch_size=8, attack=attack)

    @functools.cache
    def fit(settings):
        method = METHODS[name]
        found = fit_method(method, settings, examples, examples, classes=3, seeds=[0], shared=shared)
        return found.variables, found.history[..., -1], dict(found.facts)

    for setting, base, other in pairs(METHODS[name]):
        if setting not in GIVEN:
            one, two = fit(base), fit(other)
            assert jax.tree.structure(one) != jax.tree.structure(two) or differ(one, two), setting


class Encoder:
    """Two linear maps with a bend between."""

    config = types.SimpleNamespace(embed_dim=6)

    def image_features(self, params, images):
        from ranjax.models import input_filter

        if input_filter.NAME in params:
            images = input_filter.apply(params[input_filter.NAME], images)
        hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ params["tower"]["first"]["kernel"])
        return hidden @ params["tower"]["last"]["kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("name", of_family("tower"))
def test_each_number_of_a_tower_method_changes_the_fit(name):
    rng = np.random.default_rng(0)
    first, last = (jnp.asarray(rng.normal(size=shape), jnp.float32) / 3 for shape in ((16, 8), (8, 6)))
    encoder, params = Encoder(), {"tower": {"first": {"kernel": first}, "last": {"kernel": last}}}
    labels = np.arange(16, dtype=np.int32) % 3
    images = rng.uniform(0, 1, (16, 4, 4, 1)).astype(np.float32)
    split = Images(images, labels, np.asarray(encoder.image_features(params, jnp.asarray(images))))
    task = Task(rng.normal(size=(3, 6)).astype(np.float32), 10.0)
    of_tower = {"targets": ("^tower/",), "trainable": ("^tower/",)}

    @functools.cache
    def fit(settings):
        found = tune(encoder, params, settings, split, split, task, seed=0, settings=TowerFit(epochs=1, batch_size=8))
        return found.trained, found.losses

    def at_home(settings, setting):
        return dataclasses.replace(settings, **{k: v for k, v in of_tower.items() if k != setting})

    for setting, base, other in pairs(METHODS[name]):
        one, two = fit(at_home(base, "")), fit(at_home(other, setting))
        assert jax.tree.structure(one) != jax.tree.structure(two) or differ(one, two), setting


def test_each_number_of_the_counterattack_changes_its_images():
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(36, 5)), jnp.float32)
    images = jnp.asarray(rng.uniform(0.2, 0.8, (4, 6, 6, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4)

    def run(settings):
        return counterattack(lambda x: x.reshape(4, -1) @ matrix, images, keys, settings).images

    method = METHODS["ttc"]
    # All images are pushed at the first threshold, none at the other.
    settings = dataclasses.replace(method.settings, threshold=10.0)
    for name in keys_of(method):
        other = dataclasses.replace(settings, threshold=0.0) if name == "threshold" else changed(settings, name)
        assert differ(run(settings), run(other)), name
