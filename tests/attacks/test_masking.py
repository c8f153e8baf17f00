"""The masking check: silent on an honest classifier, and loud on each way of hiding gradients."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import ATTACKS, masking, pgd
from ranjax.core.pixels import to_uint8

IMAGES, KEYS = toy.make_images(24), toy.make_keys(24)
LABELS = np.array(toy.labels_of(toy.make_params(), IMAGES))
SETTINGS = pgd.PGD("32/255", "8/255", 10)
KINDS = ("honest", "probabilities", "quantised")
calls = iter(range(1000))


def logits_fn(params, images):
    """One function for all kinds of model, so that the check compiles once; `random` scales noise drawn on the host."""
    kinds = (
        toy.logits,
        lambda p, x: jax.nn.softmax(toy.logits(p, x)),
        # Sees 16 grey levels, and its gradient is 0 everywhere.
        lambda p, x: toy.logits(p, jax.lax.stop_gradient(jnp.round(x * 15) / 15) + 0 * x),
    )
    return jax.lax.switch(params["kind"], kinds, params["toy"], images) + params["random"] * next(calls)


def params_of(kind, random=0.0):
    return {"kind": jnp.int32(KINDS.index(kind)), "toy": toy.make_params(), "random": jnp.float32(random)}


def inspect(kind, labels=LABELS, random=0.0, **more):
    return masking.check(logits_fn, params_of(kind, random), IMAGES, labels, KEYS, SETTINGS, queries=100, **more)


def failed(report):
    return {finding.name for finding in report.findings if not finding.passed}


@pytest.fixture(scope="module")
def honest():
    labels = LABELS.copy()
    labels[:3] = (labels[:3] + 1) % toy.CLASSES  # three images are wrong before any attack
    return inspect("honest", labels)


def test_an_honest_classifier_passes(honest):
    assert failed(honest) == set()
    assert honest.verdict == "no sign of gradient masking in 7 checks"
    assert "robust accuracy" in str(honest)
    assert honest.robust_accuracy < honest.clean_accuracy


# images that are wrong before the attack are no merit of the attack
def test_wrong_images_are_not_counted_as_broken(honest):
    assert honest.clean_accuracy == 21 / 24
    assert honest.broken <= 21
    assert honest.robust_accuracy <= (21 - honest.broken) / 24 + 1e-9


WEIGHTS = np.random.default_rng(5).normal(size=(16, 3)).astype(np.float32)
SEVERAL = ("linear", "sigmoid", "quantised", "saturated", "one class hidden")


def several_logits(kind, images):
    """Any of 3 classes may be right: honest, and each way of hiding gradients."""
    linear = lambda x: (x.reshape(len(x), -1) - 0.5) @ WEIGHTS  # noqa: E731
    coarse = lambda x: linear(jax.lax.stop_gradient(jnp.round(x * 15) / 15) + 0 * x)  # noqa: E731
    kinds = (
        linear,
        lambda x: jax.nn.sigmoid(linear(x)),
        coarse,
        # The sigmoid is 0 or 1 to the last bit, so is the label, and nothing is left to follow.
        lambda x: 1e4 * linear(x),
        lambda x: jnp.concatenate([coarse(x)[:, :1], 20 + 0.1 * linear(x)[:, 1:]], axis=1),
    )
    return jax.lax.switch(kind, kinds, images)


def inspect_several(kind, **more):
    number = jnp.int32(SEVERAL.index(kind))
    hot = np.asarray(several_logits(number, jnp.asarray(IMAGES))) > 0
    hot[:2, 0] ^= True  # two images are wrong before any attack, in one class of three
    return masking.check(several_logits, number, IMAGES, hot, KEYS, SETTINGS, queries=100, **more), hot


# a linear classifier of several labels is honest, and how far each image is from being told wrongly is known
def test_several_labels_of_a_linear_classifier_pass():
    report, hot = inspect_several("linear")
    assert failed(report) == set()
    signs = np.where(hot, -1.0, 1.0)
    # The furthest that the ball and [0, 1] let each class move: no attack can do more.
    room = np.stack([(IMAGES - 32 / 255).clip(0), (IMAGES + 32 / 255).clip(max=1)]).reshape(2, len(IMAGES), 16, 1)
    reach = ((room - 0.5) * (signs[:, None] * WEIGHTS)).max(0).sum(1)
    surely = (reach < 0).all(1).mean()
    assert report.clean_accuracy == 22 / 24
    assert surely <= report.robust_accuracy < 22 / 24
    # The mean over classes is raised, not the worst class: what is missed by that is seldom.
    assert report.robust_accuracy - surely <= 2 / 24


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("sigmoid", {"outputs are logits, not probabilities"}),
        ("quantised", {"no gradient is exactly 0", "a random search never beats the gradient"}),
        ("saturated", {"no gradient is exactly 0", "a random search never beats the gradient"}),
        # Two classes are too sure to be moved and still have gradients; the third has none, and is easily moved.
        ("one class hidden", {"a random search never beats the gradient"}),
    ],
)
def test_several_labels_behind_hidden_gradients_fail(kind, wanted):
    report, _ = inspect_several(kind)
    assert wanted <= failed(report)
    assert report.verdict.startswith("not to be trusted as robustness")


def loud(scale, images):
    """A linear classifier of 4 classes, which hides nothing however large its logits are."""
    weights = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    return scale * ((images.reshape(len(images), -1) - 0.5) @ weights)


# So large that the cross-entropy is 0 to the last bit: a figure of it alone says nothing, and one that stands on the
# margin, too, is sound.
def test_a_linear_model_of_large_logits_hides_nothing():
    labels = np.asarray(loud(jnp.float32(1), jnp.asarray(IMAGES))).argmax(-1)
    settings = SETTINGS.with_epsilon("4/255")
    alone, more = (
        masking.check(loud, jnp.float32(1000), IMAGES, labels, KEYS, settings, queries=100, other_losses=other_losses)
        for other_losses in (False, True)
    )
    assert "no gradient is exactly 0" in failed(alone)
    assert "accuracy is 0 at a huge epsilon" not in failed(alone)
    assert failed(more) == set()
    assert more.saturated
    assert more.robust_accuracy < alone.robust_accuracy + 1e-9
    assert f"saturated on {more.saturated} images" in more.verdict


# images moved on an honest model break the coarse one, every label counting
def test_transferred_images_count_every_label():
    moved = np.clip(IMAGES + 32 / 255 * np.sign(np.random.default_rng(0).normal(size=IMAGES.shape)), 0, 1)
    report, hot = inspect_several("quantised", transferred=moved.astype(np.float32))
    told = np.asarray(several_logits(jnp.int32(2), jnp.asarray(moved, jnp.float32))) > 0
    assert (told != hot)[2:].any()
    assert "transferred images never beat the gradient" in failed(report)


# probabilities instead of logits
def test_probabilities_are_flagged():
    report = inspect("probabilities")
    assert "outputs are logits, not probabilities" in failed(report)
    assert "rows sum to 1" in report.verdict


# a randomised model: two calls differ
def test_random_models_are_flagged():
    report = inspect("honest", random=0.5)
    assert "two calls agree" in failed(report)
    assert "transforms.expectation" in report.verdict


# zero gradients counted; a quantised model is masked, not robust: gradients fail where transferred images and a random
# search succeed
def test_quantised_model_is_masked_not_robust():
    run, _ = masking._programs(logits_fn, 100, "linf", pgd.pgd)
    moved = run(params_of("honest"), IMAGES, KEYS, jnp.asarray(LABELS), SETTINGS).images
    right = np.asarray(logits_fn(params_of("quantised"), jnp.asarray(IMAGES))).argmax(-1) == LABELS
    report = inspect("quantised", transferred=moved)
    assert report.masked
    assert {
        "no gradient is exactly 0",
        "a random search never beats the gradient",
        "transferred images never beat the gradient",
        "accuracy is 0 at a huge epsilon",
    } <= failed(report)
    assert f"{right.sum()} of {right.sum()} right images" in report.verdict
    assert report.robust_accuracy < report.clean_accuracy  # the worst case, not what the gradients found
    assert report.verdict.startswith("not to be trusted as robustness")


@pytest.mark.parametrize(("name", "loss"), [("apgd_t", "classifier"), ("square", "")])
def test_attacks_that_make_losses_of_their_own_and_those_without_gradients_are_checked_alike(name, loss):
    entry = ATTACKS[name]
    settings = entry.at(
        dataclasses.replace(entry.settings, **{"apgd_t": {"steps": 8}, "square": {"queries": 90}}[name]), 32 / 255
    )
    more = {"attack": entry.run, "loss": loss, "queries": 90}
    report = masking.check(logits_fn, params_of("quantised"), IMAGES, LABELS, KEYS, settings, **more)
    assert "no gradient is exactly 0" in failed(report)
    report = masking.check(logits_fn, params_of("honest"), IMAGES, LABELS, KEYS, settings, **more)
    assert "no gradient is exactly 0" not in failed(report)


# a second check of the same model does not compile again
def test_programs_are_kept():
    one, other = (masking._programs(logits_fn, 100, "linf", pgd.pgd) for _ in range(2))
    assert one is other


# rounding to 8 bits stays within epsilon + 0.5 / 255
def test_rounding_to_8_bits():
    moved = np.clip(IMAGES + np.float32(8 / 255), 0, 1)
    rounded = to_uint8(np.asarray(moved))
    assert rounded.dtype == np.uint8
    assert np.abs(rounded / 255 - IMAGES).max() <= 8.5 / 255 + 1e-6


def test_refusals():
    with pytest.raises(ValueError, match="targeted"):
        masking.check(toy.logits, toy.make_params(), IMAGES, LABELS, KEYS, pgd.PGD(0.1, 0.1, 1, targeted=True))
    with pytest.raises(ValueError, match="epsilon = 0"):
        masking.check(toy.logits, toy.make_params(), IMAGES, LABELS, KEYS, pgd.PGD(0.0, 0.1, 1))
    with pytest.raises(ValueError, match="one per image"):
        masking.check(toy.logits, toy.make_params(), IMAGES, LABELS[:2], KEYS, SETTINGS)
    hot = np.zeros((24, 3))
    with pytest.raises(ValueError, match=r"labels have shape \(24, 3\), the logits \(24, 5\)"):
        masking.check(toy.logits, toy.make_params(), IMAGES, hot, KEYS, SETTINGS)
    with pytest.raises(ValueError, match=r"labels hold 0\.5, expected 0 or 1 in multi-hot ones"):
        masking.check(toy.logits, toy.make_params(), IMAGES, hot + 0.5, KEYS, SETTINGS)
    with pytest.raises(ValueError, match="off by up to"):
        masking._transferred_wrong(toy.logits, toy.make_params(), jnp.asarray(IMAGES), LABELS, 1 - IMAGES, SETTINGS)
