"""Keep freed memory in the process: on Linux with glibc this makes CPU training about 1.4 times as fast.

XLA's CPU client takes its temporary buffers (tens of megabytes) from malloc at every step and gives them back after it.
By default glibc maps such blocks anew each time, and the kernel clears every page of them again. Measured on 2 cores,
ViT of 4 layers x 128 on 64-pixel images, batch 64: 0.18 s a step before, 0.12 s after, with a twentieth of the page
faults (``python experiments/benchmarks/allocator.py``).
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = {
    _MMAP_MAX: 0,  # large blocks come from the heap, not from a mapping of their own
    _TRIM_THRESHOLD: 2**31 - 1,  # the heap's free end stays
    _TOP_PAD: 2**28,  # and grows in large pieces
    _ARENA_MAX: 1,  # threads share the one heap that can hold large blocks
}


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse freed memory instead of returning it; call it before JAX computes anything.

    The process then holds on to the most memory it ever needed. Changes no result.

    Returns:
      Whether the allocator took all settings; False, and nothing else, where it is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    taken = [mallopt(option, value) == 1 for option, value in _SETTINGS.items()]
    return all(taken)
