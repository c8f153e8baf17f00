"""The script for a card, tried without one."""

import pytest

from experiments import gpu_check
from experiments.benchmarks import platforms
from ranjax.core import files


def test_the_parts_fit_into_their_time(tmp_path):
    names = [part.name for part in gpu_check.parts(tmp_path, "gpu", False, "")]
    assert names[-2:] == ["job_cold", "job_warm"]
    limits = {part.name: part.limit for part in gpu_check.parts(tmp_path, "gpu", False, "")}
    assert max(limits.values()) <= 150
    assert gpu_check.environment("gpu")["JAX_PLATFORMS"] == "cuda"


def test_an_unknown_part_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--out", str(tmp_path), "--only", "stpe"])
    assert "--only stpe: expected some of device, step" in capsys.readouterr().err


def test_batches_and_the_ceiling_grow_on_an_accelerator(monkeypatch):
    assert (platforms.rows(4, 256), platforms.ceiling_side()) == (4, 2048)
    monkeypatch.setenv(platforms.VARIABLE, "gpu")
    assert (platforms.rows(4, 256), platforms.ceiling_side()) == (256, 8192)


@pytest.mark.slow
def test_the_script_writes_what_each_part_said(tmp_path):
    """The benchmarks' own processes and the tests' rehearsal, each shrunk."""
    only = ["device", "substitution", "tests"]
    assert gpu_check.main(["--out", str(tmp_path), "--platform", "cpu", "--tiny", "--only", *only]) == 0
    found = files.read_json(tmp_path / "summary.json")
    assert {name: part["code"] for name, part in found.items()} == dict.fromkeys(only, 0)
    assert "[100%]" in (tmp_path / "tests.txt").read_text()
    assert files.read_json(tmp_path / "substitution.json")["workloads"]["text"]["ranjax"]["seconds"]


def test_a_part_that_lasts_too_long_is_cut_off(tmp_path):
    part = gpu_check.Part("long", ["-c", "import time; print('begun', flush=True); time.sleep(60)"], 1)
    assert gpu_check.carry_out(part, tmp_path, 0.5, dict(gpu_check.environment("cpu"))) == 124
