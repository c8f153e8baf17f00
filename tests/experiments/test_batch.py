"""Sweeps: what they expand to, the commands of each executor, and scripts that really run in a shell."""

import csv
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.batch import __main__ as cli
from experiments.batch import collect, local, script
from experiments.batch.commands import carried_out
from experiments.batch.slurm import Slurm
from experiments.batch.ssh import Hosts
from experiments.batch.states import state_of
from experiments.batch.sweep import Run, expand
from experiments.batch.tpu import TPU
from ranjax.core import files
from ranjax.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SMOKE = str(ROOT / "configs" / "ran.py") + ":smoke"
RUNS = [Run(f"seed={i}", SMOKE, (("seed", str(i)),)) for i in range(3)]


def sweep(folder, text):
    path = folder / "sweep.py"
    path.write_text(text)
    return path


def program(folder, name, text):
    path = folder / name
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# --- sweep files


def test_a_grid_expands_to_its_product_with_names_that_differ(tmp_path):
    path = sweep(tmp_path, f"CONFIG = {SMOKE!r}\nGRID = {{'noise.recipe': ['coattack', 'sga'], 'seed': [0, 1]}}\n")
    runs = expand(path)
    assert [run.name for run in runs] == [f"recipe={r}_seed={s}" for r in ("coattack", "sga") for s in (0, 1)]
    assert runs[3].arguments("w") == [
        "ranjax.main", "--config", SMOKE, "--workdir", "w", "--config.noise.recipe=sga", "--config.seed=1",
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


# --- the script that works through runs on a machine


def test_the_script_goes_on_after_a_crash_skips_what_is_done_and_gives_up_what_is_refused(tmp_path):
    # Stands in for Python: crashes once on the first run, is done with the third, refuses the second.
    program(
        tmp_path,
        "python",
        """
while [ $# -gt 0 ]; do [ "$1" = --workdir ] && w="$2"; shift; done
echo "$w" >> calls
case "$w" in
  *seed=1) exit 2 ;;
  *seed=0) if [ ! -e crashed ]; then touch crashed; exit 1; fi ;;
esac
mkdir -p "$w/report" && touch "$w/report/manifest.json"
""",
    )
    text = script.sequence(RUNS, code=str(tmp_path), shared=str(tmp_path / "runs"), python=str(tmp_path / "python"))
    text = text.replace("sleep 10", "sleep 0")
    for _ in range(2):
        subprocess.run(["bash"], input=text, text=True, check=True, capture_output=True)
    calls = [Path(line).name for line in (tmp_path / "calls").read_text().split()]
    assert calls == ["seed=0", "seed=0", "seed=1", "seed=2", "seed=1"]


def test_the_probe_answers_for_every_run(tmp_path):
    (tmp_path / "seed=0" / "report").mkdir(parents=True)
    (tmp_path / "seed=0" / "report" / "manifest.json").touch()
    (tmp_path / "seed=1").mkdir()
    done = subprocess.run(["bash", "-c", script.probe(RUNS, str(tmp_path))], capture_output=True, text=True, check=True)
    found = script.answers("Warning: a line of ssh\n" + done.stdout)
    assert found["seed=0"] == "done"
    assert found["seed=1"] == "unfinished"
    assert found["seed=2"] == "not started"
    assert found["process"] in ("works", "none")


# --- TPU VMs

CLOUD = TPU("t", "p", "z", "v5litepod-8", "v2", "/mnt/runs", slices=2, setup="mount it")


def test_slices_get_every_run_once_and_commands_name_all_workers():
    assert [(name, [r.name for r in part]) for name, part in CLOUD.parts(RUNS)] == [
        ("t-0", ["seed=0", "seed=2"]),
        ("t-1", ["seed=1"]),
    ]
    lines = [str(command) for command in CLOUD.up(RUNS)]
    created = "gcloud compute tpus tpu-vm create t-0 --accelerator-type=v5litepod-8 --version=v2 --spot"
    assert lines[0] == f"{created} --project=p --zone=z"
    assert all("--worker=all" in line for line in lines if " ssh " in line or " scp " in line)
    assert sum("mount it" in line for line in lines) == 2
    assert [str(c) for c in CLOUD.down(RUNS)] == [
        f"gcloud compute tpus tpu-vm delete t-{i} --quiet --project=p --zone=z" for i in (0, 1)
    ]


def test_a_preempted_slice_is_made_again_and_a_still_one_started_again():
    said = []

    def cloud(command):
        said.append(str(command))
        if "describe t-0" in said[-1]:
            return "PREEMPTED\n"
        if "describe t-1" in said[-1]:
            return "READY\n"
        return "seed=1\tunfinished\nprocess\tnone\n" if "--worker=0" in said[-1] else ""

    states = CLOUD.look_after(RUNS, cloud)
    assert states == {"seed=0": "lost", "seed=2": "lost", "seed=1": "unfinished"}
    actions = [line.split()[4:6] for line in said if line.startswith("gcloud")]
    order = ["describe", "delete", "create", "scp", "ssh", "ssh", "ssh", "describe", "ssh", "ssh", "ssh"]
    assert [action for action, _ in actions] == order


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing could be run
    path = sweep(tmp_path, f"CONFIG = {SMOKE!r}\nGRID = {{'seed': [0, 1]}}\n")
    place = ["--on", "tpu", "--project", "p", "--zone", "z", "--shared", "/mnt/runs"]
    assert cli.main(["run", str(path), *place, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("gcloud compute tpus tpu-vm") == 4
    assert cli.main(["run", str(path), *place]) == 2
    assert "'gcloud' is not installed here" in capsys.readouterr().err
    assert cli.main(["run", str(path), "--on", "tpu"]) == 2
    assert "--project" in capsys.readouterr().err


# --- Slurm

JOB = Slurm("job", "/code", "/runs", at_a_time=2, options=("--gres=gpu:4",))


def test_the_array_has_a_task_a_run():
    text = JOB.script(RUNS)
    assert "#SBATCH --array=0-2%2" in text
    assert "#SBATCH --gres=gpu:4" in text
    assert "#SBATCH --requeue" in text
    assert text.index("#SBATCH --gres") < text.index("set -u")  # sbatch stops reading at the first command


def test_a_task_whose_time_is_up_saves_and_is_queued_again(tmp_path):
    # Stand-ins for the cluster and for a run that leaves with 75 when it is told to stop.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program(tmp_path / ".venv" / "bin", "python", "trap 'exit 75' TERM\ntouch started\nwhile :; do sleep 0.05; done\n")
    program(tmp_path, "srun", 'exec "$@"\n')
    program(tmp_path, "scontrol", 'echo "$@" > requeued\n')
    job = Slurm("job", str(tmp_path), str(tmp_path / "runs"))
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "7",
    }  # fmt: skip
    (tmp_path / "job.sh").write_text(job.script(RUNS))
    process = subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=environment)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert (tmp_path / "requeued").read_text().split() == ["requeue", "7_1"]


def test_an_empty_queue_with_unfinished_runs_is_filled_again(tmp_path):
    queued = []
    job = Slurm("job", "/code", str(tmp_path))

    def carry(command):
        queued.append(command.words[0])
        return "" if len(queued) < 4 else "1 RUNNING"

    assert set(job.look_after(RUNS, carry).values()) == {"not started"}
    assert queued == ["squeue", "mkdir", "sbatch"]
    job.look_after(RUNS, carry)
    assert queued[3:] == ["squeue"]


# --- plain hosts


def test_hosts_share_the_runs_and_a_still_host_is_started_again():
    hosts = Hosts(("a", "b"), shared="/data/runs")
    lines = [str(command) for command in hosts.up(RUNS)]
    assert sum(line.startswith("scp ") for line in lines) == 2
    assert "seed=0" in lines[3]
    assert "seed=2" in lines[3]
    assert "seed=1" in lines[6]
    said = []

    def carry(command):
        said.append(command.purpose)
        return "seed=0\tdone\nseed=2\tunfinished\nprocess\tnone\n" if command.words[1] == "a" else ""

    assert hosts.look_after(RUNS, carry) == {"seed=0": "done", "seed=2": "unfinished", "seed=1": "unreachable"}
    assert "start 2 run(s) on a" in said
    assert "start 1 run(s) on b" not in said


def test_the_script_for_a_host_runs_in_its_shell(tmp_path, monkeypatch):
    program(tmp_path, "ssh", 'shift; cd "$HOME" && exec bash -c "$*"\n')
    (tmp_path / "code" / ".venv" / "bin").mkdir(parents=True)
    body = 'while [ $# -gt 0 ]; do [ "$1" = --workdir ] && w="$2"; shift; done\n'
    body += 'mkdir -p "$w/report"; touch "$w/report/manifest.json"\n'
    program(tmp_path / "code" / ".venv" / "bin", "python", body)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    hosts = Hosts(("a",), code="code", shared=str(tmp_path / "runs"))
    for command in hosts.start("a", RUNS):
        carried_out(command)
    deadline = time.monotonic() + 20
    while any(state_of(tmp_path / "runs" / run.name) != "done" for run in RUNS):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(hosts.look_after(RUNS, carried_out).values()) == {"done"}


# --- this machine


def test_a_refused_run_is_given_up_at_once_and_its_log_says_why(tmp_path):
    tally = local.run_all([Run("bad", "configs/none.py", ())], tmp_path, say=lambda line: None)
    assert list(tally.failed) == ["bad"]
    assert "a config file that exists" in (tmp_path / "bad.log").read_text()


def test_the_table_holds_finished_runs_with_their_settings(tmp_path):
    row = dict.fromkeys(collect.COLUMNS, 0) | {"seed": None, "method": "ran", "value": 0.5}
    for run in RUNS[:1]:
        files.write_json(tmp_path / run.name / "results.json", {"rows": [row, row | {"seed": 0}]})
        files.write_json(tmp_path / run.name / "report" / "manifest.json", {})
    found, missing = collect.collect(RUNS, tmp_path, tmp_path / "out")
    assert (found, missing) == (["seed=0"], ["seed=1", "seed=2"])
    with open(tmp_path / "out" / "table.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == 1
    assert (table[0]["run"], table[0]["seed"], table[0]["method"], table[0]["value"]) == ("seed=0", "0", "ran", "0.5")


TINY = """
from ranjax.run.config import default_config


def get_config():
    config = default_config()
    config.quick_compile = True
    data = config.data.radiographs
    config.data.image_size = 32
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 40, 24, 24, 16
    config.pretrain.steps, config.pretrain.batch_size = 6, 8
    config.pretrain.checkpoint_every = 2
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 24
    config.noise.ratios = (0.0,)
    config.adapt.methods = ("lp",)
    config.adapt.seeds, config.adapt.epochs = 1, 1
    config.evaluate.attacked_seeds = 0
    config.evaluate.bootstrap = 20
    return config
"""


@pytest.mark.slow
def test_a_local_sweep_that_is_stopped_goes_on_and_ends_in_one_table(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, value in {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tiny.py").write_text(TINY)
    path = sweep(tmp_path, f"CONFIG = {str(tmp_path / 'tiny.py')!r}\nGRID = {{'seed': [0, 1]}}\n")
    runs, folder = expand(path), tmp_path / "runs"
    threading.Timer(6, os.kill, (os.getpid(), signal.SIGTERM)).start()
    first = local.run_all(runs, folder, at_a_time=2, say=lambda line: None)
    assert first.stopped
    assert len(first.done) < 2
    again = subprocess.run(
        [sys.executable, "-m", "experiments.batch", "run", str(path), "--shared", str(folder), "--at-a-time", "2"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 2 done" in again.stdout
    assert cli.main(["collect", str(path), "--shared", str(folder), "--out", str(tmp_path / "table")]) == 0
    text = (tmp_path / "table" / "table.csv").read_text()
    assert "seed=0" in text
    assert "seed=1" in text
    assert (tmp_path / "table" / "index.html").exists()
