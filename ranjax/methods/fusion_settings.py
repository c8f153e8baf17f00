"""The settings of co-attention and of its training, without JAX, so that a config can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

from ranjax.core.checks import above, at_least, between
from ranjax.core.settings import setting


@dataclass(frozen=True)
class FusionTraining:
    """Settings of `ranjax.methods.fusion_training.fit_fusion`."""

    width: int = setting(64, "Width of the co-attention layers.", "channels", at_least(1))
    heads: int = setting(8, "Heads of each attention.", "", at_least(1))
    layers: int = setting(1, "Co-attention layers.", "", at_least(0))
    outputs: int = setting(128, "Width of the fused vector, which heads are given.", "features", at_least(1))
    dropout: float = setting(0.1, "Share of activations left out in training.", "share", between(0, 0.9))
    learning_rate: float = setting(1e-3, "AdamW's greatest one; a cosine takes it to 0.", "", above(0))
    weight_decay: float = setting(1e-2, "AdamW's.", "", at_least(0))
    epochs: int = setting(40, "Passes over the questions.", "epochs", at_least(1))
    batch_size: int = setting(128, "Questions a step.", "questions", at_least(2))
