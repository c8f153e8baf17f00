"""The memory of this process on its host, now and at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def current() -> int:
    """Return the bytes of this process in memory now; its peak where the system does not say."""
    return _status("VmRSS") or _usage()


def peak() -> int:
    """Return the most bytes that this process has held.

    `ru_maxrss` alone would count what the parent held before exec, too; it is taken where /proc is absent.
    """
    return _status("VmHWM") or _usage()


def _status(field: str) -> int:
    """Return a field of /proc/self/status in bytes; 0 where it is not there."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _usage() -> int:
    # In kilobytes on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
