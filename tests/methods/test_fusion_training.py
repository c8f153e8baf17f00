"""Co-attention learns what no product of two vectors can hold: which of several places a question asks for."""

import dataclasses

import numpy as np
import pytest

from ranjax.core.errors import DataError
from ranjax.methods.fusion_settings import FusionTraining
from ranjax.methods.fusion_training import Asked, fit_fusion

SETTINGS = FusionTraining(width=16, heads=2, outputs=16, epochs=15, batch_size=32, learning_rate=1e-2)


def asked(seed, count=96):
    """Four places hold one of two values each; wording k, of one or two tokens, asks for that of place k."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2, (count, 4))
    places = np.concatenate([np.eye(4)[None].repeat(count, 0), 2.0 * values[:, :, None] - 1], 2).astype(np.float32)
    tokens = np.zeros((4, 2, 4), np.float32)
    tokens[:, 0] = np.eye(4)
    tokens[:, 1] = 7.0  # padding
    mask = np.array([[True, False]] * 4)
    image, wording = (x.ravel().astype(np.int32) for x in np.indices((count, 4)))
    return Asked(places, tokens, mask, image, wording, values[image, wording].astype(np.int32))


@pytest.mark.slow
def test_a_question_picks_its_place_and_equal_seeds_agree():
    train, validation = asked(0), asked(1, 48)
    fitted = fit_fusion(train, validation, 2, SETTINGS, seed=3)
    assert fitted.history.max() > 0.95
    assert fitted.history[fitted.chosen] == fitted.history.max()
    again = fit_fusion(train, validation, 2, SETTINGS, seed=3)
    np.testing.assert_array_equal(fitted.features(validation), again.features(validation))
    z = fitted.features(validation)
    assert z.shape == (192, 16)
    # A linear map of the fused vectors answers; one of image and question side by side would be at chance.
    design = np.c_[fitted.features(train), np.ones(len(train.labels))]
    weights = np.linalg.lstsq(design, 2.0 * np.asarray(train.labels) - 1, rcond=None)[0]
    assert np.mean((np.c_[z, np.ones(len(z))] @ weights > 0) == validation.labels) > 0.95


def test_labels_outside_the_answers_and_states_that_are_not_finite_are_refused():
    train = asked(0, 8)
    with pytest.raises(DataError, match=r"lie outside 0..1"):
        fit_fusion(train._replace(labels=train.labels - 1), train, 2, SETTINGS)
    broken = train.places.copy()
    broken[3, 1, 0] = np.nan
    with pytest.raises(DataError, match="states of the validation images or questions are not finite"):
        fit_fusion(train, train._replace(places=broken), 2, SETTINGS)


def test_an_unknown_answer_in_validation_is_never_right():
    train, validation = asked(0, 32), asked(1, 16)
    unknown = validation._replace(labels=np.full_like(validation.labels, -1))
    settings = dataclasses.replace(SETTINGS, epochs=2)
    assert fit_fusion(train, unknown, 2, settings).history.max() == 0
