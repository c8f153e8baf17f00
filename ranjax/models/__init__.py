"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside.

A name is imported when it is first used, so that the table of towers can be read without JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "checkpoints.assemble": ("beside_bert", "load_image_tower"),
    "checkpoints.bert_files": ("load_bert", "load_bert_mlm", "save_bert"),
    "checkpoints.layout": ("Layout",),
    "checkpoints.layouts": ("LAYOUTS", "load", "load_clip", "save", "save_clip"),
    "checkpoints.weight_files": ("WeightsError",),
    "dual_encoder": ("DualEncoder", "DualEncoderFunctions", "split"),
    "encoder_config": ("DualEncoderConfig", "clip"),
    "resize": ("resize_positions",),
    "towers.bert": ("BertFunctions",),
    "towers.contract": ("ImageTowerConfig", "TextTowerConfig", "Tower", "TowerFiles"),
    "towers.projection_head": ("Projection",),
    "towers.tower_table": ("TOWERS",),
    "towers.tower_configs": (
        *("BertConfig", "ModifiedResNetConfig", "ResNetConfig", "TextTransformerConfig", "ViTConfig"),
    ),
}
__all__ = sorted(name for names in (*_HOMES.values(), ("heads", "input_filter", "lora")) for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
