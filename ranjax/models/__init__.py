"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside."""

from ranjax.models import heads, lora
from ranjax.models.bert import BertConfig, BertFunctions
from ranjax.models.bert_files import load_bert, load_bert_mlm, save_bert
from ranjax.models.clip_files import load_clip, save_clip
from ranjax.models.config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.load import load, save
from ranjax.models.parameters import describe_parameters
from ranjax.models.resize import resize_positions
from ranjax.models.vision_bert import VisionBertConfig, load_vision_bert, save_vision_bert
from ranjax.models.weight_files import WeightsError

__all__ = [
    "BertConfig",
    "BertFunctions",
    "DualEncoder",
    "DualEncoderConfig",
    "DualEncoderFunctions",
    "VisionBertConfig",
    "WeightsError",
    "describe_parameters",
    "heads",
    "load",
    "load_bert",
    "load_bert_mlm",
    "load_clip",
    "load_vision_bert",
    "lora",
    "resize_positions",
    "save",
    "save_bert",
    "save_clip",
    "save_vision_bert",
    "split",
]
