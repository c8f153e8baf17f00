"""Attacks on images, texts and both, on any JAX function: ``from ranjax.attacks import image, text, joint``.

A module is imported when it is first named, so that the image attacks do not wait for what the text attacks need.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["image", "joint", "losses", "masking", "presets", "resume", "text"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
