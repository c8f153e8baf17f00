"""Targeted runs of a classifier, presets by name, and what is given per example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import apgd, jitted, losses, minimal_norm, pgd, presets, transforms

PARAMS, IMAGES, KEYS = toy.make_params(), toy.make_images(), toy.make_keys()
LABELS = toy.labels_of(PARAMS, IMAGES)
TARGETS = (LABELS + 1) % toy.CLASSES


def reached(result):
    return np.asarray(toy.labels_of(PARAMS, result.images) == TARGETS)


# the iterate that reaches its target is the one that is kept, and success says so; plainly, and under random draws
@pytest.mark.parametrize(
    "attack",
    [
        lambda loss: pgd.pgd(loss, IMAGES, KEYS, pgd.PGD(0.4, 0.1, 8, targeted=True)),
        lambda loss: pgd.pgd(loss, IMAGES, KEYS, pgd.PGD(0.4, 0.1, 8, restarts=2, targeted=True)),
        lambda loss: apgd.apgd(loss, IMAGES, KEYS, apgd.APGD(0.4, 8, targeted=True)),
        lambda loss: pgd.pgd(
            transforms.scaled(loss, (1.0, 0.75), noise=0.0), IMAGES, KEYS, pgd.PGD(0.4, 0.1, 8, targeted=True)
        ),
    ],
    ids=["pgd", "restarts", "apgd", "scaled"],
)
def test_a_targeted_run_keeps_what_reaches_its_target(attack):
    result = jax.jit(lambda targets: attack(lambda x: toy.loss(PARAMS, x, targets)))(TARGETS)
    np.testing.assert_array_equal(result.success, reached(result))
    assert reached(result).mean() > 0.6
    assert not np.any(result.clean_success)
    assert np.all(result.norm <= 0.4 + 1e-6)


# parts that state no success: the last iterate may be the best one, as in the run on the negated loss
def test_targeted_sums_without_success():
    @jax.jit
    def both(images, keys):
        def one(sign, targeted):
            loss = transforms.scaled(lambda x: sign * toy.loss(PARAMS, x, TARGETS)[0], (1.0, 0.5), noise=0.0)
            return pgd.pgd(loss, images, keys, pgd.PGD(0.1, 0.03, 3, targeted=targeted))

        return one(1, True), one(-1, False)

    down, up = both(IMAGES, KEYS)
    np.testing.assert_array_equal(down.images, up.images)
    assert down.success is None


@pytest.mark.parametrize("name", ["coattack", "autoattack-lite"])
def test_a_preset_runs_by_its_name(name):
    preset = presets.get(name)
    loss = lambda params, images, labels: toy.loss(params, images, labels)[0]  # noqa: E731
    result = preset.with_epsilon("4/255").jitted(loss)(PARAMS, IMAGES, KEYS, LABELS)
    assert result.norm.max() <= 4 / 255 + 1e-6
    assert result.loss.mean() > result.clean_loss.mean()


# labels that are no classes are refused, not read from the end of the row
def test_labels_are_refused():
    of = lambda labels: losses.of_classifier(lambda x: toy.logits(PARAMS, x), labels)(jnp.asarray(IMAGES))  # noqa: E731
    for labels, words in (
        (LABELS - 5, r"labels lie in -. to -1, expected 0 to 4"),
        (LABELS.astype(np.float32), r"labels are float32 of shape \(12,\), expected integers of shape \(12,\)"),
        (LABELS[:3], r"labels are int32 of shape \(3,\)"),
        (np.zeros((12, 3)), "Labels of two axes are multi-hot"),
    ):
        with pytest.raises(ValueError, match=words):
            of(labels)
    traced = jax.jit(lambda labels: losses.cross_entropy(toy.logits(PARAMS, jnp.asarray(IMAGES)), labels))
    assert np.all(np.isnan(traced(LABELS - 5)))


def test_settings_of_another_attack_are_refused():
    loss = lambda x: toy.loss(PARAMS, x, LABELS)  # noqa: E731
    for run, words in (
        (lambda: pgd.pgd(loss, IMAGES, KEYS, apgd.APGD(0.1)), "APGD.*a pgd.PGD"),
        (lambda: apgd.apgd(loss, IMAGES, KEYS, pgd.fgsm(0.1)), "PGD.*an apgd.APGD"),
        (lambda: jitted(toy.loss, presets.get("sga")), "Preset.*pass its .settings"),
        (lambda: pgd.pgd(loss, IMAGES, KEYS, pgd.fgsm(0.1), initial=IMAGES[:3]), "initial has shape"),
        (lambda: minimal_norm(loss, IMAGES, KEYS, pgd.fgsm(0.1), "8/255"), "epsilons = '8/255'.* a list"),
        (lambda: pgd.PGD(0.1, 0.1, 1, momentum="1"), "momentum = '1'"),
    ):
        with pytest.raises(ValueError, match=words):
            run()
    # the step grows with the radius, at most to the side of the box
    assert pgd.PGD("8/255", 0.5, 1).with_epsilon(1.0).step_size == 1
    assert pgd.fgsm(np.array([0.0, 0.1]).reshape(2, 1, 1, 1)).step_size.ravel().tolist() == [1.0, 0.1]
