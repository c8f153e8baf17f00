"""Sweeps: what they expand to, how they stand, runs on this machine that are stopped and go on, and their table."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ranjax.cli import console
from ranjax.core import files
from ranjax.core.engines.task_pool import in_threads
from ranjax.core.errors import ConfigError
from ranjax.run import sweep_collect, sweep_runs
from ranjax.run.sweep_file import Run, expand
from ranjax.training.signals import StopFlag

ROOT = Path(__file__).resolve().parents[2]
SMOKE = str(ROOT / "configs" / "ran.py") + ":smoke"
RUNS = [Run(f"seed={i}", SMOKE, (("seed", str(i)),)) for i in range(3)]


def sweep(folder, text):
    path = folder / "sweep.py"
    path.write_text(text)
    return path


def test_a_grid_expands_to_its_product_with_names_that_differ(tmp_path):
    path = sweep(tmp_path, f"CONFIG = {SMOKE!r}\nGRID = {{'noise.recipe': ['coattack', 'sga'], 'seed': [0, 1]}}\n")
    runs = expand(path)
    assert [run.name for run in runs] == [f"recipe={r}_seed={s}" for r in ("coattack", "sga") for s in (0, 1)]
    assert runs[3].words("s3://b/w") == [
        "run", "--config", SMOKE, "--workdir", "s3://b/w/recipe=sga_seed=1", "--config.noise.recipe=sga",
        "--config.seed=1",
    ]  # fmt: skip


def test_explicit_runs_are_combined_with_the_grid(tmp_path):
    text = f"CONFIG = {SMOKE!r}\nGRID = {{'seed': [0, 1]}}\n"
    text += "RUNS = [{'noise.ratios': (0.0, 0.1)}, {'adapt.epochs': 2}]\n"
    runs = expand(sweep(tmp_path, text))
    assert len(runs) == 4
    assert runs[0].overrides == (("noise.ratios", "(0.0, 0.1)"), ("seed", "0"))
    assert "/" not in runs[0].name
    assert " " not in runs[0].name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GRID = {'seed': [0]}", "CONFIG"),
        (f"CONFIG = {SMOKE!r}\nGIRD = {{}}", "did you mean 'GRID'"),
        (f"CONFIG = {SMOKE!r}\nGRID = {{'sede': [0]}}", "did you mean 'seed'"),
        (f"CONFIG = {SMOKE!r}\nGRID = {{'seed': [-1]}}", "a number from 0 to"),
        (f"CONFIG = {SMOKE!r}\nGRID = {{'seed': 3}}", "a list"),
        (f"CONFIG = {SMOKE!r}\nGRID = {{'seed': [1, 1]}}", "twice"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_starts(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        expand(sweep(tmp_path, text))


def test_the_sweeps_of_the_repository_expand(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "experiments" / "sweeps").glob("*.py")):
        assert expand(path)


def test_a_refused_run_is_given_up_at_once_and_its_log_says_why(tmp_path):
    run = Run("bad", "configs/none.py", ())
    with in_threads(1) as pool:
        tally = sweep_runs.run_all([("bad", "w", run.words("w"))], pool, tmp_path, say=lambda line: None)
    assert list(tally.failed) == ["bad"]
    assert "a config file that exists" in (tmp_path / "bad.log").read_text()
    assert "a config file that exists" in tally.last["bad"].said


class OneProcess:
    """Stands in for a task: the exit codes of its processes in turn."""

    def __init__(self, *codes):
        self.codes, self.log = list(codes), "a log"

    def __call__(self):
        return sweep_runs.Ended(self.codes.pop(0), "", "a machine")


CODES = [((1, -9, 0), True), ((1, 1, 1, 0), False), ((3, 0), False), ((75, 0), True)]


@pytest.mark.parametrize(("codes", "done"), CODES)
def test_a_crash_is_tried_again_and_what_cannot_go_on_is_not(codes, done, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_runs, "RunTask", lambda words, log: OneProcess(*codes))
    files.write_json(tmp_path / "run" / "config.json", {})
    with in_threads(1) as pool:
        tally = sweep_runs.run_all([("run", str(tmp_path / "run"), [])], pool, tmp_path, say=lambda line: None)
    assert (tally.done, list(tally.failed)) == ((["run"], []) if done else ([], ["run"]))


def test_a_run_whose_workdir_is_not_seen_here_does_not_count_as_done(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_runs, "RunTask", lambda words, log: OneProcess(0))
    with in_threads(1) as pool:
        tally = sweep_runs.run_all([("run", str(tmp_path / "none"), [])], pool, tmp_path, say=lambda line: None)
    assert "is not seen here; all machines must see it" in tally.failed["run"]


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    code = "from pathlib import Path; from ranjax.run.sweep_runs import RunTask; RunTask([], Path('run.log'))()"
    (tmp_path / "ranjax").mkdir()
    package = "import os, pathlib, time; pathlib.Path('child').write_text(str(os.getpid())); time.sleep(60)"
    # The parent imports the real package before it goes to the folder of its stand-in.
    code = f"import os, ranjax.run.sweep_runs; os.chdir({str(tmp_path)!r}); {code}"
    (tmp_path / "ranjax" / "__init__.py").touch()
    (tmp_path / "ranjax" / "__main__.py").write_text(package)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = int((tmp_path / "child").read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())


def wait_for(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_table_holds_finished_runs_with_their_settings(tmp_path, monkeypatch):
    row = dict.fromkeys(sweep_collect.COLUMNS, 0) | {"seed": None, "method": "ran", "value": 0.5}
    files.write_json(tmp_path / RUNS[0].name / "results.json", {"rows": [row, row | {"seed": 0}]})
    monkeypatch.setattr(sweep_collect, "state_of", lambda folder: "done" if folder.endswith("seed=0") else "killed")
    found, missing = sweep_collect.collect(RUNS, str(tmp_path), tmp_path / "out")
    assert (found, missing) == (["seed=0"], ["seed=1", "seed=2"])
    with open(tmp_path / "out" / "table.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == 1
    assert (table[0]["run"], table[0]["seed"], table[0]["method"], table[0]["value"]) == ("seed=0", "0", "ran", "0.5")


TINY = ROOT / "experiments" / "reliability" / "tiny.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "ran", "--on", "rey"], "did you mean 'ray'?"),
        (["run", "ran", "--with", "cpus=1"], "no setting for this machine"),
        (["sweep", "none.py"], "a sweep file that exists"),
        (["prepare", "table", "--data_dir=.", "--out=out", "--on=slurm", "--workers=2"], "whose machines decode"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_before_anything_runs(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert console.call(words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_local_sweep_that_is_stopped_goes_on_and_ends_in_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for name, value in {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}.items():
        monkeypatch.setenv(name, value)
    path = sweep(tmp_path, f"CONFIG = {str(TINY)!r}\nGRID = {{'seed': [0, 1]}}\n")
    runs, folder = expand(path), tmp_path / "runs"
    tasks = [(run.name, run.workdir(str(folder)), run.words(str(folder))) for run in runs]
    threading.Timer(6, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with StopFlag() as stop, in_threads(2) as pool:
        first = sweep_runs.run_all(tasks, pool, folder, stop=stop, say=lambda line: None)
    assert first.stopped
    assert len(first.done) < 2
    again = subprocess.run(
        [sys.executable, "-m", "ranjax", "sweep", str(path), f"--workdir={folder}", "--with", "at_once=2"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 2 done" in again.stdout
    assert console.call(["sweep", str(path), f"--workdir={folder}", "--show"]) == 0
    assert [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["done", "done"]
    assert console.call(["sweep", str(path), f"--workdir={folder}", f"--collect={tmp_path / 'table'}"]) == 0
    text = (tmp_path / "table" / "table.csv").read_text()
    assert "seed=0" in text
    assert "seed=1" in text
    assert (tmp_path / "table" / "index.html").exists()
