"""The attack handle of heads: end to end through filter and encoder, on the head as it stands."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.methods import METHODS, Examples, Fit, encoder_attack, fit_method, linear_solution
from ranjax.models import input_filter

RADIUS = 0.1


class Encoder:
    """A linear map with a bend, behind a filter where the parameters hold one."""

    config = types.SimpleNamespace(embed_dim=6)

    def image_features(self, params, images):
        if input_filter.NAME in params:
            images = input_filter.apply(params[input_filter.NAME], images)
        return jnp.tanh(images.reshape(images.shape[0], -1) @ params["kernel"])


def make(filtered=False):
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(64, 6)) / 8, jnp.float32)}
    if filtered:
        params[input_filter.NAME] = input_filter.gaussian(1.0)
    splits = []
    for count in (48, 32):
        labels = np.arange(count, dtype=np.int32) % 3
        bright = 0.3 * np.eye(8)[2 * labels][:, :, None, None] * np.ones((1, 1, 8, 1))
        splits.append(((0.4 + bright + rng.uniform(0, 0.2, (count, 8, 8, 1))).astype(np.float32), labels))
    return Encoder(), params, splits


def examples(encoder, params, splits):
    return [Examples(np.asarray(encoder.image_features(params, jnp.asarray(x))), y) for x, y in splits]


@pytest.mark.parametrize("filtered", [False, True])
def test_the_features_are_those_of_images_in_the_ball_that_the_head_gets_wrong(filtered):
    encoder, params, splits = make(filtered)
    train, validation = examples(encoder, params, splits)
    attack = encoder_attack(encoder, params, *splits, epsilon=RADIUS, step=RADIUS / 4, steps=8)
    found = fit_method(
        METHODS["ridge"], METHODS["ridge"].settings, train, validation, classes=3, seeds=[0], shared=Fit()
    )
    head = found.select(0, 0)["params"]

    def right(features):
        return float(
            np.mean(np.asarray(linear_solution.predict(head, jnp.asarray(features))).argmax(1) == splits[1][1])
        )

    moved = attack(linear_solution.predict, head, "validation", None, "margin")
    assert right(validation.features) > 0.9
    assert right(moved) < right(validation.features) - 0.3
    # No image of the ball, however chosen at random, does as much as the gradient through the filter.
    noise = RADIUS * np.sign(np.random.default_rng(1).normal(size=splits[1][0].shape)).astype(np.float32)
    shifted = encoder.image_features(params, jnp.clip(splits[1][0] + noise, 0, 1))
    assert right(moved) < right(np.asarray(shifted))
    rows = np.array([3, 5])
    np.testing.assert_allclose(
        attack(linear_solution.predict, head, "validation", rows, "margin"), moved[rows], rtol=1e-5, atol=1e-6
    )


def test_the_robust_ridge_stands_where_the_plain_one_falls():
    encoder, params, splits = make()
    train, validation = examples(encoder, params, splits)
    shared = Fit(attack=encoder_attack(encoder, params, *splits, epsilon=RADIUS, step=RADIUS / 4, steps=8))
    robust = dataclasses.replace(METHODS["robust_ridge"].settings, penalties=(0.3, 1.0, 10.0), mus=(0.0, 1.0, 3.0))
    both = [
        fit_method(METHODS[name], settings, train, validation, classes=3, seeds=[0], shared=shared)
        for name, settings in (("ridge", METHODS["ridge"].settings), ("robust_ridge", robust))
    ]

    def standing(found):
        head = found.select(0, 0)["params"]
        moved = shared.attack(linear_solution.predict, head, "validation", None, "margin")
        return float(np.mean(np.asarray(linear_solution.predict(head, jnp.asarray(moved))).argmax(1) == splits[1][1]))

    assert both[1].facts["validation_attacked"] == pytest.approx(standing(both[1]))
    assert standing(both[1]) >= standing(both[0])


def test_what_does_not_fit_is_refused_in_one_line():
    encoder, params, splits = make()
    attack = encoder_attack(encoder, params, *splits)
    with pytest.raises(ConfigError, match=r"split = 'test': expected one of train, validation"):
        attack(linear_solution.predict, {}, "test")
    with pytest.raises(ConfigError, match="'embedding' with an encoder that has no"):
        encoder_attack(encoder, params, *splits, features="tokens")
    with pytest.raises(DataError, match="train has 48 images and 32 labels"):
        encoder_attack(encoder, params, (splits[0][0], splits[1][1]), splits[1])


def test_multi_hot_labels_are_attacked_by_binary_cross_entropy():
    encoder, params, splits = make()
    hot = [(x, np.eye(3, dtype=np.float32)[y]) for x, y in splits]
    shared = Fit(multi_label=True, attack=encoder_attack(encoder, params, *hot, epsilon=RADIUS))
    settings = dataclasses.replace(METHODS["robust_ridge"].settings, penalties=(1.0,), mus=(1.0,), rounds=1)
    given = [Examples(one.features, y) for one, (_, y) in zip(examples(encoder, params, splits), hot)]
    balanced = dataclasses.replace(shared, class_weights="balanced")
    kernels = []
    for each in (shared, balanced):
        found = fit_method(METHODS["robust_ridge"], settings, *given, classes=3, seeds=[0], shared=each)
        kernels.append(np.asarray(found.select(0, 0)["params"]["classifier"]["kernel"]))
        assert np.isfinite(kernels[-1]).all()
    assert not np.allclose(*kernels)
    assert jax.tree.structure(found.select(0, 0)["params"]) == jax.tree.structure(
        {"classifier": {"bias": 0, "kernel": 0}}
    )
