"""What a run leaves and shows: atomic files, metrics, progress, the compilation cache."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax.core import files
from ranjax.training import compile_cache, metrics_log, progress


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"ä": [1, 2.5]})
    assert files.read_json(path) == {"ä": [1, 2.5]}
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.DiskFullError, match=r"no space left to write .*a\.json \(0\.0 MB needed\)"):
        files.write_json(path, {"new": 1})
    assert files.read_json(path) == {"ä": [1, 2.5]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path):
    with pytest.raises(NotADirectoryError), files.no_space(tmp_path):
        raise NotADirectoryError(errno.ENOTDIR, "x")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        files.read_json(tmp_path / "bad.json")


def test_metrics_are_cut_back_to_the_resumed_step(tmp_path):
    with metrics_log.MetricsLog(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log(step, {"loss": 1 / step})
    with (tmp_path / metrics_log.FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    with metrics_log.MetricsLog(tmp_path, resume_step=2) as log:
        log(3, {"loss": 7.0})
    rows = metrics_log.read_rows(tmp_path)
    assert rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 7.0}]
    with metrics_log.MetricsLog(tmp_path, tensorboard=False):
        pass
    assert metrics_log.read_rows(tmp_path) == []
    events = list((tmp_path / "tensorboard").iterdir())
    assert sum(b"loss" in event.read_bytes() for event in events) == 2


def test_progress_prints_plain_lines_with_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with progress.Progress("pretrain", 40, start=10, stream=out, interval=4.0) as show:
        for done in range(11, 41):
            show(done, {"loss": 1.23456})
            now[0] += 1.0
    lines = out.getvalue().splitlines()
    assert lines[0] == "pretrain  11/40  loss 1.235"
    assert lines[1] == "pretrain  15/40  1 steps/s  25 s left  loss 1.235"
    assert lines[-1] == "pretrain  40/40  1 steps/s  loss 1.235"
    assert len(lines) == 9
    assert "\r" not in out.getvalue()


def test_progress_draws_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with progress.Progress("craft", 10, stream=out) as show:
        show(3)
        show(10, {"loss": 0.5})
    assert "craft" in out.getvalue()
    assert "10/10" in out.getvalue()
    assert "loss 0.5" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_the_compilation_cache_needs_a_folder_it_can_write(tmp_path, monkeypatch, caplog):
    updates = {}
    monkeypatch.setattr(compile_cache.jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert compile_cache.enable() == tmp_path / "xdg" / "ranjax" / "xla"
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / "xdg" / "ranjax" / "xla")
    assert compile_cache.enable(tmp_path / "mine") == tmp_path / "mine"
    (tmp_path / "file").write_text("in the way")
    updates.clear()
    assert compile_cache.enable(tmp_path / "file" / "cache") is None
    assert not updates
    assert "no compilation cache" in caplog.text


CACHED = """
import sys, jax, jax.numpy as jnp
from ranjax.training import compile_cache
compile_cache.MIN_COMPILE_SECONDS = 0.0
assert compile_cache.enable(sys.argv[1])
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
"""


def test_the_compilation_cache_is_filled(tmp_path):
    subprocess.run([sys.executable, "-c", CACHED, str(tmp_path)], check=True, timeout=120, capture_output=True)
    assert any(path.name.startswith("jit_") for path in Path(tmp_path).iterdir())


def test_importing_the_room_is_light():
    rooms = ", ".join(
        f"ranjax.training.{name}" for name in ("loop", "checkpoints", "metrics_log", "progress", "contrastive_step")
    )
    code = f"import sys, {rooms};"
    code += "print([m for m in ('orbax', 'tensorboardX', 'tqdm', 'transformers', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout.replace("'", '"')) == []
