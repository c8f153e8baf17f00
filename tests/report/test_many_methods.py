"""Pages of many methods: no point leaves its panel or its place, lines are drawn in two parts, tables keep an order."""

import csv
import io
import itertools

import pytest

from ranjax.evaluation import statistics
from ranjax.report import figures, page, pooling
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report import run_comparison as compare
from ranjax.report.book import Book

from . import fake

METHODS = ("zero_shot", "lp", "mlp", "nmtune", "ran", "lora", "fft", "tecoa", "fare", "pmg_aft")


@pytest.mark.parametrize("places", [[0.0, 5.0, 10.0, 20.0, 30.0], [0.0, 1.0, 2.0, 4.0, 8.0], [0.0, 30.0], [10.0]])
@pytest.mark.parametrize("count", [1, 6, 12])
def test_points_side_by_side_stay_in_the_panel_and_apart_from_the_next_place(places, count):
    shifts, (left, right) = figures.side_by_side(places, count, 0.02)
    points = [[place + shift for shift in shifts] for place in places]
    assert left < points[0][0]
    assert points[-1][-1] < right
    assert all(before[-1] < after[0] for before, after in itertools.pairwise(points))
    assert sum(shifts) == pytest.approx(0)


def test_confidence_and_spectra_of_many_methods_are_drawn_in_two_parts():
    where = {"condition": "clean", "ratio": 0.0, "split": "test", "attack": "none"}
    reliable = [{**where, "method": name, "bins": [[9, 0.6, 0.5]]} for name in METHODS]
    spectra = [
        {**where, "method": name, "features": "clean", "singular_values": [2.0, 1.0], "sve": 0.6, "lsvr": 0.4}
        for name in ("encoder", *METHODS[1:])
    ]
    for name, items in (("calibration", reliable), ("spectra", spectra)):
        html, _ = page.build({name: items}, {})
        for family in ("Heads on the frozen encoder", "Into the encoder, or at test time"):
            assert html.count(family) == 1
    assert "Into the encoder" not in page.build({"calibration": reliable[:3]}, {})[0]


def test_tables_have_their_methods_in_the_usual_order():
    """Answers are read back in the order of their names, and so came the lines of mCE."""
    rows = [fake.row(method=name, ratio=ratio, metric="mce") for ratio in (0.0, 0.3) for name in sorted(METHODS)]
    shown = tables.cross_table(frames.rows_frame(rows), [tables.NOISE, tables.METHOD], tables.BY_METRIC)
    assert [line[1] for line in shown.lines[:3]] == ["Zero-shot", "LP", "MLP"]
    assert [line[0] for line in shown.lines] == ["0 %"] * len(METHODS) + ["30 %"] * len(METHODS)


def test_intervals_over_runs_end_where_the_figure_can_end():
    cells = {"recall_drop@1": -0.01, "ece": 0.01, "mce": 1.1, "accuracy": 0.99}
    runs = [[fake.row(metric=name, value=at + shift) for name, at in cells.items()] for shift in (-0.02, 0.0, 0.01)]
    found = {row["metric"]: row for row in pooling.rows_over_runs(runs)}
    drop = found["recall_drop@1"]
    assert drop["low"] < drop["value"] < 0 < drop["high"]
    assert found["ece"]["low"] == 0
    assert found["accuracy"]["high"] == 1
    assert found["mce"]["high"] > 1.1


def test_what_runs_together_show_of_parts_and_spectra_is_in_files():
    spectra = [{"condition": "clean", "ratio": 0.0, "method": "encoder", "features": "clean", "sve": 1.0, "lsvr": 0.5}]
    runs = [
        {
            "rows": [fake.row(value=0.7 + 0.01 * seed)],
            "config": {"seed": seed},
            "comparisons": [fake.comparison(0.05 + 0.01 * seed, 0.01, 0.09, b="ran_v1_without_mse")],
            "spectra": spectra,
        }
        for seed in range(3)
    ]
    book = Book.of({})
    list(pooling.over_runs(runs, ["a", "b", "c"], book))
    (line,) = csv.DictReader(io.StringIO(book.files["data/ablation_over_runs.csv"]))
    own = statistics.sampling_error([(0.01, 0.09)] * 3)
    mean, low, *_ = statistics.student([0.05, 0.06, 0.07], least=own)
    assert line["b"] == "ran_v1_without_mse"
    assert [float(line["difference"]), float(line["low"])] == pytest.approx([mean, low])
    nothing = frames.rows_frame([])
    list(compare._spectra([compare.Run("one", runs[0], {}, nothing), compare.Run("two", runs[1], {}, nothing)], book))
    lines = list(csv.DictReader(io.StringIO(book.files["data/compare_spectra.csv"])))
    assert [(line["run"], line["sve"]) for line in lines] == [("one", "1.0"), ("two", "1.0")]
