"""Captions, groups, planes and questions: small cases worked out by hand."""

import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import groups, questions, retrieval, spectrum, statistics
from ranjax.evaluation.result_rows import Cell


def test_sentences_are_captions_and_the_longest_stay():
    report = "FINDINGS: No effusion. There is a large mass in the left lobe. 3. IMPRESSION: Mass, left."
    assert retrieval.sentences(report) == ["No effusion.", "There is a large mass in the left lobe.", "Mass, left."]
    found = retrieval.captions_of([report, "Clear lungs."], 2)
    assert found.texts == ["No effusion.", "There is a large mass in the left lobe.", "Clear lungs."]
    np.testing.assert_array_equal(found.image_of_text, [0, 0, 1])
    with pytest.raises(DataError, match="report 1 has no words"):
        retrieval.captions_of(["a.", "1. 2."], 1)
    with pytest.raises(ConfigError, match=r"evaluate.captions = 0"):
        retrieval.captions_of(["a."], 0)


def test_groups_are_named_from_findings_and_columns_with_ages_in_spans():
    finding = {"kind": "mass", "side": "left", "lobe": "upper", "severity": "mild"}
    records = [
        {"findings": [finding], "age": "058Y", "sex": "M"},
        {"findings": [], "age": 12},
        {"findings": [finding, finding], "age": "old", "sex": ""},
        {"findings": [finding | {"side": None}], "age": "60", "sex": "F"},
    ]
    assert groups.columns(records) == ("side", "severity", "sex", "age")
    assert groups.names(records, "side").tolist() == ["left", "no finding", "several", "none"]
    assert groups.names(records, "age").tolist() == ["40 to 59", "under 40", "unknown", "60 and over"]
    assert groups.names(records, "sex").tolist() == ["M", "unknown", "unknown", "F"]
    with pytest.raises(ConfigError, match="did you mean 'side'"):
        groups.columns(records, ["sied"])


def test_the_worst_group_is_the_least_accuracy_with_an_interval_below_it():
    rng = np.random.default_rng(0)
    of = np.array(["a"] * 40 + ["b"] * 40 + ["c"] * 3 + ["unknown"] * 20)
    hits = np.concatenate([rng.random(40) < 0.9, rng.random(40) < 0.4, np.zeros(3), np.zeros(20)]).astype(bool)
    cell = Cell("clean", 0.0, "lp", "groups", "test", "none")
    rows = {row["metric"]: row for row in groups.group_rows(cell, hits, of, "side", smallest=10, resamples=400)}
    assert set(rows) == {"accuracy/side=a", "accuracy/side=b", "worst_group/side"}
    assert rows["accuracy/side=a"]["value"] == pytest.approx(hits[:40].mean())
    worst = rows["worst_group/side"]
    assert worst["value"] == pytest.approx(hits[40:80].mean())
    assert worst["low"] < worst["value"] <= worst["high"]
    assert (worst["n"], worst["group"]) == (80, "b")
    assert "group" not in rows["accuracy/side=a"]
    with pytest.raises(DataError, match="do not fit hits"):
        groups.group_rows(cell, hits, of[:5], "side")


def test_the_interval_of_the_worst_of_equal_groups_covers_what_all_of_them_have():
    """The least of five figures lies low by chance: its interval has to reach up to where the groups are."""
    rng, of, cell, covered = np.random.default_rng(4), np.repeat(list("abcde"), 40), Cell("a", 0.0, "lp", "g", "t"), 0
    for trial in range(80):
        row = groups.group_rows(cell, rng.random(200) < 0.7, of, "side", resamples=200, seed=trial)[0]
        covered += row["low"] - 1e-9 <= 0.7 <= row["high"] + 1e-9
    assert covered / 80 >= 0.92


def test_worst_groups_without_any_or_with_every_answer_right_have_bounds_and_pictures_are_drawn_whole():
    of, cell = np.repeat(["a", "b"], 20), Cell("a", 0.0, "lp", "g", "t")
    none, all_ = (groups.group_rows(cell, np.full(40, hit), of, "side", resamples=50)[0] for hit in (0.0, 1.0))
    assert none["high"] == pytest.approx(statistics.never_seen(20, 0.975))
    assert all_["low"] == pytest.approx(1 - statistics.never_seen(20))
    hits = np.random.default_rng(0).random(10) < 0.5
    clusters = np.repeat(np.arange(10), 4)
    whole = groups.group_rows(cell, np.repeat(hits, 4), of, "side", 5, resamples=200, clusters=clusters)[0]
    plain = groups.group_rows(cell, np.repeat(hits, 4), of, "side", resamples=200)[0]
    assert whole["n"] == 10
    assert whole["high"] - whole["low"] > 1.3 * (plain["high"] - plain["low"])


def test_a_group_of_one_patients_films_is_too_small_to_be_the_worst():
    """Twelve films of one patient, half of them right, were "50.0 [50.0, 50.0]" and the worst group for certain."""
    of, clusters = np.array(["a"] * 30 + ["b"] * 30 + ["c"] * 12), np.r_[np.arange(60), np.full(12, 60)]
    hits = np.r_[np.random.default_rng(0).random(60) < 0.7, np.arange(12) < 6]
    rows = groups.group_rows(Cell("a", 0.0, "lp", "g", "t"), hits, of, "view", resamples=50, clusters=clusters)
    assert {row["metric"] for row in rows} == {"worst_group/view", "accuracy/view=a", "accuracy/view=b"}


def test_the_plane_is_that_of_most_variance_and_holds_for_other_features():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    features = rng.normal(size=(500, 6)) @ (np.diag([5.0, 3.0, 0.1, 0.1, 0.1, 0.1]) @ basis.T) + 7.0
    plane = spectrum.principal_plane(features)
    np.testing.assert_allclose(np.abs(plane.axes.T @ basis[:, :2]), np.eye(2), atol=0.1)
    assert plane.explained.sum() > 0.99
    moved = plane.project(features + 2 * plane.axes[:, 0][None]) - plane.project(features)
    np.testing.assert_allclose(moved, np.broadcast_to([2.0, 0.0], moved.shape), atol=1e-9)
    for bad in (np.ones((5, 4)), np.full((5, 4), np.nan), np.ones((2, 4))):
        with pytest.raises(DataError):
            spectrum.principal_plane(bad)


def test_questions_have_the_answers_that_the_findings_give():
    mass = {"kind": "mass", "side": "left", "lobe": "upper", "severity": "mild"}
    oedema = {"kind": "oedema", "side": None, "lobe": None, "severity": "severe"}
    records = [{"findings": [mass]}, {"findings": []}, {"findings": [mass, oedema]}]
    classes = ("normal", "mass", "oedema", "effusion")
    asked = questions.ask(["a", "b", "c"], records, classes)
    said = list(zip(asked.example.tolist(), asked.texts, asked.answers, asked.kinds))
    assert (0, "is there mass", "yes", "closed") in said
    assert (0, "which side is the mass on", "left", "open") in said
    assert (0, "which lobe is the mass in", "upper", "open") in said
    assert (0, "how severe is the mass", "mild", "open") in said
    assert all(kind == "closed" for example, _, _, kind in said if example in (1, 2))
    for example in range(3):
        answers = [answer for i, _, answer, kind in said if i == example and kind == "closed"]
        assert answers.count("no") == max(1, answers.count("yes")) or example == 2
    for example, text, answer, kind in said:
        if kind == "closed":
            held = text.removeprefix("is there ") in [f["kind"] for f in records[example]["findings"]]
            assert (answer == "yes") == held
    assert not any("normal" in text for text in asked.texts)
    again = questions.ask(["a", "b", "c"], records, classes)
    assert again.texts == asked.texts
    assert questions.majority(asked, asked)["open"] == 1.0
    train = questions.Questions(np.zeros(3, int), ["is there mass"] * 3, ["yes", "yes", "no"], ["closed"] * 3)
    test = questions.Questions(np.zeros(2, int), ["is there mass", "never asked"], ["no", "yes"], ["closed"] * 2)
    assert questions.majority(train, train) == {"closed": pytest.approx(2 / 3), "varied": pytest.approx(2 / 3)}
    # What was never asked is answered as most are.
    assert questions.majority(train, test) == {"closed": 0.5, "varied": 0.5}
    with pytest.raises(DataError, match="do not carry"):
        questions.ask(["a"], [{}], classes)
    with pytest.raises(DataError, match="no record has a finding"):
        questions.ask(["a"], [{"findings": []}], classes)


def test_fused_features_hold_both_embeddings_and_their_product_at_one_scale():
    image, text = np.array([[0.6, 0.8]], np.float32), np.array([[1.0, 0.0]], np.float32)
    root = np.sqrt(2)
    np.testing.assert_allclose(questions.fuse(image, text), [[0.6 * root, 0.8 * root, root, 0, 1.2, 0]], rtol=1e-6)
    # Of any length; and either side alone is the same entries.
    whole = questions.fuse(3 * image, 2 * text)
    np.testing.assert_allclose(whole, questions.fuse(image, text), rtol=1e-6)
    np.testing.assert_array_equal(questions.fuse(image, text, "image"), questions.fuse(image, text)[:, :2])
    np.testing.assert_array_equal(questions.fuse(image, text, "question"), questions.fuse(image, text)[:, 2:4])
    assert [questions.fused_width(2, sees) for sees in ("both", "image", "question")] == [6, 2, 2]


@pytest.mark.usefixtures("unchecked")
def test_embeddings_of_two_widths_are_not_fused():
    with pytest.raises(DataError, match="do not fit"):
        questions.fuse(np.ones((1, 2)), np.ones((1, 3)))


def test_a_set_of_questions_is_asked_as_it_stands_and_answers_compare_without_case_and_stop():
    records = [
        {"question": "Is there\ta mass?", "answer": "Yes.", "kind": "closed"},
        {"question": "Where is the mass?", "answer": " Right  Upper lobe", "kind": "open"},
    ]
    found = questions.given(records)
    assert found.texts == ["Is there a mass?", "Where is the mass?"]
    assert found.answers == ["yes", "right upper lobe"]
    assert found.kinds == ["closed", "open"]
    np.testing.assert_array_equal(found.example, [0, 1])
    with pytest.raises(DataError, match="record 1 of a set of questions has no answer"):
        questions.given([records[0], {"question": "why", "kind": "open"}])
    with pytest.raises(DataError, match="'both'"):
        questions.given([{**records[0], "kind": "both"}])
