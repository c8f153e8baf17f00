"""Metrics against stored values of another implementation, and their rules for ties, edges and absent classes."""

import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import metrics, retrieval, spectrum
from ranjax.methods import selection


@pytest.fixture(scope="module")
def cases(reference_cases):
    return np.load(reference_cases / "losses.npz")


def test_auroc_equals_the_reference(cases):
    y, s = cases["auc_bin_y"], cases["auc_bin_s"]
    for scores, wanted in (
        (s, "auc_bin"),
        (cases["auc_ties_s"], "auc_ties"),
        (np.zeros(200), "auc_const"),
        (y, "auc_perfect"),
        (-y, "auc_reversed"),
        (1 / (1 + np.exp(-s)), "auc_neg_log"),
    ):
        assert metrics.auroc(scores, y) == pytest.approx(float(cases[wanted]), abs=1e-12)
        assert metrics.auroc(scores, y, np.ones((1, 200))) == pytest.approx(float(cases[wanted]), abs=1e-12)
    assert metrics.auroc(s, y, cases["auc_weights"][None]) == pytest.approx(float(cases["auc_weighted"]), abs=1e-12)


def test_auroc_of_many_classes_equals_the_reference(cases):
    labels, scores = cases["auc_ml_Y"], cases["auc_ml_S"]
    np.testing.assert_allclose(metrics.auroc_each(scores, labels)[0], cases["auc_ml_each"], atol=1e-12)
    assert metrics.macro_auroc(scores, labels) == pytest.approx(float(cases["auc_ml_macro"]), abs=1e-12)
    missing = cases["auc_ml_Y_missing"]
    each = metrics.auroc_each(scores, missing)[0]
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(each)), cases["auc_ml_missing_defined"])
    wanted = float(cases["auc_ml_missing_macro_over_defined"])
    assert metrics.macro_auroc(scores, missing) == pytest.approx(wanted, abs=1e-12)
    assert metrics.macro_auroc(cases["auc_mc_P"], cases["auc_mc_y"]) == pytest.approx(
        float(cases["auc_mc_ovr_macro"]), abs=1e-12
    )
    assert np.isnan(metrics.macro_auroc(scores[:3], np.zeros((3, 14))))


def test_the_choice_of_epochs_uses_the_same_metrics(cases):
    labels, scores = jnp.asarray(cases["auc_mc_y"], jnp.int32), jnp.asarray(np.log(cases["auc_mc_P"]), jnp.float32)
    found = float(selection.auroc(scores, labels))
    assert found == pytest.approx(float(cases["auc_mc_ovr_macro"]), abs=1e-6)
    hot = jnp.asarray(cases["auc_ml_Y_missing"], jnp.float32)
    found = float(selection.auroc(jnp.asarray(cases["auc_ml_S"], jnp.float32), hot, True))
    assert found == pytest.approx(float(cases["auc_ml_missing_macro_over_defined"]), abs=1e-5)
    found = float(selection.balanced_accuracy(scores, labels))
    hits, labels = np.asarray(scores.argmax(1) == labels), cases["auc_mc_y"]
    assert found == pytest.approx(float(metrics.balanced_accuracy(hits, labels)[0]), abs=1e-6)


def test_accuracies_equal_the_reference(cases):
    y, p = cases["ba_y"], cases["ba_pred"]
    assert metrics.balanced_accuracy(p == y, y) == pytest.approx(float(cases["ba"]), abs=1e-12)
    assert metrics.balanced_accuracy(p == cases["ba_missing_y"], cases["ba_missing_y"]) == pytest.approx(
        float(cases["ba_missing"]), abs=1e-12
    )
    table = metrics.confusion(p, y, 5)
    assert table.sum() == len(y)
    assert np.trace(table) / len(y) == pytest.approx(float(cases["acc"]))


def test_calibration_equals_the_reference(cases):
    confidence = metrics.softmax(cases["ece_logits"]).max(1)
    hit = metrics.correct(cases["ece_logits"], cases["ece_y"])
    for bins in (10, 15):
        assert metrics.ece(confidence, hit, bins) == pytest.approx(float(cases[f"ece{bins}"]), abs=1e-12)
        table = metrics.calibration_bins(confidence, hit, bins)
        assert table[:, 0].sum() == 400
        assert np.nanmax(np.abs(table[:, 1] - table[:, 2])) == pytest.approx(float(cases[f"mce{bins}"]), abs=1e-12)
    edge = cases["ece_edge_conf"], cases["ece_edge_hit"], 4
    assert metrics.ece(*edge) == pytest.approx(float(cases["ece_edge_right"]), abs=1e-12)
    assert metrics.ece([0.5, 0.5, 1.0, 0.0], [1, 0, 1, 0]) == 0


def test_resampled_metrics_equal_the_plain_ones_on_repeated_rows(cases):
    """Counts stand for repetition: each resample equals the metric on the rows written out."""
    rng = np.random.default_rng(0)
    labels, scores = cases["auc_mc_y"], np.round(cases["auc_mc_P"], 1)
    hits, confidence = scores.argmax(1) == labels, np.minimum(scores.max(1), 1.0)
    counts = np.concatenate([np.ones((1, 150)), rng.multinomial(150, np.full(150, 1 / 150), 4)])
    predictions = scores.argmax(1)
    for index, count in enumerate(counts):
        rows = np.repeat(np.arange(150), count.astype(int))
        balanced = metrics.balanced_accuracy(predictions[rows] == labels[rows], labels[rows])
        for got, wanted in (
            (metrics.balanced_accuracy(hits, labels, counts), balanced),
            (metrics.macro_auroc(scores, labels, counts), metrics.macro_auroc(scores[rows], labels[rows])),
            (metrics.auroc(scores[:, 0], labels == 0, counts), metrics.auroc(scores[rows, 0], labels[rows] == 0)),
            (metrics.ece(confidence, hits, counts=counts), metrics.ece(confidence[rows], hits[rows])),
        ):  # fmt: skip
            assert got[index] == pytest.approx(float(wanted[0]), abs=1e-12)
    nothing = np.zeros((1, 150))
    nothing[0, labels == 0] = 1
    assert np.isnan(metrics.auroc(scores[:, 0], labels == 0, nothing)).all()


@pytest.mark.parametrize("case", ["random", "known", "flat", "rank1", "wide"])
def test_spectrum_equals_the_reference(cases, case):
    features = cases[f"sp_{case}_X"]
    for centred, tail in ((False, ""), (True, "_centred")):
        found = spectrum.spectrum(features, centred)
        assert found.sve == pytest.approx(float(cases[f"sp_{case}_SVE{tail}"]), abs=1e-9)
        assert found.lsvr == pytest.approx(float(cases[f"sp_{case}_LSVR{tail}"]), abs=1e-9)
    found = spectrum.spectrum(features)
    np.testing.assert_allclose(found.sigma, cases[f"sp_{case}_s"], atol=1e-9)
    shuffled = spectrum.spectrum(7.5 * features[::-1])
    assert shuffled.sve == pytest.approx(found.sve, abs=1e-9)
    assert shuffled.lsvr == pytest.approx(found.lsvr, abs=1e-9)


def _ranks_of_similarity(similarity, image_of_text, **options):
    """Ranks by a given matrix: images are its rows, and texts the unit vectors."""
    return retrieval.ranks(similarity, np.eye(similarity.shape[1]), image_of_text, **options)


@pytest.mark.parametrize("ties", retrieval.TIES)
@pytest.mark.parametrize("case", ["several", "several_ties", "ragged", "constant", "paired"])
def test_recall_equals_the_reference_under_three_tie_rules(cases, case, ties):
    found = _ranks_of_similarity(cases[f"rec_{case}_S"], cases[f"rec_{case}_owner"], ties=ties)
    np.testing.assert_array_equal(found.image_to_text, cases[f"rec_{case}_{ties}_i2t_rank"])
    np.testing.assert_array_equal(found.text_to_image, cases[f"rec_{case}_{ties}_t2i_rank"])
    for k in (1, 5, 10):
        assert (found.image_to_text < k).mean() == pytest.approx(float(cases[f"rec_{case}_{ties}_i2t@{k}"]))
        assert (found.text_to_image < k).mean() == pytest.approx(float(cases[f"rec_{case}_{ties}_t2i@{k}"]))


def test_recall_in_chunks_from_features_equals_the_whole():
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(9), [1, 2, 3] * 3))
    images = retrieval.unit(rng.normal(size=(9, 5)))
    texts = retrieval.unit((images[owners] + rng.normal(size=(18, 5))).astype(np.float16))
    whole = _ranks_of_similarity(images @ texts.T, owners)
    for chunk in (1, 4, 100):
        parts = retrieval.ranks(images, texts, owners, chunk=chunk)
        for a, b in zip(parts, whole):
            np.testing.assert_array_equal(a, b)


def test_chance_is_the_recall_of_a_random_order():
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(6), 2)
    found = [_ranks_of_similarity(rng.random((6, 12)), owners) for _ in range(400)]
    for k in (1, 5, 10):
        to_texts, to_images = (np.mean([ranks[way] < k for ranks in found]) for way in (0, 1))
        assert to_texts == pytest.approx(retrieval.chance(found[0].right_texts, 12, k), abs=0.035)
        assert to_images == pytest.approx(retrieval.chance(found[0].right_images, 6, k), abs=0.035)
    assert retrieval.chance([1, 1], 10, 1) == pytest.approx(0.1)
    assert retrieval.chance([2], 4, 2) == pytest.approx(1 - 1 / 6)
    assert retrieval.chance([1], 3, 10) == 1


def test_captions_worded_alike_count_only_where_asked():
    similarity = np.array([[0.5, 0.9, 0.1], [0.6, 0.9, 0.2], [0.0, 0.1, 0.8]])
    written = ["no finding", "no finding", "effusion"]
    strict = _ranks_of_similarity(similarity, np.arange(3))
    np.testing.assert_array_equal(strict.image_to_text, [1, 0, 0])
    kind = _ranks_of_similarity(similarity, np.arange(3), texts_as_written=written)
    np.testing.assert_array_equal(kind.image_to_text, [0, 0, 0])
    np.testing.assert_array_equal(kind.text_to_image, [0, 0, 0])
    np.testing.assert_array_equal(kind.right_texts, [2, 2, 1])
    np.testing.assert_array_equal(kind.right_images, [2, 2, 1])


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: metrics.correct([[np.nan, 1.0]], np.array([0])), DataError, "NaN, first in row 0"),
        (lambda: metrics.correct([[0.0, 1.0]], np.array([2])), DataError, r"label 2 in row 0"),
        (lambda: metrics.auroc([1.0, 2.0], [1]), DataError, "auroc needs"),
        (lambda: metrics.auroc_each(np.ones((2, 2)), np.ones((2, 3))), DataError, "the scores"),
        (lambda: metrics.ece([1.5], [1]), DataError, "confidences"),
        (lambda: metrics.ece([0.5], [1], 0), ConfigError, "bins"),
        (lambda: spectrum.spectrum(np.zeros((3, 2))), DataError, "all zero"),
        (lambda: spectrum.spectrum(np.full((3, 2), np.inf)), DataError, "finite"),
        (lambda: _ranks_of_similarity(np.ones((2, 2)), np.array([0, 0])), DataError, "image 1 has no caption"),
        (lambda: _ranks_of_similarity(np.ones((2, 2)), np.array([0, 2])), DataError, r"0\.\.1"),
        (lambda: _ranks_of_similarity(np.ones((1, 1)), np.array([0]), ties="avg"), ConfigError, "ties"),
        (lambda: retrieval.ranks(np.ones((2, 2)), np.ones((2, 3)), np.arange(2)), DataError, r"\[I, D\]"),
        (lambda: _ranks_of_similarity(np.full((1, 1), np.nan), np.array([0])), DataError, "NaN"),
    ],
)
def test_bad_input_is_named(call, error, word):
    with pytest.raises(error, match=word):
        call()


@pytest.mark.parametrize("wrong", [-1, 2, 0.5, np.nan])
def test_marks_other_than_0_and_1_are_refused_not_read_as_negative(wrong):
    scores = np.array([[0.1, 0.2], [0.3, 0.4]])
    labels = np.array([[0, 1], [1, wrong]])
    for metric in (metrics.all_right, metrics.auroc_each, metrics.average_precision_each):
        with pytest.raises(DataError, match="in row 1, expected 0 or 1"):
            metric(scores, labels)
    with pytest.raises(DataError, match="in row 1, expected 0 or 1"):
        metrics.label_balanced_accuracy(scores > 0.25, labels)
    with pytest.raises(DataError, match="in row 1, expected 0 or 1"):
        metrics.auroc(scores[:, 1], labels[:, 1])


def test_balanced_accuracy_knows_no_label_below_0():
    with pytest.raises(DataError, match="label -1 in row 1 is no class"):
        metrics.balanced_accuracy(np.array([True, True]), np.array([0, -1]))
