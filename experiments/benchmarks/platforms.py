"""The device that contestants of a benchmark run on; standard library alone, for interpreters without ranjax.

`--platform` of a benchmark sets it for the contestants, which are processes of their own. The process that starts them
prepares weights and inputs, and stays on the CPU.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

VARIABLE = "RANJAX_BENCHMARK_PLATFORM"
JAX_NAMES = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}
TORCH_NAMES = {"cpu": "cpu", "gpu": "cuda"}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--platform``."""
    parser.add_argument(
        "--platform", default="cpu", choices=tuple(JAX_NAMES), help="what the contestants run on (default cpu)"
    )


def choose(name: str) -> None:
    """Set the platform of the contestants that this process starts, and keep this process on the CPU."""
    os.environ[VARIABLE] = name
    os.environ["JAX_PLATFORMS"] = "cpu"


def chosen() -> str:
    """Return "cpu", "gpu" or "tpu", as the process that started this one says."""
    return os.environ.get(VARIABLE, "cpu")


def for_jax(devices: int = 1) -> None:
    """Set what JAX reads before it is imported; `devices` of a CPU, 0: as they are."""
    os.environ["JAX_PLATFORMS"] = JAX_NAMES[chosen()]
    if chosen() == "cpu" and devices:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    # Contestants take turns on one device, and none may hold all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def torch_device() -> str:
    """Return torch's name of the device.

    Raises:
      ImportError: torch here has none, as of a package that is absent.
    """
    name = TORCH_NAMES.get(chosen(), "")
    if name == "cuda":
        import torch

        name = name if torch.cuda.is_available() else ""
    if not name:
        raise ImportError(f"torch has no {chosen()} here")
    return name


def wait(device: str) -> None:
    """Wait for what torch has begun on a device; on a CPU nothing is under way."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def ceiling_side() -> int:
    """Return the side of the square matrices whose product is the ceiling: large enough to fill the device."""
    return 2048 if chosen() == "cpu" else 8192


def rows(on_cpu: int, on_accelerator: int) -> int:
    """Return the rows of a batch, by platform."""
    return on_cpu if chosen() == "cpu" else on_accelerator


def jax_peak_mb(of_process: Any) -> float:
    """Return the most megabytes that were held: of the device's own memory where it has one, else of the process."""
    import jax

    stats = jax.devices()[0].memory_stats() if chosen() != "cpu" else None
    return stats["peak_bytes_in_use"] / 2**20 if stats else of_process()


def torch_peak_mb(of_process: Any) -> float:
    """As `jax_peak_mb`, of torch."""
    if chosen() == "cpu":
        return of_process()
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
