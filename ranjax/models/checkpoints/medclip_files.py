"""MedCLIP's archive (Wang et al. 2022): torchvision's ResNet beside BioClinicalBERT, in its authors' keys, in and out.

The archive is one pickle (``python -m ranjax.models.checkpoints.convert FOLDER/pytorch_model.bin``), no config: shapes
tell the towers, and BioClinicalBERT's config.json is read where it lies in the folder. A text is pooled as its code
does it, by the mean over tokens of the states after blocks 1, 2 and the last; over a text's own tokens here, while that
code counts the padding of its batch-mates, so the two agree on each text encoded by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import bert_config_to_transformers, bert_layout, today_s_keys
from ranjax.models.checkpoints.file_layout import FileLayout, Weights
from ranjax.models.checkpoints.naming import SAME, Layout, linear, under
from ranjax.models.checkpoints.open_clip_shapes import bert_of, torchvision_resnet
from ranjax.models.checkpoints.resnet_keys import torchvision_keys
from ranjax.models.checkpoints.weight_files import CONFIG, WeightsError
from ranjax.models.encoder_config import TowersConfig
from ranjax.models.towers.bert import LAYERS_MEAN
from ranjax.models.towers.bert_text import BertTextConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig

_IMAGE, _TEXT = "vision_model.model.", "text_model.model."
_IMAGE_HEAD, _TEXT_HEAD = "vision_model.model.fc", "text_model.projection_head"
# Of its code (constants.py): grey films, one mean and deviation for all channels.
_SIZE, _MEAN, _STD = 224, 0.5862785803043838, 0.27950088968644304
OWN = "ranjax"


def _holds(keys: frozenset[str]) -> bool:
    return f"{_TEXT_HEAD}.weight" in keys and any(key.startswith(_IMAGE) for key in keys)


def _read_config(content: Mapping, folder: Path, weights: Weights) -> TowersConfig:
    if f"{_IMAGE_HEAD}.weight" not in weights:
        raise ConfigError(
            "vision_model", "MedCLIP's Swin transformer", "its ResNet-50 (medclip-resnet): no tower here is a Swin"
        )
    image = _inside(weights, _IMAGE)
    text = {f"text.transformer.{key}": value for key, value in _inside(weights, _TEXT).items()}
    missing = [key for key in (f"{_TEXT_HEAD}.weight", "logit_scale") if key not in weights]
    if missing:
        raise WeightsError(str(folder), missing, [], [])
    size = (content.get(OWN) or {}).get("image_size", _SIZE)
    return TowersConfig(
        image=torchvision_resnet(image, size, prefix=_IMAGE),
        text=BertTextConfig(bert=bert_of(folder, text, "Bio_ClinicalBERT", pooler=False), pooling=LAYERS_MEAN),
        embed_dim=weights[f"{_TEXT_HEAD}.weight"].shape[0],
        text_projection=Projection(bias=f"{_TEXT_HEAD}.bias" in weights),
        pixel_mean=(_MEAN,) * image["conv1.weight"].shape[1],
        pixel_std=(_STD,) * image["conv1.weight"].shape[1],
        layout="medclip",
    )


def _inside(weights: Weights, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _keys(config: TowersConfig) -> Layout:
    return {
        ("log_scale",): ("logit_scale", SAME),
        **under(torchvision_keys(config.image), ("vision",), _IMAGE),
        **linear(("visual_projection",), _IMAGE_HEAD, config.image_projection.bias),
        **under(bert_layout(config.text.bert), ("text",), _TEXT),
        **linear(("text_projection",), _TEXT_HEAD, config.text_projection.bias),
    }


def _refuses(config: Any) -> str | None:
    if not isinstance(config, TowersConfig) or not isinstance(config.image, ResNetConfig):
        return "MedCLIP's image tower is a ResNet"
    if not isinstance(config.text, BertTextConfig) or config.text.pooling != LAYERS_MEAN:
        return "MedCLIP's text tower is a BERT pooled over its blocks 1, 2 and the last"
    if config.image_projection != Projection() or config.text_projection.kind != "linear":
        return "MedCLIP has linear projections, that of images without bias"
    if not config.scale_limited or config.logit_bias_init is not None:
        return "MedCLIP has a limited logit scale and no bias of the logits"
    if {*config.pixel_mean} != {_MEAN} or {*config.pixel_std} != {_STD}:
        return "MedCLIP normalises pixels by numbers of its own, which its files do not hold"
    return None


def _write_config(config: TowersConfig, dtype: str) -> dict[str, dict]:
    # BioClinicalBERT's, by which `_read_config` and the tokenizer's library know it; the image size beside.
    content = bert_config_to_transformers(config.text.bert) | {"architectures": ["BertModel"], "dtype": dtype}
    return {CONFIG: content | {OWN: {"image_size": config.image_size}}}


def _tidy(weights: Weights) -> Weights:
    """Without BERT's pooler, which MedCLIP's code computes and does not use."""
    return {key: value for key, value in today_s_keys(weights).items() if not key.startswith(f"{_TEXT}pooler.")}


MEDCLIP = FileLayout(
    name="medclip",
    recognises=lambda content: False,
    read_config=_read_config,
    keys=_keys,
    refuses=_refuses,
    write_config=_write_config,
    tidy=_tidy,
    holds=_holds,
)
