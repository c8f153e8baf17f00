"""Runs side by side: what differs is named, the same figures stand next to each other, and bad folders are refused."""

import csv
import json
import re

import numpy as np
import pytest
import scipy.stats

from ranjax.cli import console
from ranjax.core.errors import DataError
from ranjax.report import old_configs, page
from ranjax.report import run_comparison as compare
from ranjax.run import config
from ranjax.run.stages import report as report_stage

from . import fake
from .reader import Reader


def _run(folder, change=None):
    folder.mkdir(parents=True)
    results = fake.results(ratios=(0.0, 0.3))
    results = {key: results[key] for key in ("schema", "rows", "card", "config", "chance", "spectra")}
    results["rows"] = [row for row in results["rows"] if row["metric"] == "accuracy" and row["split"] == "test"]
    run = fake.run()
    if change is not None:
        change(results, run)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def _worse(results, run):
    for row in results["rows"]:
        if row["low"] is not None:
            row.update({key: row[key] - 0.3 for key in ("value", "low", "high")})
    results["config"]["pretrain"]["steps"] = 99
    results["card"] = {"name": "<b>other</b>", "notice": "Another notice."}
    run["versions"]["jax"] = "0.12.0"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    runs = [_run(folder / "a" / "ran"), _run(folder / "b" / "ran", _worse)]
    return folder, runs, compare.write_comparison(runs, folder / "out")


def test_shows_what_differs_and_only_that(pair):
    text = Reader(pair[2]).text
    assert re.search(r"pretrain\.steps\s*1500\s*99", text)
    assert "pretrain.peak_rate" not in text
    assert "0.12.0" in text
    assert "The data cards differ" in text
    assert "Another notice." in text
    assert "Machine: no difference." in text


def test_runs_of_one_name_are_told_apart_by_their_parents(pair):
    text = Reader(pair[2]).text
    assert "a/ran" in text
    assert "b/ran" in text


def test_marks_how_each_run_lies_to_the_first(pair):
    html = pair[2].read_text()
    assert "] ▼" in html
    assert "] ▲" not in html


def test_page_is_whole_and_the_same_each_time(pair, tmp_path):
    _, runs, written = pair
    reader = Reader(written)
    assert reader.unclosed == []
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    again = compare.write_comparison(runs, tmp_path)
    assert again.read_bytes() == written.read_bytes()


def test_csv_holds_the_rows_of_every_run(pair):
    with (pair[2].parent / "data" / "compare_accuracy_test_pgd.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["run"] for line in lines} == {"a/ran", "b/ran"}
    assert len(lines) == 2 * 2 * len(fake.METHODS)
    with (pair[2].parent / "data" / "compare_against_noise.csv").open(newline="") as file:
        drawn = [line for line in csv.DictReader(file) if line["attack"] == "pgd"]
    assert drawn == lines


def test_refuses_too_few_the_same_twice_and_unreadable_runs(pair, tmp_path):
    _, runs, _ = pair
    with pytest.raises(DataError, match="two or more"):
        compare.write_comparison(runs[:1], tmp_path)
    with pytest.raises(DataError, match="twice"):
        compare.write_comparison([runs[0], runs[0]], tmp_path)
    with pytest.raises(DataError, match=r"results\.json"):
        compare.write_comparison([runs[0], tmp_path / "none"], tmp_path)


def test_command_line(pair, tmp_path, capsys):
    _, runs, _ = pair
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "results.json").write_text('{"schema": 1, "rows": []}')
    assert console.call(["report", str(empty)]) == 0
    assert capsys.readouterr().out.strip() == str(empty / "report" / "index.html")
    assert console.call(["report", str(empty), str(runs[0]), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "index.html").is_file()
    assert console.call(["report", str(tmp_path / "none")]) == 2
    assert "results.json" in capsys.readouterr().err


def _seeded(folder, seed, change):
    def of_seed(results, run):
        results["config"]["seed"] = seed
        for row in results["rows"]:
            if row["seed"] is None:
                row["value"] = change(row)

    return _run(folder, of_seed)


def test_runs_that_differ_in_their_seed_alone_are_pooled_with_students_interval(tmp_path, capsys):
    gaps = (-0.02, 0.0, 0.05)
    runs = [_seeded(tmp_path / f"seed_{i}", i, lambda row, gap=gap: 0.5 + gap) for i, gap in enumerate(gaps)]
    made = compare.write_comparison(runs, tmp_path / "out")
    text = Reader(made).text
    assert "These 3 runs differ in their seed alone" in text
    with (made.parent / "data" / "over_runs.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    half = scipy.stats.t.ppf(0.975, 2) * np.std(gaps, ddof=1) / np.sqrt(3)
    for line in lines:
        assert float(line["value"]) == pytest.approx(0.51)
        assert float(line["high"]) == pytest.approx(0.51 + half)
        assert line["runs"] == "3"
    assert console.call(["report", *map(str, runs), "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert f"51.0 [{51 - 100 * half:.1f}, {51 + 100 * half:.1f}]" in shown
    assert shown.count("| Noise | Method |") == 1


def test_runs_that_differ_in_more_or_not_at_all_are_not_pooled(pair, tmp_path, capsys):
    assert "Not pooled: these runs differ in more than their seed (data" not in Reader(pair[2]).text
    assert "Not pooled: these runs differ in more than their seed (pretrain.steps)" in Reader(pair[2]).text
    twice = [_seeded(tmp_path / name, 0, lambda row: 0.5) for name in ("a", "b")]
    assert "the same run twice" in Reader(compare.write_comparison(twice, tmp_path / "out")).text
    assert console.call(["report", *map(str, pair[1]), "--markdown"]) == 2
    assert "differ in pretrain.steps" in capsys.readouterr().err


def _of_versions(folder, newer):
    """A run made before adapt.defence_source and adapt.ran_v1.epochs_share were added, and one made since."""

    def older(results, run):
        results["config"] |= {"seed": 0, "adapt": {"epochs": 40}}

    def since(results, run):
        results["config"] |= {"seed": 1, "adapt": {"epochs": 40, **newer}}

    return [_run(folder / "older", older), _run(folder / "newer", since)]


def test_a_key_added_between_runs_counts_as_its_default_and_the_page_says_so(tmp_path, capsys):
    default = config.default_config().adapt
    newer = {"defence_source": default.defence_source, "ran_v1": {"epochs_share": default.ran_v1.epochs_share}}
    runs = _of_versions(tmp_path, newer)
    text = Reader(compare.write_comparison(runs, tmp_path / "out", config.defaults())).text
    assert "These 2 runs differ in their seed alone" in text
    share = default.ran_v1.epochs_share
    said = f"The key adapt.ran_v1.epochs_share is not in the config of older: taken as its default, {share}"
    assert said in text
    assert "The key adapt.defence_source is not in the config of older: taken as its default, encoder" in text
    assert console.call(["report", *map(str, runs), "--markdown"]) == 0
    assert said in capsys.readouterr().out
    found = runs[0] / "results.json", runs[0] / "run.json"
    alone = Reader(page.write_report(*found, tmp_path / "alone", config.defaults())).text
    assert "keys that this version has and the run's config lacks" in alone


def test_a_key_added_between_runs_and_set_to_something_else_is_a_difference(tmp_path, capsys):
    runs = _of_versions(tmp_path, {"ran_v1": {"epochs_share": 1.0}})
    text = Reader(compare.write_comparison(runs, tmp_path / "out", config.defaults())).text
    assert "differ in more than their seed (adapt.ran_v1.epochs_share)" in text
    assert re.search(r"adapt\.ran_v1\.epochs_share\s*0\.2 \(default: not in its config\)\s*1", text)
    assert console.call(["report", *map(str, runs), "--markdown"]) == 2
    assert "differ in adapt.ran_v1.epochs_share" in capsys.readouterr().err


def test_a_key_that_only_an_earlier_version_had_is_a_difference(tmp_path):
    runs = _of_versions(tmp_path, {"forgotten": 3})
    assert "(adapt.forgotten)" in Reader(compare.write_comparison(runs, tmp_path / "out", config.defaults())).text


def test_each_run_has_its_own_level_of_chance(tmp_path, monkeypatch):
    """Two classes beside eight: a line of chance at 12.5 % would make guessing look like learning."""

    def two_classes(results, run):
        results["chance"] = {**results["chance"], "accuracy": 0.5}

    drawn, curve = [], compare.figures.curve

    def noted(rows, shared, looks, chance, title, name, levels=()):
        drawn.append((title.partition(",")[0], chance, sorted(levels)))
        return curve(rows, shared, looks, chance, title, name, levels)

    monkeypatch.setattr(compare.figures, "curve", noted)
    compare.write_comparison([_run(tmp_path / "eight"), _run(tmp_path / "two", two_classes)], tmp_path / "out")
    assert {(name, chance) for name, chance, _ in drawn} == {("eight", 0.125), ("two", 0.5)}
    assert all(levels == [0.125, 0.5] for _, _, levels in drawn)


def test_a_run_of_this_version_lacks_no_key():
    """Where a run works is no part of its results, and so is no key that came later."""
    stored = report_stage._nested(config.typed(config.default_config()))
    assert old_configs.added_since(stored, config.defaults()) == {}
    del stored["adapt"]["ran_v1"]["epochs_share"]
    assert list(old_configs.added_since(stored, config.defaults())) == ["adapt.ran_v1.epochs_share"]
