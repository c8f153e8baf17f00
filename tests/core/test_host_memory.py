"""The memory of this process is its own, not what its parent held."""

import subprocess
import sys

import numpy as np

from ranjax.core import host_memory

CODE = "from ranjax.core import host_memory as m; print(m.peak(), m.current())"


def test_the_peak_holds_what_was_freed():
    before = host_memory.peak()
    assert 0 < host_memory.current() < 2 * before
    np.ones(max(before, 1 << 27) // 8, np.float64)  # the whole peak once more, freed at once
    assert host_memory.peak() > before
    assert host_memory.current() < host_memory.peak() - (1 << 26)


def test_the_peak_of_a_child_is_not_its_parents():
    held = np.ones(1 << 26, np.float64)  # 512 MiB
    peak, current = map(
        int, subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True).stdout.split()
    )
    assert 0 < current < held.nbytes
    assert 0 < peak < held.nbytes
