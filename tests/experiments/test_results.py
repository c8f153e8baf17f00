"""Tables of results are made from runs by one command, and nobody edits them by hand."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import results

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "docs" / "tables"
SET = """
[few]
runs = ["runs/few_*"]
command = "ranjax run ran"
tables = {accuracy = "Accuracy (%)", seeds = "Accuracy over seeds"}
"""


def write_run(folder, seed, values):
    """Write results.json of a run whose heads are as accurate as `values` on the four kinds of encoders and images."""
    places = [("clean", 0.0, "test", "none"), ("clean", 0.0, "test", "worst"), ("keywords", 0.3, "test", "none")]
    places += [("keywords", 0.3, "test", "worst"), ("keywords", 0.3, "ood_test", "none")]
    places += [("random_init", 0.0, "test", "none"), ("pixels", 0.0, "test", "none")]
    rows = [
        {"condition": condition, "ratio": ratio, "method": method, "task": "finding", "split": split, "attack": attack}
        | {"seed": None, "metric": "accuracy", "value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}
        for (condition, ratio, split, attack), value in zip(places, values)
        for method in results.over_runs.METHODS
    ]
    folder.mkdir(parents=True)
    content = {"schema": 1, "rows": rows, "config": {"seed": seed}, "chance": {"accuracy": 0.125}}
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "run.json").write_text(json.dumps({"started": "2026-01-01", "versions": {"python": "3.11", "jax": "0"}}))
    return folder


@pytest.fixture
def few(tmp_path, monkeypatch):
    (tmp_path / "results.toml").write_text(SET)
    sets = results.declared(tmp_path / "results.toml")
    monkeypatch.setattr(results, "declared", lambda: sets)
    monkeypatch.chdir(tmp_path)
    first, second = np.linspace(0.2, 0.5, 7), np.linspace(0.3, 0.6, 7)
    for seed, values in enumerate((first, second)):
        write_run(tmp_path / "runs" / f"few_{seed}", seed, values)
    return tmp_path, (first + second) / 2


def read(file):
    with open(file, newline="") as opened:
        return list(csv.reader(opened))


def test_a_set_becomes_tables_of_the_means_over_its_runs(few):
    folder, means = few
    assert results.main(["--out", str(folder)]) == 0
    header, *lines = read(folder / "few_seeds.csv")
    assert header[0] == "accuracy in %, mean of 2"
    assert [line[1:] for line in lines] == [[f"{100 * mean:.1f}" for mean in means]] * len(lines)
    header, *lines = read(folder / "few_accuracy.csv")
    clean = header.index("In domain, clean")
    assert [line[clean].split()[0] for line in lines if line[:2] == ["30 %", "LP"]] == [f"{100 * means[2]:.1f}"]
    record = json.loads((folder / "results.json").read_text())
    assert [run["seed"] for run in record["few_seeds.csv"]["runs"]] == [0, 1]
    assert str(folder) not in json.dumps(record)


def test_check_writes_nothing_and_finds_a_figure_that_was_changed_by_hand(few, capsys):
    folder, _ = few
    assert results.main(["--out", str(folder)]) == 0
    assert results.main(["--out", str(folder), "--check"]) == 0
    file = folder / "few_seeds.csv"
    changed = file.read_text().replace("25.0", "26.0", 1)
    file.write_text(changed)
    assert results.main(["--out", str(folder), "--check"]) == 1
    assert "few_seeds.csv differs" in capsys.readouterr().out
    assert file.read_text() == changed


def test_what_cannot_be_made_is_refused_in_one_line(few, capsys):
    folder, _ = few
    assert results.main(["many", "--out", str(folder)]) == 2
    assert "SET = 'many': expected one of few" in capsys.readouterr().err
    assert results.main(["few=runs/gone", "--out", str(folder)]) == 2
    assert "runs/gone holds no results.json" in capsys.readouterr().err
    write_run(folder / "elsewhere", 0, np.full(7, 0.4))
    assert results.main(["few=elsewhere", "--out", str(folder)]) == 2  # one run: its tables have other titles
    assert "have no table 'Accuracy (%)'" in capsys.readouterr().err
    for run in (folder / "runs").iterdir():
        (run / "results.json").unlink()
    assert results.main(["--out", str(folder)]) == 0
    assert "no finished run at runs/few_*" in capsys.readouterr().out


def test_no_table_was_edited_by_hand_and_every_declared_one_is_recorded():
    record = json.loads((TABLES / results.RECORD).read_text())
    assert {*record} == {f"{one.name}_{part}.csv" for one in results.declared().values() for part in one.tables}
    made = {file: hashlib.sha256((TABLES / file).read_bytes()).hexdigest() for file in record}
    assert {file: made[file] for file in record if made[file] != record[file]["sha256"]} == {}


def test_every_figure_in_a_table_of_the_results_stands_in_a_made_table():
    made = "\n".join((TABLES / file).read_text() for file in json.loads((TABLES / results.RECORD).read_text()))
    page = (ROOT / "docs" / "results.md").read_text()
    figures = re.findall(r"-?[\d.]+ \[[\d., -]+\]", "\n".join(re.findall(r"(?m)^\|.*$", page)))
    assert [figure for figure in figures if figure not in made] == [], "python -m experiments.results makes the tables"
