"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside."""

from ranjax.models import heads
from ranjax.models.clip_files import load_clip, save_clip
from ranjax.models.config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.parameters import describe_parameters
from ranjax.models.weight_files import WeightsError

__all__ = [
    "DualEncoder",
    "DualEncoderConfig",
    "DualEncoderFunctions",
    "WeightsError",
    "describe_parameters",
    "heads",
    "load_clip",
    "save_clip",
    "split",
]
