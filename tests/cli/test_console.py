"""The console command: its help, what it refuses, its lists and its completion."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax import main
from ranjax.cli import console, list_command, outcome, run_command
from ranjax.core.errors import DataError, OtherProcessError, RunError
from ranjax.run import pipeline

ROOT = Path(__file__).resolve().parents[2]


def call(*words):
    line = [sys.executable, "-m", "ranjax", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)


@pytest.mark.parametrize("words", [(), *((name,) for name in console.COMMANDS)], ids=" ".join)
def test_every_command_has_help_without_jax(words):
    code = "import sys; from ranjax.cli import console\ntry: console.call({})\nexcept SystemExit: pass\n"
    code += "print(sorted({{'jax', 'flax', 'transformers', 'tensorflow'}} & set(sys.modules)))"
    line = [sys.executable, "-c", code.format([*words, "--help"])]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, as other tests share the machine.
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        *said, imported = done.stdout.splitlines()
        assert imported == "[]"
        assert said[0].startswith("usage: ranjax")
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5, seconds


def test_help_names_every_command():
    done = call("--help")
    assert done.returncode == 0
    for name, command in console.COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.help in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "did you mean 'run'?"),
        (["run", "--cofnig=configs/ran.py"], "--cofnig = 'configs/ran.py': expected an option of 'ranjax run'"),
        (["run", "--config", "configs/ran.py", "--wrokdir", "x"], "did you mean '--workdir'?"),
        (["run", "--config", "configs/ran.py", "stray"], "stray"),
        (["run"], "the following arguments are required: --config (see 'ranjax run --help')"),
        (["craft", "--config", "configs/ran.py", "--until", "report"], "expected an option of 'ranjax craft'"),
        (["run", "--config", "configs/ran.py", "--config.seed"], "a value after it, as in --config.seed=VALUE"),
        (["status", "/nowhere", "--config.seed=1"], "expected an option of 'ranjax status'"),
        (["list", "method"], "invalid choice: 'method'"),
    ],
)
def test_what_no_command_takes_is_refused_in_one_line_with_the_nearest_name(words, said, capsys):
    assert console.call(words) == outcome.REFUSED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("no images"), 2, "error: no images"),
        (RunError("out of memory"), 3, "error: out of memory"),
        (OtherProcessError(refused=True), 2, "refused its input"),
        (OtherProcessError(refused=False), 3, "failed"),
        (OSError(28, "No space left on device", "a/b"), 3, "cannot read or write a/b: No space left on device"),
        (PermissionError(13, "Permission denied", "a/b"), 2, "cannot read or write a/b: Permission denied"),
        (KeyboardInterrupt(), 130, "stopped at once"),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_line_and_its_exit_code(error, code, said, capsys):
    def fail():
        raise error

    assert outcome.guard(fail) == code
    assert said in capsys.readouterr().err


def test_an_error_of_the_program_is_not_hidden():
    def fail():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        outcome.guard(fail)


@pytest.mark.parametrize("kind", list_command.TABLES)
def test_list_shows_every_entry_of_a_table_as_text_and_as_json(kind, capsys):
    assert console.call(["list", kind]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert console.call(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in shown] == [row["name"] for row in rows]
    assert len(rows) >= 2


def test_list_shows_an_entry_of_ones_own_and_one_of_an_installed_package(tmp_path):
    code = "from ranjax.methods import METHODS\n"
    code += "MINE = METHODS['mlp'].variant('{0}', 'My {0}', changes={{'weight_decay': 0.1}})\n"
    for name in ("named", "installed"):
        (tmp_path / f"lab_{name}.py").write_text(code.format(name))
    package = tmp_path / "my_lab-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[ranjax.methods]\ninstalled = lab_installed:MINE\n")
    line = [sys.executable, "-m", "ranjax", "list", "methods", "lab_named:MINE", "--json"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    labels = {row["name"]: row["label"] for row in json.loads(done.stdout)}
    assert (labels["named"], labels["installed"]) == ("My named", "My installed")


def test_bash_completes_commands_options_and_keys():
    script = call("completion", "bash").stdout
    ask = 'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ranjax; echo "${COMPREPLY[@]}"; }\n'
    ask += "ask ranjax sta; ask ranjax run --config.pretrain.w; ask ranjax list la; ask ranjax status --w\n"
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "status",
        "--config.pretrain.warmup --config.pretrain.weight_decay",
        "layouts",
        "--watch",
    ]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_reads_its_completion_script():
    script = call("completion", "zsh").stdout + 'print -r -- "${_comps[ranjax]}"\n'
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert "_ranjax" in done.stdout


@pytest.mark.parametrize(
    ("words", "until"),
    [
        (["craft"], "craft"),
        (["adapt"], "adapt"),
        (["evaluate"], "evaluate"),
        (["run"], ""),
        (["run", "--until=pretrain"], "pretrain"),
    ],
)
def test_a_command_named_after_a_stage_is_a_run_until_that_stage(words, until, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(pipeline, "execute", lambda config, workdir, **options: asked.update(options, workdir=workdir))
    monkeypatch.setattr(run_command, "_show_results", lambda workdir, page: None)
    place = f"--workdir={tmp_path / 'run'}"
    given = [*words, "--config", str(ROOT / "configs" / "ran.py"), place, "--config.compile_cache=off"]
    assert console.call(given) == 0
    assert asked["until"] == until
    assert asked["workdir"] == tmp_path / "run"


def test_the_former_command_runs_and_describes(monkeypatch):
    called = []
    monkeypatch.setattr(console, "call", lambda words: called.append(words) or 0)
    main.main(["--config", "configs/ran.py"])
    main.main(["run", "--config", "configs/ran.py"])
    main.main(["describe", "--config", "configs/ran.py"])
    assert [words[0] for words in called] == ["run", "run", "describe"]
