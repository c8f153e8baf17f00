"""Methods of adaptation, by one table: ``from ranjax.methods import METHODS, fit_heads, tune``.

A name is imported when it is first used, so that the table can be read without JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "method_settings": ("TTC", "Fit", "HeadTraining", "TowerTraining"),
    "table": ("METHODS", "Method", "Style", "selected", "settings_of"),
    "search": ("Variant", "grid", "varied"),
    "head_inputs": ("Examples",),
    "head_training": ("FittedHeads", "class_weights_of", "fit_heads", "predict"),
    "tower_methods": ("Images", "Task", "TowerFit", "encoder_of", "head_of", "tower_fit"),
    "tower_training": ("Diverged", "TowerOutcome", "tune"),
    "test_time": ("counterattack",),
    "few_shot": ("share", "shots"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
