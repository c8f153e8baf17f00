"""Training: one loop, its step, its state and its devices: ``from ranjax.training import train, make_mesh``.

A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "checkpoints": ("Checkpoints",),
    "contrastive_step": (
        "Program",
        "make_step",
        "program",
    ),
    "devices": (
        "data_parallel",
        "make_mesh",
        "replicate",
        "shard_batch",
    ),
    "loop": (
        "Interrupted",
        "NonFiniteError",
        "train",
    ),
    "metrics_log": ("MetricsLog",),
    "optimizer": (
        "AdamWSettings",
        "adamw",
        "only",
        "warmup_cosine",
    ),
    "progress": ("Progress",),
    "row_map": ("RowMap",),
    "signals": ("StopFlag",),
    "state": ("TrainState",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
