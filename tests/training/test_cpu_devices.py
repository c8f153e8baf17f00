"""The CPU as several devices: before JAX starts, and not against what the environment says."""

import os
import subprocess
import sys

SCRIPT = """
from ranjax.training import cpu_devices
import jax
assert cpu_devices.cores() >= 1
took = cpu_devices.split(3)
assert len(jax.devices()) == (3 if took else 2), jax.devices()
assert not cpu_devices.split(5)
print(took)
"""


def run(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=kept | {"JAX_PLATFORMS": "cpu"} | more, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_parts_are_made_once_and_the_environment_comes_first():
    assert run() == "True"
    assert run(JAX_NUM_CPU_DEVICES="2") == "False"
