"""Queries that are no independent observations: reports of one wording find the same, and so do their sentences."""

import json

import numpy as np
import pytest

from ranjax.evaluation import retrieval, statistics
from ranjax.report import interval_notes, page
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report import run_comparison as compare
from ranjax.run.stages.evaluation import noise_effects as across
from ranjax.run.stages.evaluation import pair_attacks as pairs
from ranjax.run.stages.evaluation import result_record as record

WORDINGS = np.repeat(np.arange(8), 8)


@pytest.fixture
def found():
    made = record.Record("clean", 0.0, ("a", "b"), 100, 0)
    made.set_clusters(record.RETRIEVAL, "test", WORDINGS, "text_to_image")
    return made


def _ranks(rng, share=0.5):
    """Of 64 images and their reports, which are of 8 wordings."""
    alike = np.where(rng.random(8) < share, 0, 3)[WORDINGS]
    return retrieval.Ranks(np.where(rng.random(64) < share, 0, 3), alike, np.full(64, 8), np.full(64, 8))


def test_reports_of_one_wording_are_drawn_together_and_images_are_not(found, tmp_path):
    pairs._recalls(found, record.RETRIEVAL, "test", "none", _ranks(np.random.default_rng(0)))
    rows = {(row["method"], row["metric"]): row for row in found.rows}
    by_image, by_report = (rows[name, "recall@1"] for name in ("image_to_text", "text_to_image"))
    assert (by_image["n"], by_report["n"]) == (64, 8)
    assert by_report["high"] - by_report["low"] > 1.8 * (by_image["high"] - by_image["low"])
    # Conditions are paired on the same queries, and so their differences are over wordings, too.
    found.write(tmp_path)
    answers, clusters = record.load(tmp_path)
    noisy = {key: ~hits for key, hits in answers.items()}
    conditions = [across.Condition("clean", 0.0, answers, clusters), across.Condition("coattack", 0.3, noisy, clusters)]
    effects = {item["method"]: item for item in across.effects(conditions, 100, 0)}
    assert {name: item["n"] for name, item in effects.items()} == {"image_to_text": 64, "text_to_image": 8}


def test_the_interval_over_few_wordings_covers_the_truth_and_that_over_queries_does_not():
    rng, covered = np.random.default_rng(1), np.zeros(2)
    for trial in range(100):
        hits = _ranks(rng).text_to_image < 1
        for i, clusters in enumerate((WORDINGS, None)):
            one = statistics.bootstrap(hits, 100, trial, clusters=clusters)
            covered[i] += one.low <= 0.5 <= one.high
    assert covered[0] >= 85
    assert covered[1] <= 60


def test_sentences_have_the_wider_interval_of_over_images_and_over_wordings(found):
    hits = np.random.default_rng(2).random(64) < 0.5
    ranks = retrieval.Ranks(np.zeros(64, int), np.where(hits, 0, 20), np.ones(64), np.ones(64))
    images, wordings = np.arange(64) // 2, WORDINGS
    pairs._recalls(found, record.CAPTIONS, "test", "none", ranks, (images, wordings))
    row = next(row for row in found.rows if (row["method"], row["metric"]) == ("text_to_image", "recall@1"))
    each = [statistics.bootstrap(hits, 100, 0, clusters=clusters) for clusters in (images, wordings)]
    assert row["low"] == min(one.low for one in each)
    assert row["high"] == max(one.high for one in each)
    assert row["n"] == 8


def test_each_split_has_its_own_level_of_chance(found):
    """One sentence for all reports makes every image right: R@1 100 % out of domain stood beside a chance of 1.2 %."""
    ranks = _ranks(np.random.default_rng(0))
    pairs._recalls(found, record.RETRIEVAL, "test", "none", ranks)
    same = ranks._replace(right_texts=np.full(64, 64), right_images=np.full(64, 64))
    pairs._recalls(found, record.RETRIEVAL, "ood_test", "none", same)
    assert found.chance["recall@1"] == pytest.approx(8 / 64)
    assert found.chance["ood_test/recall@1"] == 1
    lines = tables.without_head_table(frames.rows_frame(found.rows), found.chance).lines
    assert [line[1:4] for line in lines[-2:]] == [
        ["Chance", "guessing, in domain", "12.5"],
        ["Chance", "guessing, out of domain", "100.0"],
    ]


def test_the_page_says_who_was_drawn_where_films_are_of_one_patient(found, tmp_path):
    found.share("lp", record.TASK, "test", "none", "accuracy", np.arange(64) % 3 > 0)
    results = {"schema": 1, "rows": found.rows, "independent": {"test": "107 patients (171 images)"}}
    html, _ = page.build(results, {})
    assert "in domain 107 patients (171 images)</dd>" in html
    assert html.count("intervals and tests draw whole patients, and n counts patients.") == 1  # main tables
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, one in zip(folders, (results, results | {"independent": {}})):
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(one))
    shown = compare.write_comparison(folders, tmp_path / "out").read_text()
    assert shown.count("a: In domain 107 patients (171 images): intervals") == 1
    assert "<p>b: " not in shown
    assert interval_notes.clusters({"rows": []}) == ""
