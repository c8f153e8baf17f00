"""How processes find each other, and what they agree on: the rules here, two real processes in one small test."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ranjax.core.errors import ConfigError
from ranjax.training import hosts

FULL = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}


def test_variables_come_first_then_slurm_then_a_tpu(tmp_path):
    def settings(mode, environment):
        return hosts.settings(mode, environment, devices=str(tmp_path))

    assert settings("auto", {}) is None
    assert settings("off", FULL) is None
    assert settings("on", {}) == {}
    wanted = {"coordinator_address": "10.0.0.1:1234", "num_processes": 4, "process_id": 2}
    assert settings("auto", FULL | {"SLURM_STEP_NUM_TASKS": "8"}) == wanted
    assert settings("auto", {"SLURM_STEP_NUM_TASKS": "8"}) == {}
    # A batch script's own shell, or a step of one task, is one process.
    assert settings("auto", {"SLURM_NTASKS": "8"}) is None
    assert settings("auto", {"SLURM_STEP_NUM_TASKS": "1"}) is None


def test_a_tpu_is_known_by_the_maker_of_its_devices(tmp_path, monkeypatch):
    (tmp_path / "0000:00:04.0").mkdir()
    (tmp_path / "0000:00:04.0" / "vendor").write_text("0x1ae0\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "libtpu" else None)
    assert hosts.settings("auto", {}, devices=str(tmp_path)) == {}
    (tmp_path / "0000:00:04.0" / "vendor").write_text("0x8086\n")
    assert hosts.settings("auto", {}, devices=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES = ''.* set together with JAX_COORDINATOR_ADDRESS"),
        (FULL | {"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES = 'four'.* a whole number"),
        (FULL | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID = 4.* from 0 to 3"),
    ],
)
def test_half_a_cluster_is_refused(environment, words):
    with pytest.raises(ConfigError, match=words):
        hosts.settings("auto", environment)


def test_one_process_agrees_with_itself():
    assert hosts.gather(3) == [3]
    assert hosts.agree("x") == "x"
    assert hosts.first_does(lambda: 5) == 5
    assert hosts.first()
    flag = bool
    assert hosts.stopping(flag) is flag


TWO = """
import jax
from ranjax.core.errors import ConfigError, OtherProcessError
from ranjax.training import hosts

hosts.start("auto")
me = jax.process_index()
assert (hosts.count(), hosts.first()) == (2, me == 0)
for turn in range(3):
    assert hosts.gather([me, turn]) == [[0, turn], [1, turn]]
assert hosts.agree(f"from {me}") == "from 0"
assert hosts.first_does(lambda: 7) == (7 if me == 0 else None)
stop = hosts.stopping(lambda: me == 1)
assert stop() is True

def refuse():
    raise ConfigError("key", 1, "two")

try:
    hosts.first_does(refuse)
except ConfigError:
    print("refused by", me)
except OtherProcessError as error:
    print("heard of", me, error.refused)
"""


def processes(count, arguments, devices=1, environment=None, **options):
    """Starts `count` processes that find each other by the three variables; returns them, unfinished."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for place in range(count):
        own = {**os.environ, **(environment or {}), "JAX_PLATFORMS": "cpu"}
        own["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        if count > 1:
            own |= {
                "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(place),
            }  # fmt: skip
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *arguments], env=own, **pipes, **options))
    return started


def test_two_processes_hear_each_other(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    root = str(Path(__file__).resolve().parents[2])
    ended = [
        (*one.communicate(timeout=120), one.returncode)
        for one in processes(2, [str(tmp_path / "two.py")], environment={"PYTHONPATH": root})
    ]
    assert [code for *_, code in ended] == [0, 0], ended
    assert [out.strip() for out, *_ in ended] == ["refused by 0", "heard of 1 True"]
