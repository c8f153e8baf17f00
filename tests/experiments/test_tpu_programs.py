"""Slices of TPUs by name, and the programs of every stage compiled by the TPU's own compiler where it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.scale import topology
from ranjax.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def scale(*arguments):
    line = [sys.executable, "-m", "experiments.scale", *arguments]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.parametrize(
    ("text", "name", "chips"),
    [("v5e:4x4", "v5e:4x4x1", 16), ("v6e:2x2x1", "v6e:2x2x1", 4), ("v5p:2x2x4", "v5p:2x2x4", 16)],
)
def test_a_slice_is_known_by_its_kind_and_sides(text, name, chips):
    found = topology.parse(text)
    assert (found.name, found.chips) == (name, chips)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("v9:2x2", "v5e, v5p, v6e"),
        ("v5e", "KIND:SHAPE"),
        ("v5p:4x4", "3 sides"),
        ("v5e:0x4", "2 sides"),
        ("v5e:64x64", "256"),
    ],
)
def test_other_slices_are_refused_by_name(text, allowed):
    with pytest.raises(ConfigError, match=f"--tpu = '{text}'.*{allowed}"):
        topology.parse(text)


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"--tpu = 'v5e:2x2x1': expected .*libtpu.*tpu-compile"):
        topology.prepare(topology.parse("v5e:2x2"), {})


@pytest.fixture
def compiler():
    if not topology.is_installed():
        pytest.skip("needs the TPU compiler: pip install -e '.[tpu-compile]'")


@pytest.mark.slow
def test_the_programs_of_every_stage_compile_for_a_small_slice(compiler):
    smaller = ("--config.pretrain.batch_size=32", "--config.noise.max_words=1", "--config.noise.top_k=2")
    done = scale(
        "--config", "configs/ran.py:smoke", "--tpu", "v5e:2x2x1", "--steps", "all", "--vocabulary", "64", *smaller
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert rows[0] == "pretrain"
    assert {"image features", "text features", "attack pgd"} <= set(rows)
    assert any(row.startswith("craft") for row in rows)
    assert "does not fit" not in done.stdout
