"""How fast a training goes and what memory it takes: lines in ``speed.jsonl``, beside the figures, which hold no times.

    {"step", "time", "step_seconds", "examples_per_second", "host_memory", "device_memory", "device_memory_peak"}

``time`` is UTC; memory is in bytes, of a device the largest over this process's devices, null where the backend counts
none (CPU). The first line after a start has no rate, as its steps hold the compilation. Lines of every start follow
each other; nothing reads them back.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from ranjax.core import files

FILE = "speed.jsonl"


class Speed:
    """Appends a line for each call. `close` it."""

    def __init__(self, folder: str | os.PathLike[str], start: int, examples: int):
        """Args:
        folder: where the lines go; must exist.
        start: updates done before.
        examples: of the global batch.
        """
        self.path, self.examples = Path(folder) / FILE, examples
        self._file = self.path.open("a", encoding="utf-8")
        self._before: tuple[float, int] | None = None

    def __call__(self, step: int) -> dict[str, float]:
        """Writes the line of `step` and returns its figures that are known."""
        now = time.monotonic()
        row: dict[str, Any] = {"step": step, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        seconds = None
        if self._before is not None and step > self._before[1]:
            seconds = (now - self._before[0]) / (step - self._before[1])
        self._before = (now, step)
        in_use, peak = device_memory()
        figures = {
            "step_seconds": seconds,
            "examples_per_second": self.examples / seconds if seconds else None,
            "host_memory": host_memory(),
            "device_memory": in_use,
            "device_memory_peak": peak,
        }
        with files.no_space(self.path):
            self._file.write(json.dumps(row | figures) + "\n")
            self._file.flush()
        return {name: float(value) for name, value in figures.items() if value is not None}

    def close(self) -> None:
        self._file.close()


def host_memory() -> int:
    """Bytes of this process in memory now; its peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        # In kilobytes on Linux, in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory() -> tuple[int | None, int | None]:
    """Bytes in use now and at most so far, on the fullest of this process's devices; None where none are counted."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    in_use = [found["bytes_in_use"] for found in stats if "bytes_in_use" in found]
    peak = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    return max(in_use, default=None), max(peak, default=None)
