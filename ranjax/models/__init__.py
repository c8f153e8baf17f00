"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside.

A name is imported when it is first used, so that the table of towers can be read without JAX.
"""

from __future__ import annotations

from ranjax.core.lazy import exports

_HOMES = {
    "attention": (),
    "checkpoints.assemble": ("beside_bert", "load_image_tower"),
    "checkpoints.bert_files": ("load_bert", "load_bert_mlm", "save_bert"),
    "checkpoints.layout": ("Layout",),
    "checkpoints.layouts": ("LAYOUTS", "load", "save"),
    "checkpoints.weight_files": ("WeightsError",),
    "coattention": ("CoAttention",),
    "dual_encoder": ("DualEncoder", "DualEncoderFunctions", "split"),
    "encoder_config": ("DualEncoderConfig", "clip"),
    "heads": (),
    "input_filter": (),
    "lora": (),
    "resize": ("resize_positions",),
    "towers.bert": ("BertFunctions",),
    "towers.contract": ("ImageTowerConfig", "TextTowerConfig", "Tower", "TowerFiles"),
    "towers.projection_head": ("Projection",),
    "towers.tower_table": ("TOWERS",),
    "towers.tower_configs": (
        *("BertConfig", "ModifiedResNetConfig", "ResNetConfig", "TextTransformerConfig", "ViTConfig"),
    ),
}
__getattr__, __dir__, __all__ = exports(__name__, _HOMES)
