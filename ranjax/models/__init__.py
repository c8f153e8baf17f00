"""Dual encoders and heads: flax.nnx modules inside, pure functions of a parameter pytree outside."""

from ranjax.models import heads, lora
from ranjax.models.checkpoints.bert_files import load_bert, load_bert_mlm, save_bert
from ranjax.models.checkpoints.layouts import LAYOUTS, load, load_clip, save, save_clip
from ranjax.models.checkpoints.weight_files import WeightsError
from ranjax.models.clip_config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.encoder_config import TowersConfig
from ranjax.models.parameter_table import describe_parameters
from ranjax.models.resize import resize_positions
from ranjax.models.towers.bert import BertConfig, BertFunctions
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.modified_resnet import ModifiedResNetConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.text_transformer import TextTransformerConfig
from ranjax.models.towers.vision_transformer import ViTConfig

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
