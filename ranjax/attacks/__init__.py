"""Attacks on images, texts and both, on any JAX function: ``from ranjax.attacks import pgd, pairs, text``.

A module is imported when it is first named, so that the image attacks do not wait for what the text attacks need.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["losses", "masking", "pairs", "pgd", "presets", "text"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
