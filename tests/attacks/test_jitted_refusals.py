"""What `jitted` and the losses refuse, by its name: labels, one-hot labels, probabilities, other frameworks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import losses
from ranjax.attacks.apgd import APGD, apgd
from ranjax.attacks.compile import jitted
from ranjax.attacks.pgd import PGD, pgd
from ranjax.core.errors import DataError

IMAGES = np.random.default_rng(0).random((5, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 5)
SETTINGS = PGD("8/255", "2/255", 2)


def logits(weights, images):
    return images.reshape(images.shape[0], -1) @ weights


def attack(loss, *rows, images=IMAGES, keys=KEYS):
    return jitted(loss, SETTINGS)(WEIGHTS, images, keys, *rows)


def scored(weights, images, labels):
    found = logits(weights, images)
    return losses.margin(found, labels), jnp.argmax(found, axis=1) != labels


@pytest.mark.parametrize("wrong", [-1, 3, 99])
@pytest.mark.parametrize("number", [1, 5])
def test_labels_that_are_no_class_are_refused_through_jitted(wrong, number):
    labels = np.zeros(5, np.int32)
    labels[:number] = wrong
    for given in (labels, jnp.asarray(labels), labels.tolist()):
        with pytest.raises(DataError, match=r"expected 0 to 2, the classes of the logits\. Rows \[0"):
            attack(scored, given if not isinstance(given, list) else np.asarray(given, np.int32))


def test_right_labels_run_and_later_calls_are_held_too():
    run = jitted(scored, SETTINGS)
    assert run(WEIGHTS, IMAGES, KEYS, np.zeros(5, np.int32)).images.shape == IMAGES.shape
    with pytest.raises(DataError, match="labels lie in"):
        run(WEIGHTS, IMAGES, KEYS, np.full(5, -1, np.int32))


def test_one_hot_labels_are_named():
    with pytest.raises(DataError, match=r"One-hot labels\? Use labels\.argmax"):
        attack(lambda w, x, y: losses.cross_entropy(logits(w, x), y), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]])


def test_probabilities_in_the_place_of_logits_are_named():
    with pytest.raises(DataError, match=r"probabilities\? Give the logits"):
        losses.cross_entropy(jax.nn.softmax(jnp.asarray(WEIGHTS)), np.zeros(16, np.int32))


def softmax(w, x):
    return jax.nn.softmax(logits(w, x))


OUTPUTS = {
    "softmax": softmax,
    "jitted": jax.jit(softmax),
    "mean": lambda w, x: jnp.mean(jnp.stack([softmax(w, x), softmax(2 * w, x)]), axis=0),
    "exp": lambda w, x: jnp.exp(jax.nn.log_softmax(logits(w, x))),
    "smoothed": lambda w, x: 0.9 * softmax(w, x) + 0.1 / 3,
    "scanned": lambda w, x: jax.lax.scan(lambda c, _: (c, softmax(w, x)), 0, None, length=2)[1][0],
    "sigmoid": lambda w, x: jax.nn.sigmoid(logits(w, x)),
}
LABELS = np.array([0, 1, 2, 0, 1], np.int32)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_probabilities_are_named_through_every_way_to_call_an_attack(outputs):
    function = OUTPUTS[outputs]
    for call in (
        lambda: attack(lambda w, x, y: losses.cross_entropy(function(w, x), y), LABELS),
        lambda: SETTINGS(lambda x: function(jnp.asarray(WEIGHTS), x), IMAGES, LABELS),
        lambda: pgd(lambda x: losses.margin(function(WEIGHTS, x), LABELS), IMAGES, KEYS, SETTINGS),
        lambda: apgd(lambda x: losses.margin(function(WEIGHTS, x), LABELS), IMAGES, KEYS, APGD("8/255", steps=2)),
    ):
        with pytest.raises(DataError, match=r"probabilities\? Give the logits"):
            call()


def test_a_sigmoid_in_the_place_of_logits_of_several_labels_is_named():
    loss = lambda w, x, y: losses.binary_cross_entropy(jax.nn.sigmoid(logits(w, x)), y)  # noqa: E731
    with pytest.raises(DataError, match="what a sigmoid gives"):
        attack(loss, np.eye(3, dtype=np.float32)[LABELS])


@pytest.mark.parametrize(
    "function",
    [
        logits,
        lambda w, x: logits(w, x) / 0.5,
        lambda w, x: jax.nn.relu(logits(w, x)),
        lambda w, x: 2 * jnp.tanh(logits(w, x)),
    ],
)
def test_logits_of_any_kind_run(function):
    found = attack(lambda w, x, y: (losses.margin(function(w, x), y), losses.is_wrong(function(w, x), y)), LABELS)
    assert found.images.shape == IMAGES.shape


def test_the_top_class_may_be_told_of_probabilities():
    found = attack(lambda w, x, y: (-logits(w, x)[:, 0], losses.is_wrong(softmax(w, x), y)), LABELS)
    assert found.images.shape == IMAGES.shape


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, x: np.asarray(x).reshape(5, -1).sum(1),
        lambda w, x: jnp.asarray(float(x.sum())) * jnp.ones(5),
    ],
)
def test_a_model_that_is_not_in_jax_is_named(loss):
    with pytest.raises(DataError, match="functions of JAX arrays: no torch"):
        attack(loss)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_their_channels_first_are_named(channels):
    def convolved(kernel, images):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers).sum((1, 2, 3))

    run = jitted(convolved, SETTINGS)
    kernel, images = jnp.ones((3, 3, channels, 2)), np.full((5, channels, 8, 8), 0.5, np.float32)
    with pytest.raises(DataError, match=r"shape \(5, \d, 8, 8\) .* Channels first\? Images are \[B, H, W, C\]"):
        run(kernel, images, KEYS)
    assert run(kernel, images.transpose(0, 2, 3, 1), KEYS).images.shape == (5, 8, 8, channels)


def test_one_image_without_a_batch_is_named():
    with pytest.raises(DataError, match=r"One image without a batch axis\? It needs images\[None\]"):
        attack(scored, np.zeros(1, np.int32), images=IMAGES[0], keys=KEYS[:1])


def test_a_list_of_images_is_named(unchecked):
    with pytest.raises(DataError, match="images are a list, expected an array"):
        SETTINGS(lambda x: logits(WEIGHTS, x), IMAGES.tolist(), LABELS)


def test_settings_called_on_a_model_name_what_it_takes_wrongly():
    model = lambda x: logits(WEIGHTS, x)  # noqa: E731
    with pytest.warns(UserWarning, match=r"labels are one-hot: .* One class of 3\? labels\.argmax"):
        SETTINGS(model, IMAGES, np.eye(3, dtype=np.float32)[LABELS])
    with pytest.raises(DataError, match="the model turns JAX arrays into NumPy's"):
        SETTINGS(lambda x: np.asarray(x).reshape(len(x), -1) @ WEIGHTS, IMAGES, LABELS)
    with pytest.raises(DataError, match=r"the model refuses images of shape \(1, 3, 8, 8\) .* Channels first\?"):
        SETTINGS(lambda x: jnp.einsum("bhwc,ck->bk", x, WEIGHTS[:3]), np.full((2, 3, 8, 8), 0.5, np.float32), [0, 1])


def test_a_model_that_gives_nan_is_said():
    def model(x):
        return jnp.where(jnp.mean(x, axis=(1, 2, 3))[:, None] > jnp.mean(IMAGES[0]), jnp.nan, logits(WEIGHTS, x))

    with pytest.warns(UserWarning, match=r"of 5 images gave a loss or a gradient that is not finite"):
        assert not SETTINGS(model, IMAGES, LABELS).finite.all()
