"""The dual encoders of transformers: CLIPModel, SiglipModel, VisionTextDualEncoderModel; config.json and keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError, nearest
from ranjax.models.checkpoints.bert_files import modern_keys
from ranjax.models.checkpoints.config_keys import object_of, refuse_type, refuse_unknown
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Arrangement, Content, Json, Keys, Weights, linear, under
from ranjax.models.checkpoints.padding_token import padding_id
from ranjax.models.checkpoints.transformers_towers import PREPROCESSOR, read_pixels
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import TextTransformerConfig
from ranjax.models.towers.tower_table import CannotHoldError, all_files, files_of, files_reading

_ALIASES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


def _layout(
    name: str,
    architecture: str,
    joined: str,
    keys: Keys,
    *,
    text: str,
    image: str = "",
    logit_scale_init: float = 2.6592,
    **head: Any,
) -> Layout:
    """Return the layout of a class of transformers.

    Args:
      name: ``model_type``.
      architecture: the class.
      joined: how it joins the towers, in words.
      keys: of what joins the towers.
      image, text: ``model_type`` of the tower that it has; "": any.
      logit_scale_init: where config.json does not say.
      **head: fields of `DualEncoderConfig` that say how it joins the towers, where they are not CLIP's.
    """
    joins: Json = {
        "image_projection": LINEAR,
        "text_projection": LINEAR,
        "scale_limited": True,
        "logit_bias_init": None,
    } | head
    projected = joins["image_projection"].kind != "none"

    def towers(config: DualEncoderConfig) -> tuple[TowerFiles, TowerFiles]:
        kinds = (image,) if image else ()
        return files_of(config.image, "transformers", kinds), files_of(config.text, "transformers", (text,))

    def read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
        if content.get("model_type") != name:
            raise ConfigError("config.json: model_type", content.get("model_type"), repr(name))
        joined = ("vision_config", "text_config", "vision_config_dict", "text_config_dict", "logit_scale_init_value")
        refuse_unknown(content, joined, key := "config.json: ")
        for number, example in (("logit_scale_init_value", 1.0), ("projection_dim", 1)):
            if number in content:
                refuse_type(number, content[number], example, key)
        # Where *_config_dict is present, transformers lets it win.
        vision, written = (
            {**object_of(content, f"{part}_config", key), **object_of(content, f"{part}_config_dict", key)}
            for part in ("vision", "text")
        )
        for part, kind, given in (("vision", image, vision), ("text", text, written)):
            if kind and given.get("model_type", kind) not in (kind, name):
                raise ConfigError(f"{key}{part}_config.model_type", given["model_type"], repr(kind))
        files = vision_files(vision | ({"model_type": image} if image else {}))
        image_config = files.read(vision, {})
        text_config = next(f for f in all_files("transformers", "text") if f.kind == text).read(written, {})
        embed_dim = content.get("projection_dim", 512)
        if not projected:
            embed_dim, found = image_config.outputs, written.get("projection_size") or text_config.outputs
            if found != embed_dim:
                expected = f"{embed_dim}, the image tower's width"
                raise ConfigError("config.json: text_config.projection_size", found, expected)
        if isinstance(text_config, TextTransformerConfig) and text_config.pooling == "last":
            pad_id = padding_id(folder, text_config.pad_id, text_config.vocab_size)
            text_config = dataclasses.replace(text_config, pad_id=pad_id)
        return DualEncoderConfig(
            image=image_config,
            text=text_config,
            embed_dim=embed_dim,
            logit_scale_init=float(content.get("logit_scale_init_value", logit_scale_init)),
            layout=name,
            **joins,
            **read_pixels(folder, files, image_config.channels),
        )

    def check(config: DualEncoderConfig) -> None:
        files, _ = towers(config)
        if files.alone:
            raise CannotHoldError(f"{architecture} cannot run the tower {files.kind!r}")
        found = {field: getattr(config, field) for field in joins}
        if found["logit_bias_init"] is not None:
            found["logit_bias_init"] = joins["logit_bias_init"] or 0.0  # its value lies in the weights
        if found != joins:
            raise CannotHoldError(f"{architecture} has {joined}")

    def all_keys(config: DualEncoderConfig) -> Keys:
        files, written = towers(config)
        vision = under(files.keys(config.image), ("vision",), "vision_model.")
        return keys | vision | under(written.keys(config.text), ("text",), "text_model.")

    def write(config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
        files, written = towers(config)
        parts = {"vision_config": files.write(config.image), "text_config": written.write(config.text)}
        content: Json = {"architectures": [architecture], "model_type": name, "dtype": dtype}
        if not projected:
            parts["text_config"]["projection_size"] = config.embed_dim
        else:
            content |= {"projection_dim": config.embed_dim, "logit_scale_init_value": config.logit_scale_init}
            if image:
                for part in parts.values():
                    part["projection_dim"] = config.embed_dim
        return {CONFIG: content | parts, PREPROCESSOR: _preprocessor(config)}

    return Layout(
        name=name,
        label=f"transformers, {architecture}",
        recognises=lambda content: content.get("model_type") == name,
        read=read,
        keys=all_keys,
        check=check,
        write=write,
        tidy=_tidy,
    )


def vision_files(content: Content) -> TowerFiles:
    """Return how transformers keeps the image tower with that config.

    Raises:
      ConfigError: a kind that no entry of the table of towers reads.
    """
    kind = str(content.get("model_type"))
    content = {**content, "model_type": _ALIASES.get(kind, kind)}
    files = files_reading(content, "transformers", "image")
    if files is None:
        known = [files.kind for files in all_files("transformers", "image")]
        key, expected = "config.json: vision_config.model_type", f"one of {', '.join(known)}"
        raise ConfigError(key, content["model_type"], expected, nearest(kind, known))
    return files


def _preprocessor(config: DualEncoderConfig) -> Json:
    """Return the content of preprocessor_config.json."""
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.pixel_mean or ()),
        "image_std": list(config.pixel_std or ()),
        "do_convert_rgb": config.channels == 3,
    }


def _tidy(weights: Weights) -> Weights:
    """Return tensors under today's keys; older files of VisionTextDualEncoder nest the image tower once more."""
    old, new = "vision_model.vision_model.", "vision_model."
    return modern_keys({key.replace(old, new, 1): value for key, value in weights.items()})


_PLAIN: Keys = {
    ("log_scale",): ("logit_scale", SAME),
    **linear("visual_projection", "visual_projection", bias=False),
    **linear("text_projection", "text_projection", bias=False),
}
_LEAD = Arrangement("lead", (1,))
_PLAIN_WORDS = "linear projections without bias, a limited logit scale, and no bias of the logits"
CLIP = _layout("clip", "CLIPModel", _PLAIN_WORDS, _PLAIN, image="clip_vision_model", text="clip_text_model")
VISION_TEXT = _layout("vision-text-dual-encoder", "VisionTextDualEncoderModel", _PLAIN_WORDS, _PLAIN, text="bert")
SIGLIP = _layout(
    "siglip",
    "SiglipModel",
    "a linear map with bias behind texts and none behind images, a free logit scale and a bias of the logits",
    {
        ("free_log_scale",): ("logit_scale", _LEAD),
        ("bias",): ("logit_bias", _LEAD),
        **linear("text_projection", "text_model.head"),
    },
    image="siglip_vision_model",
    text="siglip_text_model",
    image_projection=Projection(kind="none"),
    text_projection=Projection(bias=True),
    scale_limited=False,
    # ln 10 and -10: where the paper starts (section 3.2), for encoders that are initialised here.
    logit_bias_init=-10.0,
    logit_scale_init=2.3026,
)
