"""The CPU as several devices, and LAPACK on one thread."""

import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.training import cpu

SCRIPT = """
from ranjax.training import cpu
import jax
assert cpu.cores() >= 1
took = cpu.split_devices(3)
assert len(jax.devices()) == (3 if took else 2), jax.devices()
assert not cpu.split_devices(5)
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


def test_one_thread_within_the_block_and_as_before_after_it():
    libraries = cpu._openblas()
    if not libraries:
        with cpu.one_lapack_thread() as taken:
            assert not taken
        pytest.skip("SciPy stands on another LAPACK")
    before = [get() for get, _ in libraries]
    for _, set_threads in libraries:
        set_threads(2)
    try:
        with cpu.one_lapack_thread() as taken:
            assert taken
            assert all(get() == 1 for get, _ in libraries)
            np.testing.assert_allclose(jnp.linalg.eigvalsh(jnp.diag(jnp.arange(1.0, 4.0))), [1, 2, 3], rtol=1e-6)
        assert all(get() == 2 for get, _ in libraries)
        with pytest.raises(RuntimeError, match="stop"), cpu.one_lapack_thread():
            raise RuntimeError("stop")
        assert all(get() == 2 for get, _ in libraries)
    finally:
        for (_, set_threads), count in zip(libraries, before):
            set_threads(count)
