"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside."""

from ranjax.models import heads, lora
from ranjax.models.bert import BertConfig, BertFunctions
from ranjax.models.bert_files import load_bert, load_bert_mlm, save_bert
from ranjax.models.bert_text import BertTextConfig
from ranjax.models.config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.layouts import LAYOUTS, load, load_clip, save, save_clip
from ranjax.models.modified_resnet import ModifiedResNetConfig
from ranjax.models.parameters import describe_parameters
from ranjax.models.projections import Projection
from ranjax.models.resize import resize_positions
from ranjax.models.resnet import ResNetConfig
from ranjax.models.text_transformer import TextTransformerConfig
from ranjax.models.towers import TowersConfig
from ranjax.models.vision_transformer import ViTConfig
from ranjax.models.weight_files import WeightsError

__all__ = [
    "LAYOUTS",
    "BertConfig",
    "BertFunctions",
    "BertTextConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "DualEncoderFunctions",
    "ModifiedResNetConfig",
    "Projection",
    "ResNetConfig",
    "TextTransformerConfig",
    "TowersConfig",
    "ViTConfig",
    "WeightsError",
    "describe_parameters",
    "heads",
    "load",
    "load_bert",
    "load_bert_mlm",
    "load_clip",
    "lora",
    "resize_positions",
    "save",
    "save_bert",
    "save_clip",
    "split",
]
