"""Figures of a multi-label task against their definitions, counted out one by one."""

import numpy as np
import pytest

from ranjax.core.errors import DataError
from ranjax.evaluation import metrics
from ranjax.evaluation.result_rows import Cell, classification_rows

CELL = Cell("clean", 0.0, "lp", "finding", "test")


def _some(count=40, classes=3, seeds=2):
    rng = np.random.default_rng(5)
    labels = (rng.random((count, classes)) < 0.4).astype(np.float32)
    logits = np.round(rng.normal(size=(seeds, count, classes)) + labels[None], 1)  # rounded: some scores are equal
    return logits, labels


def _precision(scores, positive):
    """Average precision by its definition: over each threshold, from the highest score down."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        said = scores >= threshold
        recall = (said & positive).sum() / positive.sum()
        total += (recall - before) * (said & positive).sum() / said.sum()
        before = recall
    return total


def test_average_precision_counts_every_threshold_and_weights_stand_for_copies():
    logits, labels = _some()
    each = metrics.average_precision_each(logits[0], labels)[0]
    np.testing.assert_allclose(each, [_precision(logits[0][:, c], labels[:, c] > 0.5) for c in range(3)])
    drawn = np.random.default_rng(0).integers(0, 3, len(labels))
    copied = np.repeat(np.arange(len(labels)), drawn)
    weighted = metrics.average_precision_each(logits[0], labels, drawn[None].astype(float))
    again = metrics.average_precision_each(logits[0][copied], labels[copied])
    np.testing.assert_allclose(weighted, again)
    assert np.isnan(metrics.average_precision_each(logits[0], np.zeros_like(labels))).all()


def test_rows_are_what_their_names_say():
    logits, labels = _some()
    rows = classification_rows(CELL, logits, labels, (0, 1), class_names=("a", "b", "c"), resamples=60)
    value = {(row["metric"], row["seed"]): row["value"] for row in rows}
    for seed in (0, 1):
        right = (logits[seed] > 0) == (labels > 0.5)
        assert value["accuracy", seed] == pytest.approx(right.all(1).mean())
        assert value["label_accuracy", seed] == pytest.approx(right.mean())
        assert value["macro_auroc", seed] == pytest.approx(float(metrics.macro_auroc(logits[seed], labels)[0]))
        said, truth = logits[seed] > 0, labels > 0.5
        balanced = np.mean(
            [(said[:, c][truth[:, c]].mean() + (~said[:, c])[~truth[:, c]].mean()) / 2 for c in range(3)]
        )
        assert value["balanced_accuracy", seed] == pytest.approx(balanced)
    assert value["map", None] == pytest.approx((value["map", 0] + value["map", 1]) / 2)
    assert {f"auroc/{name}" for name in "abc"} <= {row["metric"] for row in rows}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 40


def test_a_class_that_nobody_has_does_not_count():
    logits, labels = _some()
    labels[:, 1] = 0
    found = {r["metric"]: r["value"] for r in classification_rows(CELL, logits[0], labels, resamples=20)}
    kept = [metrics.auroc(logits[0][:, c], labels[:, c] > 0.5)[0] for c in (0, 2)]
    assert found["macro_auroc"] == pytest.approx(np.mean(kept))


def test_labels_that_do_not_fit_are_refused():
    logits, labels = _some()
    with pytest.raises(DataError, match="do not fit"):
        classification_rows(CELL, logits, labels[:, :2])
    with pytest.raises(DataError, match="labels have shape"):
        metrics.all_right(logits[0], labels[:, :2])
