"""Data: sets of images and reports, prepared once and read by every run: ``from ranjax.data import open_prepared``.

A name is imported when it is first used, so that settings and tables can be read without what reads images.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "batches": ("Batches", "Loader"),
    "images.augment": ("Augmentation",),
    "images.reading": ("read_image",),
    "noisy_pairs": ("caption_shuffle", "gaussian", "mix", "select"),
    "prepared": ("PreparedSet", "open_prepared"),
    "radiograph_set": ("prepare_radiographs",),
    "set_settings": ("DataSettings", "PreparedSettings", "RadiographSettings", "SetSettings"),
    "set_writing": ("prepare_set",),
    "sets": ("SETS", "Entry", "Rejected", "Spec"),
    "sources": ("Record", "Source"),
    "splits": ("SPLITS",),
    "store": ("NoisyStore", "StoreWriter"),
    "text.tokenizer": ("Tokenizer", "Tokens"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
