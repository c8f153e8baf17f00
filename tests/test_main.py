"""The real command line: help, describe, refusals, and a run that is killed and goes on to the same results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.reliability import kills
from ranjax import models
from ranjax.cli import console
from ranjax.core import files
from ranjax.run import run_status as status

ROOT = Path(__file__).resolve().parents[1]
RAN = str(ROOT / "configs" / "ran.py")
TINY = ROOT / "experiments" / "reliability" / "tiny.py"


def command(*arguments, **environment):
    line = [sys.executable, "-m", "ranjax.main", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    return line, {"cwd": ROOT, "env": environment, "text": True}


def call(*arguments, **environment):
    line, options = command(*arguments, **environment)
    return subprocess.run(line, capture_output=True, check=False, timeout=500, **options)


def test_help_says_how_to_use_it():
    done = call("--help")
    assert done.returncode == 0
    for word in ("--config", "--workdir", "--redo", "describe", "Exit codes"):
        assert word in done.stdout


def test_describe_prints_every_key_of_the_resolved_config():
    spaced = ("--config.noise.ratios=(0.0, 0.5)", "--config.pretrain.steps", "77")
    done = call("describe", "--config", f"{RAN}:smoke", *spaced)
    assert done.returncode == 0, done.stderr
    assert "pretrain.steps = 77  [steps]" in done.stdout
    assert "noise.ratios = (0.0, 0.5)  [shares]" in done.stdout
    assert "noise.image_epsilon = '8/255'  [pixel units]" in done.stdout


@pytest.mark.parametrize("waits", ["for a thread", "in its teardown"])
def test_a_signal_after_the_outcome_is_decided_leaves_it(waits):
    """A stopped run has said that everything is saved: a second Ctrl-C while it leaves is no death by a signal."""
    script = """
import os, runpy, sys, threading, time
def leave(alive=lambda: False, write=os.write, sleep=time.sleep):
    while alive():
        sleep(0.01)
    write(1, b"leaving\\n")
    sleep(%s)
class Late:
    def __del__(self, leave=leave):
        leave()
if sys.argv.pop(1) == "for a thread":
    threading.Thread(target=leave, args=(threading.main_thread().is_alive,)).start()
else:
    sys.late = Late()
runpy.run_module("ranjax.main", run_name="__main__", alter_sys=True)
"""
    seconds = 30 if waits == "for a thread" else 1  # a thread is not waited for; a finaliser is
    line = [sys.executable, "-c", script % seconds, waits, "describe", "--config", RAN]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert "leaving\n" in iter(process.stdout.readline, "")
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            time.sleep(0.05)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", RAN, "--config.pretrain.stesp=5"], "did you mean 'pretrain.steps'?"),
        (["--config", RAN, "--config.pretrain.steps=few"], "pretrain.steps = 'few': expected a whole number"),
        (["--config", f"{RAN}:smokey"], "configs/ran.py:smoke"),
        (["--config", "configs/rna.py"], "did you mean"),
        (["--config", RAN, "--wrokdir=x"], "did you mean '--workdir'?"),
        (["--config", RAN, "stray"], "stray"),
    ],
)
def test_wrong_input_is_refused_in_one_line_before_anything_runs(arguments, words, tmp_path):
    done = call(*arguments, "--workdir", tmp_path / "run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny run through the command line, not interrupted: (workdir, its config file, compile cache, output)."""
    folder = tmp_path_factory.mktemp("whole")
    cache = folder / "cache"
    done = call("--config", TINY, "--workdir", folder / "run", f"--config.compile_cache={cache}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", TINY, cache, done


def test_a_run_ends_with_its_table_and_the_path_of_a_page(whole):
    workdir, _, _, done = whole
    assert str(workdir / "report" / "index.html") in done.stdout
    assert "RAN" in done.stdout
    assert "steps/s" in done.stderr
    results = files.read_json(workdir / "results.json")
    assert {row["method"] for row in results["rows"]} >= {"zero_shot", "lp", "ran", "image_to_text"}
    assert {row["attack"] for row in results["rows"]} == {"none", "pgd", "pgd@0", "transfer"}
    assert {row["ratio"] for row in results["rows"]} == {0.0, 0.3}
    controls = [row for row in results["rows"] if row["condition"] in ("pixels", "random_init")]
    assert {(row["ratio"], row["attack"], row["metric"]) for row in controls} == {(0.0, "none", "accuracy")}
    assert {row["method"] for row in controls} == {"lp", "ran"}
    assert len(results["examples"]) == 2
    assert results["masking"]


BUDGET = {"prepare": 1, "pretrain": 7, "craft": 2, "adapt": 8, "evaluate": 21, "report": 0}
"""Programs that a run of each stage may compile: those of its first condition, as later ones find them made."""


def test_no_stage_compiles_more_programs_than_its_budget(whole):
    """A number above its budget is most often an operation outside of `jax.jit`, or one function for many shapes."""
    found = {
        str(path.parent.relative_to(whole[0])): files.read_json(path)["compiled"]
        for path in whole[0].rglob("manifest.json")
    }
    assert set(BUDGET) == {run.partition("/")[0] for run in found}
    for run, compiled in found.items():
        assert compiled["count"] <= BUDGET[run.partition("/")[0]], f"{run} compiled {compiled['programs']}"
    again = [compiled for run, compiled in found.items() if run.endswith(("coattack_30", "random_init"))]
    assert len(again) == 5
    assert not any(compiled["count"] for compiled in again), again
    assert found["pretrain/clean"]["seconds"] > 0


def test_every_encoder_carries_a_card_with_the_figures_of_its_evaluation(whole):
    workdir = whole[0]
    for condition, said in (
        ("clean", "Upstream noise: none"),
        ("coattack_30", "30 % of the pairs replaced by adversarial"),
    ):
        card = (workdir / "pretrain" / condition / "encoder" / "README.md").read_text()
        assert said in card
        assert "no clinical claim" in card
        assert "| lp | finding | test | pgd | accuracy |" in card
    assert "encoder/README.md" not in files.read_json(workdir / "pretrain" / "clean" / "manifest.json")["files"]
    assert "encoder/tokenizer.json" in files.read_json(workdir / "pretrain" / "clean" / "manifest.json")["files"]


@pytest.mark.slow
def test_an_encoder_is_taken_out_with_tokenizer_card_and_head(whole, tmp_path, capsys):

    source = whole[0] / "pretrain" / "coattack_30" / "encoder"
    line = [str(whole[0]), "--condition", "coattack_30", "--out", str(tmp_path / "out")]
    assert console.call(["export", *line, "--method", "ran", "--seed", "1"]) == 0
    assert "0 arrays differ from the upstream encoder's; its head lies beside it" in capsys.readouterr().out
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    facts = files.read_json(tmp_path / "out" / "head.json")
    assert facts["kind"] == "linear"
    assert "patches averaged to a grid of 4 x 4" in facts["input"]
    assert "input_filter" in facts
    # The files alone are the deployed method: filter, tower, tokens, linear map.
    functions, params, _ = models.load(tmp_path / "out")
    head = load_file(tmp_path / "out" / "head.safetensors")
    params |= {"input_filter": {"rows": head["input_filter/rows"], "columns": head["input_filter/columns"]}}
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 32, 32, 1)), jnp.float32)
    read = np.asarray(functions.features(params, images, "tokens"))
    assert read.shape[1] == head["params/classifier/down"].shape[0]  # of rank 7, as two factors
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Adapted by `ran`, seed 1" in card
    assert "| ran | finding | test | none | accuracy |" in card
    for wrong, allowed in (
        (["--condition", "coattack_3"], "clean, coattack_30"),
        (["--method", "rann", "--out", str(tmp_path / "b")], "did you mean 'ran'"),
        (["--method", "ran", "--seed", "2", "--out", str(tmp_path / "b")], "0 to 1"),
        ([], "absent or empty"),
    ):
        assert console.call(["export", *line, *wrong]) == 2
        assert allowed in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_metrics_are_written_for_tensorboard_and_as_lines(whole):
    workdir = whole[0]
    assert list((workdir / "pretrain" / "clean" / "tensorboard").glob("events*"))
    lines = (workdir / "pretrain" / "clean" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_a_finished_run_is_skipped_and_another_config_refused(whole):
    workdir, config, cache, _ = whole
    before = (workdir / "results.json").read_bytes()
    again = call("--config", config, "--workdir", workdir, f"--config.compile_cache={cache}")
    assert again.returncode == 0
    assert again.stdout.count("done before, skipped") == 13
    other = call("--config", config, "--workdir", workdir, "--config.adapt.epochs=3")
    assert other.returncode == 2
    assert "adapt.epochs: 2 then, 3 now" in other.stderr
    assert before == (workdir / "results.json").read_bytes()


@pytest.mark.slow
def test_a_run_that_is_cut_off_goes_on_to_the_same_results(whole, tmp_path):
    whole_workdir, config, cache, _ = whole
    arguments = ("--config", config, "--workdir", tmp_path / "run", f"--config.compile_cache={cache}")
    line, options = command(*arguments)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
        for output in process.stdout:
            if "step 4:" in output:
                time.sleep(0.05)
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait(timeout=300) == -signal.SIGKILL, rest
    assert not (tmp_path / "run" / "results.json").exists()
    killed = status.status(tmp_path / "run")
    assert (killed["state"], killed["run"]) == ("killed", "pretrain/clean")
    done = call(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert status.status(tmp_path / "run")["state"] == "done"
    assert kills.signature(tmp_path / "run") == kills.signature(whole_workdir)


def test_rates_memory_and_the_share_of_noisy_pairs_are_written_beside_the_figures(whole):
    workdir = whole[0]
    rows = [json.loads(line) for line in (workdir / "pretrain/coattack_30/metrics.jsonl").read_text().splitlines()]
    assert {"loss", "gradient_norm", "logit_scale", "attacked_share"} <= set(rows[-1])
    # 14 of 48 pairs are noisy pairs; a batch of 8 holds what the order gives it.
    assert all((8 * row["attacked_share"]).is_integer() for row in rows)
    assert any(row["attacked_share"] > 0 for row in rows)
    speed = [json.loads(line) for line in (workdir / "pretrain/coattack_30/speed.jsonl").read_text().splitlines()]
    assert [row["step"] for row in speed] == [row["step"] for row in rows]
    assert speed[0]["examples_per_second"] is None
    curves = [json.loads(line) for line in (workdir / "adapt/coattack_30/metrics.jsonl").read_text().splitlines()]
    # Neither has epochs: LP is solved to its optimum, RAN in closed form.
    assert [(row["method"], row["epoch"]) for row in curves] == [("lp", 1), ("ran", 1)]
    assert {"validation"} <= set(curves[-1])
    for row in speed[1:]:
        assert row["examples_per_second"] == pytest.approx(8 / row["step_seconds"])
        assert row["host_memory"] > 50e6
