"""The tables of attacks and recipes: every entry runs, every setting reaches what it sets, and the rest is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import ATTACKS, Attack, Classifier, OwnAttack, pairs
from ranjax.attacks.attack_table import CLASSIFIER
from ranjax.core.errors import ConfigError
from ranjax.data import RECIPES

import test_joint as joint  # isort: skip

OTHER = {
    **{"step": "3/255", "steps": 3, "alpha": 0.0, "noise": 0.3, "order": "text_first"},
    **{"targets": 1, "queries": 9, "share": 0.1, "rescale": False},
}
RADIUS = 8 / 255
# Of PGD: short of the ball's edge, so that another step leads elsewhere.
SETTINGS = {"step": "1/255", "steps": 4, "queries": 40}


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(0.2, 0.8, (5, 4, 4, 1)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)
    logits = lambda x: jnp.tanh(x.reshape(5, -1) - 0.5) @ weights  # noqa: E731
    return logits, images, jnp.argmax(logits(images), axis=-1), jax.random.split(jax.random.key(0), 5)


def attacked(entry, case, settings, **how):
    logits, images, labels, keys = case
    model = Classifier(logits, labels)
    loss = model if entry.loss == CLASSIFIER else model.named(entry.loss_for(3))
    at = entry.at(settings, RADIUS, **how)
    return jax.jit(lambda at: entry.run(loss, images, keys, at))(at)


def changed(settings, **values):
    fields = {field.name for field in dataclasses.fields(settings)}
    return dataclasses.replace(settings, **{name: value for name, value in values.items() if name in fields})


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, field.name) for name, entry in ATTACKS.items() for field in dataclasses.fields(entry.settings)],
)
def test_each_setting_of_each_attack_reaches_it(name, setting, case):
    entry = ATTACKS[name]
    settings = changed(entry.settings, **SETTINGS)
    first = attacked(entry, case, settings)
    assert 0 < float(first.norm.max()) <= RADIUS + 1e-6
    # What FAB does not break comes back clean.
    assert float((first.loss - first.clean_loss)[first.success | (name != "fab_t")].min()) > 0
    settings = dataclasses.replace(settings, **{setting: OTHER[setting]})
    if setting == "targets":  # of three classes the nearest breaks what either can
        assert entry.at(settings, RADIUS).targets == OTHER[setting]
        return
    other = attacked(entry, case, settings)
    assert not np.array_equal(first.trace, other.trace)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        pytest.param(name, field.name, marks=[pytest.mark.slow] * (name == "sga"))
        for name, entry in RECIPES.items()
        if entry.settings
        for field in dataclasses.fields(entry.settings)
        if field.name not in entry.on_host
    ],
)
def test_each_setting_of_each_recipe_reaches_it(name, setting):
    images, rows, keys = joint.inputs()

    def crafted(settings):
        options = {key: value for key, value in vars(settings).items() if key not in RECIPES[name].on_host}
        craft = functools.partial(RECIPES[name].craft, **options)
        target = joint.target() if RECIPES[name].needs_target else None
        return joint.craft(joint.params(), images, rows, keys, joint.PGD, joint.TABLE, craft, target=target)

    settings = RECIPES[name].settings
    first, other = crafted(settings), crafted(dataclasses.replace(settings, **{setting: OTHER[setting]}))
    assert not np.array_equal(first.image.images, other.image.images)


def test_the_library_has_each_recipe_that_attacks_under_its_name():
    attacks = {name for name, entry in RECIPES.items() if entry.kind == "attack"}
    # Rewritten captions alone are text_only with other texts.
    assert attacks - {"keywords", "captions"} == set(pairs.RECIPES)


def own(loss_fn, images, keys, at):
    del loss_fn, keys
    return images + at.epsilon


def test_an_attack_of_ones_own_has_its_settings_at_a_radius_and_refuses_the_rest():
    entry = Attack("own", "Own", own)
    at = entry.at(None, "8/255")
    assert isinstance(at, OwnAttack)
    traced = jax.jit(lambda at: entry.run(None, jnp.zeros(()), None, at))
    assert float(traced(at)) == pytest.approx(8 / 255)
    assert float(traced(at.with_epsilon(0.5))) == 0.5
    assert traced._cache_size() == 1
    with pytest.raises(ConfigError, match=r"evaluate\.restarts = 2: expected 1 with the attack 'own'"):
        entry.check(None, restarts=2, prefix="evaluate")
    with pytest.raises(ConfigError, match="'linf' with the attack 'own'"):
        entry.at(None, 0.1, norm="l2")
    with pytest.raises(ConfigError, match="Divide by 255"):
        entry.at(None, 8)


def test_the_loss_of_an_attack_fits_the_labels():
    assert [ATTACKS["apgd_dlr"].loss_for(classes) for classes in (2, 3)] == ["margin", "dlr"]
    assert ATTACKS["pgd"].loss_for(2, multi_label=True) == "binary_cross_entropy"
    with pytest.raises(ConfigError, match="takes one label an image"):
        ATTACKS["apgd_dlr"].loss_for(4, multi_label=True)
