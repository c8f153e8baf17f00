"""Make the most of a CPU: keep freed memory, compute on several devices, and keep LAPACK to one thread."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

MOST_DEVICES = 4
"""Devices by default at most: each keeps parameters and activations of its own."""

# Options of glibc's mallopt, from <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MALLOC_OPTIONS = {
    _MMAP_MAX: 0,  # large blocks come from the heap, not from a mapping of their own
    _TRIM_THRESHOLD: 2**31 - 1,  # the heap's free end stays
    _TOP_PAD: 2**28,  # and grows in large pieces
    _ARENA_MAX: 1,  # threads share the one heap that can hold large blocks
}


def keep_freed_memory() -> bool:
    """Let glibc's malloc reuse freed memory instead of returning it; call it before JAX computes anything.

    XLA's CPU client takes its temporary buffers (tens of megabytes) from malloc at every step and frees them after it.
    By default glibc maps such blocks anew each time, and the kernel clears every page again. Measured on 2 cores, ViT
    of 4 layers x 128 on 64-pixel images, batch 64: 0.18 s a step before, 0.12 s after, with a twentieth of the page
    faults (``python experiments/benchmarks/allocator.py``). The process holds on to the most memory it ever needed.
    Results do not change.

    Returns:
      True if the allocator took all settings. False, without effect, where it is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    accepted = [mallopt(option, value) == 1 for option, value in _MALLOC_OPTIONS.items()]
    return all(accepted)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_devices(count: int = 0) -> bool:
    """Make the CPU `count` JAX devices; call it before JAX computes anything.

    For work on independent rows. XLA gives a program on one CPU device all cores, but splits only its larger operations
    among them, and each waits for the slowest part. With one device a core, every core runs the whole program on rows
    of its own. Accelerators, where present, stay the devices that JAX computes on.

    Args:
      count: 0 makes one a core, at most `MOST_DEVICES`.

    Returns:
      True if it took effect. False, without effect, where JAX has already started or the environment sets a number
      (``JAX_NUM_CPU_DEVICES``, ``--xla_force_host_platform_device_count``).
    """
    import jax

    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or "JAX_NUM_CPU_DEVICES" in os.environ:
        return False
    try:
        jax.config.update("jax_num_cpu_devices", count if count > 0 else min(cores(), MOST_DEVICES))
    except RuntimeError:  # JAX's backends are up
        return False
    return True


@contextlib.contextmanager
def one_lapack_thread() -> Iterator[bool]:
    """Keep SciPy's OpenBLAS, whose LAPACK JAX calls on a CPU, to one thread inside the block. Also a decorator.

    Some releases share even a 64 x 64 matrix out over all cores, whose threads then wait for each other actively: with
    SciPy 1.18 on 2 cores eigenvalues take 4 to 6 times as long as on one thread, and training RAN's head 3 times.
    Results change by rounding at most. Wait inside the block for what JAX computes: JAX returns before it has.

    Yields:
      True if it took effect. False, without effect, where SciPy stands on another LAPACK.
    """
    library = _openblas()
    if library is None:
        yield False
        return
    before = library.scipy_openblas_get_num_threads()
    library.scipy_openblas_set_num_threads(1)
    try:
        yield True
    finally:
        library.scipy_openblas_set_num_threads(before)


@functools.cache
def _openblas() -> ctypes.CDLL | None:
    """Return the OpenBLAS in SciPy's wheel, or None where there is none."""
    import scipy

    package = Path(scipy.__file__).parent
    for folder in (package.parent / "scipy.libs", package / ".dylibs"):  # Linux and Windows, macOS
        for path in sorted(folder.glob("libscipy_openblas*")):
            try:
                library = ctypes.CDLL(str(path))
                library.scipy_openblas_get_num_threads.restype = ctypes.c_int
                library.scipy_openblas_set_num_threads.argtypes = (ctypes.c_int,)
            except (OSError, AttributeError):
                continue
            return library
    return None
