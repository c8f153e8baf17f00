"""A CPU as several JAX devices, one a core: for work whose rows do not talk to each other.

XLA gives a program on one CPU device all cores, but only its larger operations are cut among them, and each waits for
the slowest part. With one device a core, every core runs the whole program on rows of its own and waits for nobody.
"""

from __future__ import annotations

import os

import jax

MOST = 4
"""Devices by default at most: each keeps parameters and activations of its own."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split(parts: int = 0) -> bool:
    """Makes `parts` devices of the CPU (0: one a core, at most `MOST`); call it before JAX computes anything.

    What the environment already says (``JAX_NUM_CPU_DEVICES``, ``--xla_force_host_platform_device_count``) stays.
    Accelerators, where present, are still what JAX computes on.

    Returns:
      Whether it took effect; False, and nothing else, where JAX has already started.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or "JAX_NUM_CPU_DEVICES" in os.environ:
        return False
    try:
        jax.config.update("jax_num_cpu_devices", parts if parts > 0 else min(cores(), MOST))
    except RuntimeError:  # JAX's backends are up
        return False
    return True
