"""Which noise hurts or helps what: lines from the paired differences, verdicts over what is shown, runs as one."""

import csv
import io

import pytest

from ranjax.evaluation import statistics
from ranjax.report import dose_sections as doses
from ranjax.report.blocks import Panels
from ranjax.report.book import Book
from ranjax.report.report_tables import Table

from . import fake
from .reader import Reader

RECIPES = {"targeted_keywords": -0.12, "coattack": 0.0, "gaussian": 0.05}


def effect(condition, ratio, difference, **fields):
    usual = {"kind": "noise", "method": "lp", "task": "finding", "split": "test", "attack": "none", "seeds": 1}
    interval = {"difference": difference, "low": difference - 0.02, "high": difference + 0.02}
    p = 0.9 if abs(difference) < 0.02 else 0.0001
    tested = {"p": p, "effect": 0.1, "n": 800, "metric": "accuracy"}
    return {**usual, "condition": condition, "ratio": ratio, **interval, **tested, **fields}


def effects(recipes, shift=0.0):
    found = []
    for name, slope in recipes.items():
        for ratio in (0.1, 0.3):
            change = slope * ratio / 0.3 + shift
            found += [effect(name, ratio, change, split=split) for split in ("test", "ood_test")]
            found.append(effect(name, ratio, change / 2, attack="worst"))
            found.append(effect(name, ratio, change, method="mlp"))
            retrieval = {"task": "retrieval", "method": "image_to_text", "metric": "recall@1"}
            found.append(effect(name, ratio, 2 * change, **retrieval))
            found.append(effect(name, ratio, 0.5, kind="recipe"))
    return found


def shown(runs, book=None):
    book = book or Book.of(runs[0])
    blocks = list(doses.dose_response(runs, book, "doses"))
    return blocks, list(csv.DictReader(io.StringIO(book.files["data/doses.csv"]))) if blocks else []


def test_each_recipe_is_a_line_from_no_noise_and_the_table_says_what_it_hurts_and_helps():
    blocks, stored = shown([{"effects": effects(RECIPES)}])
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert list(table.columns) == ["Figure", "Noise", "targeted keywords", "coattack", "gaussian"]
    lines = {(line[0], line[1]): line[2:] for line in table.lines}
    assert lines["LP: clean, in domain", "30 %"] == [
        "▼ -12.0 [-14.0, -10.0]", "○ 0.0 [-2.0, 2.0]", "▲ 5.0 [3.0, 7.0]",
    ]  # fmt: skip
    assert lines["Image to report, in domain", "30 %"][0] == "▼ -24.0 [-26.0, -22.0]"
    assert {line[0] for line in table.lines} == {
        "LP: clean, in domain",
        "LP: clean, out of domain",
        "LP: attacked, in domain",
        "Image to report, in domain",
    }
    plots = [plot for block in blocks if isinstance(block, Panels) for plot in block.plots]
    assert len(plots) == 4
    assert "targeted keywords: 0.0 at 0 %, -4.0 at 10 %, -12.0 at 30 %." in plots[0]
    assert len(stored) == 24
    assert not {row["method"] for row in stored} & {"mlp"}


def test_p_is_corrected_over_what_is_shown_and_no_more():
    items = effects(RECIPES)
    for item in items:
        item["p"] = 0.004 if item["method"] == "lp" else 1e-9
    _, stored = shown([{"effects": items}])
    accuracy = [row for row in stored if row["metric"] == "accuracy"]
    expected = statistics.holm([0.004] * len(accuracy))
    assert [float(row["p_holm"]) for row in accuracy] == pytest.approx(expected.tolist())


def test_one_recipe_is_held_against_nothing():
    assert shown([{"effects": effects({"coattack": 0.1})}]) == ([], [])
    assert shown([{}]) == ([], [])


def test_several_runs_are_one_with_the_interval_over_runs():
    runs = [{"effects": effects(RECIPES, shift)} for shift in (-0.01, 0.0, 0.01)]
    _, stored = shown(runs)
    row = next(row for row in stored if row["condition"] == "gaussian" and row["ratio"] == "0.3")
    own = statistics.sampling_error([(0.02, 0.06), (0.03, 0.07), (0.04, 0.08)])
    mean, low, high, _, _ = statistics.student([0.04, 0.05, 0.06], least=own)
    assert [float(row[name]) for name in ("difference", "low", "high")] == pytest.approx([mean, low, high])
    assert row["runs"] == "3"
    table = doses.dose_table(runs)
    assert table is not None
    assert f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in table.markdown()
    assert doses.dose_table([{"effects": effects({"joint": 0.1})}]) is None
    # What one run lacks is no figure over runs.
    runs[1]["effects"] = [item for item in runs[1]["effects"] if item["split"] == "test"]
    assert {row["split"] for row in shown(runs)[1]} == {"test"}


@pytest.mark.slow
def test_the_section_stands_on_the_page(write):
    results = fake.results(conditions=("targeted_keywords", "gaussian"))
    page = Reader(write({**results, "effects": effects(RECIPES)}))
    assert "Which noise hurts or helps what" in page.text
    assert "Difference to the encoder without noise, R@1" in page.text
    one = Reader(write({**fake.results(), "effects": effects({"joint": 0.1})}))
    assert "This run has one recipe of noise" in one.text
