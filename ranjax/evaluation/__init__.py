"""Evaluation: metrics, intervals, robustness, retrieval: ``from ranjax.evaluation import WhiteBox, bootstrap``.

A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "result_rows": (
        "Cell",
        "Row",
        "classification_rows",
    ),
    "retrieval": (
        "Ranks",
        "ranks",
    ),
    "robust_accuracy": (
        "RobustAccuracy",
        "standard_attacks",
    ),
    "spectrum": ("Spectrum",),
    "statistics": (
        "Difference",
        "Interval",
        "bootstrap",
        "holm",
        "paired_difference",
    ),
    "white_box": (
        "Robustness",
        "WhiteBox",
        "survivors",
    ),
    "zero_shot": ("class_embeddings",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
