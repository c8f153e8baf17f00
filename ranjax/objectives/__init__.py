"""Objectives as pure functions of one batch: ``from ranjax.objectives import info_nce, objective, tecoa``.

A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "classification": (
        "binary_cross_entropy",
        "cross_entropy",
    ),
    "contrastive": (
        "OBJECTIVES",
        "info_nce",
        "sigmoid_loss",
    ),
    "rectification": (
        "Weights",
        "consistency",
        "covariance",
        "divergence",
        "objective",
        "singular",
    ),
    "robust": (
        "class_logits",
        "fare",
        "pmg_aft",
        "tecoa",
    ),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
