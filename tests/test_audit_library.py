"""Audits and repairs in one call of the library."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ranjax as rx
from ranjax import models
from ranjax.core.errors import ConfigError, DataError
from ranjax.methods.table import METHODS

SIZE = 8


def linear(seed=0):
    """A linear classifier of two classes, 40 images about grey, and their labels as it gives them."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(SIZE * SIZE, 2)).astype(np.float32)
    images = (0.5 + 0.02 * rng.normal(size=(40, SIZE, SIZE, 1))).astype(np.float32)
    labels = ((images - 0.5).reshape(40, -1) @ weights).argmax(1)
    labels[0] = 1 - labels[0]  # one image that is wrong without an attack
    return weights, images, labels


def logits_of(weights):
    return lambda x: 5 * ((x - 0.5).reshape(len(x), -1) @ jnp.asarray(weights))


def test_a_linear_model_withstands_exactly_the_radii_that_its_margin_allows():
    weights, images, labels = linear()
    report = rx.audit(logits_of(weights), images, labels, attacks=("apgd_ce",), corrupted=False, name="linear")
    margins = (images - 0.5).reshape(40, -1) @ weights
    gap = margins[np.arange(40), labels] - margins[np.arange(40), 1 - labels]
    reach = np.abs(weights[:, 1] - weights[:, 0]).sum()
    wanted = [(gap > reach * float(text.partition("/")[0]) / 255).mean() for text in report.robust.epsilons]
    np.testing.assert_allclose(report.robust.accuracy, wanted, atol=1 / 40)
    assert not report.masked
    assert "on average over radii" in report.headline
    # The boundary of a linear model is gap / reach away, and FAB goes there.
    np.testing.assert_allclose(255 * report.least_norms, 255 * np.maximum(gap / reach, 0), rtol=0.01, atol=0.01)
    assert report.document()["minimal_norms"]["model"]["wrong_already"] == 1
    # The same model as a module, and its document in the schema of `ranjax compare`.
    module = nnx.Linear(SIZE * SIZE, 2, use_bias=False, rngs=nnx.Rngs(0))
    module.kernel[...] = 5 * weights

    class Classifier(nnx.Module):
        def __init__(self):
            self.linear = module

        def __call__(self, x):
            return self.linear((x - 0.5).reshape(len(x), -1))

    again = rx.audit(Classifier(), images, labels, attacks=("apgd_ce",), corrupted=False)
    np.testing.assert_array_equal(again.robust.worst, report.robust.worst)
    found = again.document()
    assert found["schema"] == "ranjax audit 1"
    assert found["repairs"][0]["clean"]["value"] == pytest.approx(39 / 40)


@pytest.mark.slow  # two audits
def test_a_torch_module_and_a_pair_are_audited_as_the_function_is():
    torch = pytest.importorskip("torch", reason="needs torch: the extra 'parity'")
    weights, images, labels = linear()
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE * SIZE, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(5 * weights.T))
        module[1].bias.copy_(torch.from_numpy(-2.5 * weights.sum(0)))
    options = {"attacks": ("apgd_ce",), "corrupted": False, "epsilons": ("1/255", "2/255")}
    pair = (lambda w, x: 5 * ((x - 0.5).reshape(len(x), -1) @ w), jnp.asarray(weights))
    one, other = (rx.audit(model, images, labels, **options) for model in (module.eval(), pair))
    np.testing.assert_array_equal(one.robust.worst, other.robust.worst)
    np.testing.assert_allclose(one.least_norms, other.least_norms, rtol=1e-3, atol=1e-6)
    assert other.parameters == weights.size


@pytest.mark.slow
def test_a_model_that_hides_its_gradients_is_masked_and_its_figure_withheld():
    weights, images, labels = linear()
    logits = logits_of(weights)
    report = rx.audit(lambda x: logits(jnp.round(x * 255) / 255), images, labels, attacks=("apgd_ce",))
    assert report.masked
    assert "withheld" in report.headline
    assert "withheld" in str(report)
    assert report.document()["withheld"] == ["model"]
    assert set(report.corrupted) == {"noise", "blur", "contrast", "exposure", "jpeg"}


@pytest.mark.slow
def test_probabilities_are_taken_by_their_logarithm_and_said():
    weights, images, labels = linear()
    logits = logits_of(weights)
    options = {"attacks": ("apgd_ce",), "corrupted": False, "epsilons": ("1/255",)}
    report = rx.audit(lambda x: jax.nn.softmax(logits(x)), images, labels, **options)
    plain = rx.audit(logits, images, labels, **options)
    assert "probabilities" in report.notes[0]
    np.testing.assert_array_equal(report.robust.worst, plain.robust.worst)
    with pytest.raises(DataError, match="one class"):
        rx.audit(logits, images, np.zeros(40, int), **options)
    with pytest.raises(ConfigError, match="params"):
        rx.audit(type("Linen", (), {"apply": lambda *_: None})(), images, labels, **options)


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_batch_and_is_said():
    weights, images, labels = linear()
    logits = logits_of(weights)

    def hungry(x):
        if len(x) > 8:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return logits(x)

    report = rx.audit(
        hungry, images[:8], labels[:8], attacks=("apgd_ce",), corrupted=False, epsilons=("1/255",), batch_size=16
    )
    assert "out of memory with batches of 16 images; 8 were taken" in report.notes


def test_a_repair_fits_attacks_and_chooses_and_answers_as_an_estimator(tmp_path):
    shape = models.clip(
        vocab_size=8, eos_id=3, bos_id=1, pad_id=0, max_length=8, text_width=8, text_layers=1, text_heads=1,
        image_size=16, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2, embed_dim=8,
    )  # fmt: skip
    functions, params = models.split(models.DualEncoder(shape, nnx.Rngs(0)))
    models.save(tmp_path / "clip", functions, params, layout="clip")
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = rng.uniform(0.4, 0.5, (48, 16, 16, 1)).astype(np.float32)
    images[labels == 1, 8:] += 0.3
    settings = dataclasses.replace(
        METHODS["ran"].settings, copies=1, displaced=8, examples=8, penalties=(30.0,), mus=(1.0,)
    )
    model = rx.repair(tmp_path / "clip", images, labels, method="ran", settings=settings)
    assert (model.predict(images) == labels).mean() > 0.95
    assert model.facts["mu"] == 1.0
    assert model(images[:2]).shape == (2, 2)
    with pytest.raises(ConfigError, match="a head"):
        rx.repair(tmp_path / "clip", images, labels, method="lora")
    with pytest.raises(ConfigError, match="huggingface-cli download openai/clip-vit-base-patch32"):
        rx.load("openai/clip-vit-base-patch32")
    with pytest.raises(ConfigError, match="encoder alone"):
        rx.load(tmp_path / "clip")


@pytest.mark.parametrize("images", [np.zeros((8, 8, 1), np.float32), np.zeros((0, 8, 8, 1), np.float32)])
def test_one_image_without_a_batch_and_no_image_are_named(unchecked, images):
    with pytest.raises(DataError, match=r"images have shape .*, expected \[N, H, W, C\] with one at least"):
        rx.audit(lambda x: x.reshape(x.shape[0], -1)[:, :3], images, np.zeros(len(images), np.int32))
