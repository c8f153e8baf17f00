"""What an attack refuses, with the words that say what is allowed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_images as toy

from ranjax.attacks import apgd, input_checks, jitted, pgd, presets, transforms
from ranjax.core.pixels import pixel_units

IMAGES = toy.make_images(3)
KEYS = toy.make_keys(3)


def total(images):
    return jnp.sum(images, axis=(1, 2, 3))


# inputs outside [0, 1], NaN, integers, half precision, wrong rank, empty
@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((IMAGES - 0.5) / 0.25, r"lie in \[-2, 2\], expected \[0, 1\]\. Normalisation .* belongs to the model"),
        (np.where(IMAGES > 2, 0, np.float32(np.nan)), r"hold NaN, in rows \[0, 1, 2\]"),
        ((IMAGES * 255).astype(np.uint8), "dtype uint8, expected float32 or float64 .* Divide by 255"),
        (IMAGES.astype(np.float16), "dtype float16"),
        (IMAGES[0, 0, :, 0], r"shape \(4,\), expected a batch axis .* images\[None\]"),
        (IMAGES[:0], "nothing to attack"),
    ],
)
def test_images_are_refused(images, words):
    with pytest.raises(ValueError, match=words):
        pgd.pgd(total, images, KEYS, pgd.bim(0.1, 0.1, 1))
    with pytest.raises(ValueError, match=words):
        jitted(lambda _, x: total(x), pgd.bim(0.1, 0.1, 1))((), images, KEYS)


def test_rank_on_request():
    assert input_checks.validate_images(IMAGES, rank=4).shape == IMAGES.shape
    with pytest.raises(ValueError, match="expected 4 axes"):
        input_checks.validate_images(IMAGES[0], rank=4)


def test_keys_are_one_per_example():
    for keys in (jax.random.key(0), KEYS[:2], jax.random.PRNGKey(0), 0):
        with pytest.raises(ValueError, match=r"typed keys of shape \(3,\), one per example"):
            pgd.pgd(total, IMAGES, keys, pgd.bim(0.1, 0.1, 1))


# arguments: each refusal names the key, the value and what is allowed
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"epsilon": -0.1}, "epsilon = -0.1: expected 0 or more"),
        ({"epsilon": 8}, "epsilon = 8: expected at most 1.* Written in 0-255"),
        ({"epsilon": "8/0"}, "epsilon = '8/0': expected a number in pixel units"),
        ({"epsilon": "eight"}, "'8/255'"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"epsilon": np.array([[-0.1]])}, "0 or more"),
        ({"step_size": 0}, "step_size = 0: expected above 0"),
        ({"step_size": 2}, "Written in 0-255"),
        ({"steps": -1}, "steps = -1: expected an integer, 0 or more"),
        ({"norm": "l3"}, "norm = 'l3': expected one of linf, l2"),
        ({"start": "unifrom"}, "did you mean 'uniform'"),
        ({"keep": "first"}, "one of best, last, best_batch"),
        ({"restarts": 0}, "restarts = 0: expected an integer, 1 or more"),
        ({"restarts": 2, "start": "none"}, "1 where start is 'none'"),
        ({"momentum": -1.0}, "momentum"),
    ],
)
def test_settings_are_refused(more, words):
    with pytest.raises(ValueError, match=words):
        pgd.PGD(**({"epsilon": 0.1, "step_size": 0.1, "steps": 1} | more))


@pytest.mark.usefixtures("unchecked")
def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword"):
        pgd.PGD(0.1, 0.1, 1, radius=2)
    with pytest.raises(ValueError, match="steps"):
        pgd.PGD(0.1, 0.1, steps=1.5)
    with pytest.raises(ValueError, match="rho = 1"):
        apgd.APGD(0.1, rho=1)
    with pytest.raises(ValueError, match="probability = 2"):
        transforms.diverse(total, probability=2)
    with pytest.raises(ValueError, match="scales"):
        transforms.scaled(total, scales=())
    with pytest.raises(ValueError, match="samples = 0"):
        transforms.expectation(total, 0)
    with pytest.raises(ValueError, match="did you mean 'tecoa'"):
        presets.get("tekoa")
    with pytest.raises(ValueError, match="a number above 0, to scale the step by"):
        pgd.PGD(0.0, 0.1, 1).with_epsilon(0.1)
    with pytest.raises(ValueError, match=r"gave shape \(\), expected one loss per example"):
        pgd.pgd(jnp.sum, IMAGES, KEYS, pgd.bim(0.1, 0.1, 1))


def test_an_l2_radius_beyond_every_image_is_refused():
    root = IMAGES[0].size ** 0.5
    each = np.full((len(IMAGES), 1, 1, 1), 1.01 * root, np.float32)
    for radius in (1.01 * root, each):
        with pytest.raises(ValueError, match=rf"(?s)epsilon = .*at most {root:.4g}, the root of an image's"):
            pgd.pgd(total, IMAGES, KEYS, pgd.PGD(radius, 0.1, 1, norm="l2"))
    with pytest.raises(ValueError, match="Written in 0-255"):
        apgd.apgd(total, IMAGES, KEYS, apgd.APGD(255.0, norm="l2"))
    pgd.pgd(total, IMAGES, KEYS, pgd.PGD(0.999 * root, 0.1, 1, norm="l2"))


# an L2 radius above 1 is no mistake; strings and fractions are lengths
def test_lengths():
    assert pgd.PGD(3, 1.5, 1, norm="l2").epsilon == 3
    assert pixel_units("8/255") == 8 / 255
    assert pixel_units(" 0.5 ") == 0.5
    assert pixel_units(np.float32(0.5)) == 0.5
    assert hash(pgd.PGD("8/255", "2/255", 10)) == hash(pgd.PGD(8 / 255, 2 / 255, 10))
    assert "epsilon=0.1" in repr(pgd.PGD(0.1, 0.1, 1))
