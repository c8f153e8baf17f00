"""Corruptions against closed forms, and the test-time counterattack on a linear encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import artefacts, corruptions, modalities
from ranjax.methods.method_settings import TTC
from ranjax.methods.test_time import counterattack


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(rng.random((4, 28, 36, 1)), (0, 2, 2, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth) * 0.8 + 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 4)


@pytest.fixture(scope="module")
def corrupted(images, keys):
    run = jax.jit(lambda x, k: {n: [corruptions.corrupt(n, s, x, k) for s in range(6)] for n in corruptions.NAMES})
    return jax.tree.map(np.asarray, run(images, keys))


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_severity_rises_from_nothing_within_the_range(corrupted, images, name):
    np.testing.assert_array_equal(corrupted[name][0], images)
    distance = [np.abs(x - images).mean() for x in corrupted[name]]
    assert (np.diff(distance) > 0).all()
    for x in corrupted[name]:
        assert x.shape == images.shape
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1


@pytest.fixture(scope="module")
def artefacts_of(images, keys):
    kinds = [name for name in corruptions.LEVELS if name not in corruptions.NAMES]
    run = jax.jit(lambda x, k: {n: [corruptions.corrupt(n, s, x, k) for s in (1, 3, 5)] for n in kinds})
    return jax.tree.map(np.asarray, run(images, keys))


@pytest.mark.slow  # some 30 small kernels to compile
def test_artefacts_of_modalities_rise_within_the_range_and_are_what_they_say(artefacts_of, images, keys):
    for name, changed in artefacts_of.items():
        distance = [np.abs(x - images).mean() for x in changed]
        assert (np.diff([0, *distance]) > 0).all(), name
        assert all(x.shape == images.shape and x.min() >= 0 and x.max() <= 1 for x in changed), name
    share = (np.abs(artefacts_of["impulse"][2] - images) > 0).mean()
    assert share == pytest.approx(corruptions.LEVELS["impulse"][4], abs=0.02)
    # A smooth field: the ratio to the image is log-quadratic in both places.
    ratio = np.log(np.asarray(artefacts.bias_field(jnp.full((4, 28, 36, 1), 0.5), keys, 0.3))[0, :, :, 0] / 0.5)
    assert np.abs(ratio).max() == pytest.approx(0.3, rel=1e-4)
    assert np.abs(np.diff(ratio, n=3, axis=0)).max() < 1e-4
    ghost = artefacts_of["ghosting"][1][0]
    level = corruptions.LEVELS["ghosting"][2]
    moved = [sum(np.roll(images[0], k * (images.shape[a + 1] // 3), a) for k in (1, 2)) / 2 for a in (0, 1)]
    wanted = [(1 - level) * images[0] + level * one for one in moved]
    assert min(np.abs(ghost - one).max() for one in wanted) < 1e-6
    # Every pixel of a ring is moved by as much.
    change = (artefacts_of["rings"][0] - images)[1, :, :, 0]
    np.testing.assert_allclose(change, change[::-1, ::-1], atol=1e-6)
    assert set(corruptions.LEVELS) == {kind for kinds in modalities.MODALITIES.values() for kind in kinds}


def test_the_modality_is_read_from_classes_and_reports():
    assert modalities.modalities_of(["CT Head", "MR Head", "CT Chest"]) == ("ct", "mr")
    assert modalities.modalities_of(["Frontal radiograph of the chest."] * 9 + ["Compare with CT."]) == ("xray",)
    assert modalities.modalities_of(["effusion", "direct"]) == ()
    assert modalities.kinds_of(()) == corruptions.NAMES
    assert modalities.kinds_of(("ct", "mr"))[:3] == ("noise", "shot", "rings")


def test_each_kind_is_what_it_says(corrupted, images):
    level = {name: levels[2] for name, levels in corruptions.LEVELS.items()}
    mean = images.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(corrupted["contrast"][3], mean + level["contrast"] * (images - mean), atol=1e-6)

    gamma = np.log(corrupted["exposure"][3][:, 3, 3, 0]) / np.log(images[:, 3, 3, 0])
    assert all(min(abs(g - level["exposure"]), abs(g - 1 / level["exposure"])) < 1e-3 for g in gamma)

    added = corruptions.noise(jnp.full((4, 28, 36, 1), 0.5), jax.random.split(jax.random.key(1), 4), 0.1) - 0.5
    assert float(added.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(added.mean())) < 0.01

    sigma = level["blur"] * 36
    wanted = scipy.ndimage.gaussian_filter(
        images, (0, sigma, sigma, 0), mode="nearest", radius=(0, int(np.ceil(3 * sigma)), int(np.ceil(3 * sigma)), 0)
    )
    np.testing.assert_allclose(corrupted["blur"][3], wanted, atol=1e-5)


def test_jpeg_blocks_equal_a_cosine_transform_by_another_library(images):
    """One 8 x 8 block at quality 50, whose table is the standard one itself."""
    block = images[:1, :8, :8]
    found = np.asarray(corruptions.jpeg(jnp.asarray(block), jax.random.split(jax.random.key(0), 1), 50.0))[0, :, :, 0]
    coefficients = scipy.fft.dctn(block[0, :, :, 0] * 255 - 128, norm="ortho")
    table = corruptions._QUANTISATION
    wanted = np.round(scipy.fft.idctn(np.round(coefficients / table) * table, norm="ortho") + 128) / 255
    np.testing.assert_allclose(found, wanted, atol=1.01 / 255)
    assert (np.abs(found - wanted) < 1e-6).mean() > 0.9


def test_an_example_does_not_depend_on_its_batch(corrupted, images, keys):
    one = jax.jit(lambda x, k: corruptions.corrupt("noise", 2, x, k))(images[2:3], keys[2:3])
    np.testing.assert_array_equal(one[0], corrupted["noise"][2][2])


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(images, keys):
    with pytest.raises(ConfigError, match="did you mean 'blur'"):
        corruptions.corrupt("blurr", 1, images, keys)
    with pytest.raises(ConfigError, match="severity"):
        corruptions.corrupt("blur", 6, images, keys)
    with pytest.raises(DataError, match=r"\[B, H, W, C\]"):
        corruptions.corrupt("blur", 1, images[0], keys)
    for name, value in (("epsilon", -0.1), ("step", -0.1), ("steps", -1), ("threshold", -1.0), ("beta", np.nan)):
        with pytest.raises(ConfigError, match=f"settings.{name} = {value}"):
            counterattack(lambda x: x.reshape(4, -1), images, keys, TTC(**{name: value}))
    with pytest.raises(DataError, match="one per image"):
        counterattack(lambda x: x.reshape(4, -1), images, keys[:2], TTC())


def test_counterattack_on_a_linear_encoder(images, keys):
    """The iterates, their weights and the threshold, against the definition written out in NumPy."""
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(rng.normal(size=(1008, 6)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=2)
    def run(x, k, threshold):
        def defend(y):
            settings = TTC(epsilon=0.04, step=0.01, steps=2, beta=2.0, threshold=threshold)
            return counterattack(lambda v: v.reshape(v.shape[0], -1) @ matrix, y, k, settings)

        return defend(x), jax.grad(lambda y: jnp.sum(defend(y).images * 3.0))(x)

    plain, _ = run(images, keys, 0.0)
    assert not plain.pushed.any()
    noise = np.asarray(plain.images) - images
    assert 0.039 < np.abs(noise).max() <= 0.04 + 1e-6
    shift = noise.reshape(4, -1) @ np.asarray(matrix)
    length = np.linalg.norm(images.reshape(4, -1) @ np.asarray(matrix), axis=1)
    np.testing.assert_allclose(plain.tau, np.linalg.norm(shift, axis=1) / length, rtol=1e-3)

    found, passed_back = run(images, keys, 1e9)
    assert found.pushed.all()
    np.testing.assert_array_equal(passed_back, np.full_like(images, 3.0))
    delta, iterates = noise, [noise]
    for _ in range(2):
        gradient = (delta.reshape(4, -1) @ np.asarray(matrix) @ np.asarray(matrix).T).reshape(images.shape)
        delta = np.clip(images + np.clip(delta + 0.01 * np.sign(gradient), -0.04, 0.04), 0, 1) - images
        iterates.append(delta)
    weights = np.exp(2.0 * np.arange(3))
    wanted = images + np.tensordot(weights / weights.sum(), np.stack(iterates), axes=1)
    assert (np.abs(np.asarray(found.images) - wanted) < 1e-5).mean() > 0.995
    moved = np.linalg.norm((np.asarray(found.images) - images).reshape(4, -1) @ np.asarray(matrix), axis=1)
    assert (moved > np.linalg.norm(shift, axis=1)).all()
