"""Make the most of a CPU: keep freed memory, compute on several devices, and keep LAPACK to one thread."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
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
    """Keep the OpenBLAS of SciPy, whose LAPACK JAX calls on a CPU, and of NumPy to one thread inside the block. Also a
    decorator.

    Some releases share even a 64 x 64 matrix out over all cores, whose threads then wait for each other actively: with
    SciPy 1.18 on 2 cores eigenvalues take 4 to 6 times as long as on one thread, and training RAN's head 3 times; on
    busy cores NumPy's products of 768 x 128 by 128 x 8 took 100 times as long. Results change by rounding at most. Wait
    inside the block for what JAX computes: JAX returns before it has.

    Yields:
      True if it took effect. False, without effect, where SciPy stands on another LAPACK.
    """
    libraries = _openblas()
    before = [get() for get, _ in libraries]
    for _, set_threads in libraries:
        set_threads(1)
    try:
        yield bool(libraries)
    finally:
        for (_, set_threads), count in zip(libraries, before):
            set_threads(count)


@functools.cache
def _openblas() -> tuple[tuple[Callable[[], int], Callable[[int], None]], ...]:
    """Return how to read and set the threads of the OpenBLAS in SciPy's wheel and in NumPy's, where they have one."""
    import numpy
    import scipy

    found = []
    for module, suffix in ((scipy, ""), (numpy, "64_")):
        package = Path(str(module.__file__)).parent
        for folder in (package.parent / f"{module.__name__}.libs", package / ".dylibs"):  # Linux and Windows, macOS
            for path in sorted(folder.glob("libscipy_openblas*")):
                try:
                    library = ctypes.CDLL(str(path))
                    get = getattr(library, f"scipy_openblas_get_num_threads{suffix}")
                    set_threads = getattr(library, f"scipy_openblas_set_num_threads{suffix}")
                except (OSError, AttributeError):
                    continue
                get.restype, set_threads.argtypes = ctypes.c_int, (ctypes.c_int,)
                found.append((get, set_threads))
    return tuple(found)
