"""MedCLIP's archive (Wang et al. 2022): torchvision's ResNet beside BioClinicalBERT, in its authors' keys, in and out.

The archive is one pickle (``python -m ranjax.models.checkpoints.convert FOLDER/pytorch_model.bin``), no config: shapes
tell the towers, and BioClinicalBERT's config.json is read where it lies in the folder. A text is pooled as its code
does it, by the mean over tokens of the states after blocks 1, 2 and the last; over a text's own tokens here, while that
code counts the padding of its batch-mates, so the two agree on each text encoded by itself.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import bert_keys, modern_keys, write_bert_config
from ranjax.models.checkpoints.config_keys import object_of, refuse_type, refuse_unknown
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Content, Json, Keys, Weights, inside, linear, under
from ranjax.models.checkpoints.open_clip_files import OWN, bert_of
from ranjax.models.checkpoints.timm_towers import read_resnet
from ranjax.models.checkpoints.weight_files import CONFIG, WeightsError
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import LAYERS_MEAN, BertConfig
from ranjax.models.towers.tower_table import CannotHoldError, files_of

_IMAGE, _TEXT = "vision_model.model.", "text_model.model."
_IMAGE_HEAD, _TEXT_HEAD = "vision_model.model.fc", "text_model.projection_head"
# Of its code (constants.py): grey films, one mean and deviation for all channels.
_SIZE, _MEAN, _STD = 224, 0.5862785803043838, 0.27950088968644304


def _holds(keys: frozenset[str]) -> bool:
    return f"{_TEXT_HEAD}.weight" in keys and any(key.startswith(_IMAGE) for key in keys)


def _read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
    if f"{_IMAGE_HEAD}.weight" not in weights:
        raise ConfigError(
            "vision_model", "MedCLIP's Swin transformer", "its ResNet-50 (medclip-resnet): no tower here is a Swin"
        )
    missing = [key for key in (f"{_TEXT_HEAD}.weight", "logit_scale") if key not in weights]
    if missing:
        raise WeightsError(str(folder), missing, [], [])
    own = object_of(content, OWN, "config.json: ")
    refuse_unknown(own, ("image_size",), f"config.json: {OWN}.", frozenset())
    size = own.get("image_size", _SIZE)
    refuse_type("image_size", size, _SIZE, f"config.json: {OWN}.")
    image = read_resnet({"image_size": size}, inside(weights, _IMAGE))
    bert = bert_of({"hf_model_name": "Bio_ClinicalBERT"}, inside(weights, _TEXT), folder)
    return DualEncoderConfig(
        image=image,
        text=dataclasses.replace(bert, pooling=LAYERS_MEAN, name=""),
        embed_dim=weights[f"{_TEXT_HEAD}.weight"].shape[0],
        text_projection=Projection(bias=f"{_TEXT_HEAD}.bias" in weights),
        pixel_mean=(_MEAN,) * image.channels,
        pixel_std=(_STD,) * image.channels,
        layout="medclip",
    )


def _keys(config: DualEncoderConfig) -> Keys:
    assert isinstance(config.text, BertConfig)
    return {
        ("log_scale",): ("logit_scale", SAME),
        **under(files_of(config.image, "timm").keys(config.image), ("vision",), _IMAGE),
        **linear("visual_projection", _IMAGE_HEAD, config.image_projection.bias),
        **under(bert_keys(config.text), ("text",), _TEXT),
        **linear("text_projection", _TEXT_HEAD, config.text_projection.bias),
    }


def _check(config: DualEncoderConfig) -> None:
    if files_of(config.image, "timm").kind != "resnet":
        raise CannotHoldError("MedCLIP's image tower is a ResNet")
    if not isinstance(config.text, BertConfig) or config.text.pooling != LAYERS_MEAN:
        raise CannotHoldError("MedCLIP's text tower is a BERT pooled over its blocks 1, 2 and the last")
    if config.image_projection != LINEAR or config.text_projection.kind != "linear":
        raise CannotHoldError("MedCLIP has linear projections, that of images without bias")
    if not config.scale_limited or config.logit_bias_init is not None:
        raise CannotHoldError("MedCLIP has a limited logit scale and no bias of the logits")
    if {*(config.pixel_mean or ())} != {_MEAN} or {*(config.pixel_std or ())} != {_STD}:
        raise CannotHoldError("MedCLIP normalises pixels by numbers of its own, which its files do not hold")


def _write(config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
    assert isinstance(config.text, BertConfig)
    # BioClinicalBERT's, by which `_read` and the tokenizer's library know it; the image size beside.
    content = write_bert_config(config.text) | {"architectures": ["BertModel"], "dtype": dtype}
    return {CONFIG: content | {OWN: {"image_size": config.image_size}}}


def _tidy(weights: Weights) -> Weights:
    """Return tensors without BERT's pooler, which MedCLIP's code computes and does not use."""
    return {key: value for key, value in modern_keys(weights).items() if not key.startswith(f"{_TEXT}pooler.")}


MEDCLIP = Layout(
    name="medclip",
    label="MedCLIP's archive",
    read=_read,
    keys=_keys,
    check=_check,
    write=_write,
    tidy=_tidy,
    holds=_holds,
)
