"""open_clip: open_clip_config.json and its keys, in and out.

CLIP's own towers (vision transformer, ResNet, causal text), timm's vision transformers and ResNets, BERTs of
transformers: so also BiomedCLIP, and ResNet-50 beside BioClinicalBERT.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints import timm_towers
from ranjax.models.checkpoints.bert_files import modern_keys, read_bert_config, write_bert_config
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Content, Json, Keys, Weights, inside, linear, under
from ranjax.models.checkpoints.open_clip_towers import bert_pooling, read_bert
from ranjax.models.checkpoints.padding_token import padding_id
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.contract import CLIP_MEAN, CLIP_STD, ImageTowerConfig, TextTowerConfig, TowerFiles
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import BertConfig
from ranjax.models.towers.tower_table import CannotHoldError, files_of, files_reading

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_KEY = f"{OPEN_CLIP_CONFIG}: "
# What open_clip's configs do not say and timm's or transformers' names stand for; open_clip ignores this key.
OWN = "ranjax"
_TRUNK, _BERT = "visual.trunk.", "text.transformer."


def _read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
    model = content.get("model_cfg", content)
    pixels, own = content.get("preprocess_cfg") or {}, content.get(OWN) or {}
    for key in ("vision_cfg", "text_cfg", "embed_dim"):
        if key not in model:
            raise ConfigError(_KEY + key, None, "present")
    if "multimodal_cfg" in model:
        raise ConfigError(f"{_KEY}multimodal_cfg", "CoCa", "absent: two towers without a decoder")
    shared = {"embed_dim": model["embed_dim"], "activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    image, image_projection = _read_image(shared | dict(model["vision_cfg"]) | own, weights)
    text, text_projection = _read_text(shared | dict(model["text_cfg"]), weights, folder)
    rgb = image.channels == 3
    bias = "logit_bias" in weights or model.get("init_logit_bias") is not None
    return DualEncoderConfig(
        image=image,
        text=text,
        embed_dim=model["embed_dim"],
        image_projection=image_projection,
        text_projection=text_projection,
        scale_limited=not bias,
        logit_bias_init=float(model.get("init_logit_bias", -10.0)) if bias else None,
        pixel_mean=tuple(pixels.get("mean") or (CLIP_MEAN if rgb else ())) or None,
        pixel_std=tuple(pixels.get("std") or (CLIP_STD if rgb else ())) or None,
        layout="open_clip",
    )


def _read_image(content: Content, weights: Weights) -> tuple[ImageTowerConfig, Projection]:
    name, size = content.get(timm_towers.NAME), content["embed_dim"]
    if not name:
        files = files_reading(content, "open_clip", "image")
        assert files is not None
        image = files.read(content, inside(weights, "visual."))
        return image, LINEAR if files.kind == "vit" else Projection(kind="none")
    files = files_reading(content, "timm", "image")
    if files is None:
        raise ConfigError(_KEY + timm_towers.NAME, name, timm_towers.KNOWN)
    image = files.read(content, inside(weights, _TRUNK))
    pool, given = files.write(image)[timm_towers.POOL], content.get(timm_towers.POOL, "avg")
    if given not in ("", pool):
        raise ConfigError(_KEY + timm_towers.POOL, given, f"'' or {pool!r}")
    kind, bias = content.get("timm_proj", "linear"), content.get("timm_proj_bias", False)
    if kind == "none":
        return image, Projection(kind="none")
    if kind == "linear":
        return image, Projection(bias=bias)
    if kind == "mlp":
        return image, Projection(kind="mlp", hidden=2 * size, hidden_bias=True, bias=bias)
    raise ConfigError(f"{_KEY}timm_proj", kind, "'linear', 'mlp' or 'none'")


def _read_text(content: Content, weights: Weights, folder: Path) -> tuple[TextTowerConfig, Projection]:
    size = content["embed_dim"]
    if content.get("hf_model_name"):
        bert = bert_of(content, inside(weights, _BERT), folder)
        kind = content.get("hf_proj_type", "mlp")
        if kind not in ("linear", "mlp", None):
            raise ConfigError(f"{_KEY}hf_proj_type", kind, "'linear', 'mlp' or null")
        return bert, Projection(kind=kind or "none", hidden=(bert.width + size) // 2 if kind == "mlp" else 0)
    files = files_reading(content, "open_clip", "text")
    assert files is not None
    if content.get("pool_type") == "last":
        pad = padding_id(folder, content.get("pad_id"), content.get("vocab_size", 49408))
        content = {**content, "pad_id": pad}
    return files.read(content, weights), Projection(bias=content.get("proj_bias", False))


def bert_of(content: Content, weights: Weights, folder: Path) -> BertConfig:
    """Return a BERT: by the folder's config.json if that is a BERT's, else by shapes, which is logged.

    Args:
      content: ``hf_model_name`` and ``hf_pooler_type`` of a ``text_cfg``.
      weights: of the BERT, its own keys.
      folder: of the checkpoint.

    Raises:
      ConfigError: a config.json of a BERT that is not implemented, or a pooling that is none.
      WeightsError: the tensors by which a BERT is recognised are missing.
    """
    name, pooling = content["hf_model_name"], bert_pooling(content)
    try:
        found = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        found = {}
    if found.get("model_type") == "bert":
        return dataclasses.replace(read_bert_config(found, pooling), name=name)
    bert = read_bert(content, weights)
    logging.getLogger("ranjax").warning(
        "%s names its text tower %r and holds no config.json of it: taken as a BERT of width %d with %d heads",
        *(folder, name, bert.width, bert.heads),
    )
    return bert


def _towers(config: DualEncoderConfig) -> tuple[TowerFiles, TowerFiles]:
    """Return how both towers are kept; raises CannotHoldError."""
    try:
        image = files_of(config.image, "open_clip")
    except CannotHoldError:
        image = files_of(config.image, "timm")
    return image, files_of(config.text, "open_clip")


def _check(config: DualEncoderConfig) -> None:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    if image.library == "open_clip" and shown != (LINEAR if image.kind == "vit" else Projection(kind="none")):
        raise CannotHoldError("open_clip's own image towers have a projection of their own kind")
    if getattr(config.image, "pooling", "") == "probe" and shown.kind != "none":
        raise CannotHoldError("open_clip's SigLIP projects images not at all")
    if text.kind == "bert":
        if written.kind == "mlp" and written.hidden != (config.text.outputs + config.embed_dim) // 2:
            raise CannotHoldError("open_clip's MLP behind a text tower is half as wide as both ends together")
    elif written.kind != "linear":
        raise CannotHoldError("open_clip has a linear map behind its own text tower")
    own = [tower for tower, files in ((config.image, image), (config.text, text)) if files.kind != "bert"]
    quick = {tower.activation == "quick_gelu" for tower in own if hasattr(tower, "activation")}
    if image.library == "open_clip" and len(quick) > 1:
        raise CannotHoldError("open_clip has QuickGELU in both towers or in none")


def _write(config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    vision_cfg = {"image_size": config.image_size, **image.write(config.image)}
    own = {timm_towers.HEADS: vision_cfg.pop(timm_towers.HEADS)} if timm_towers.HEADS in vision_cfg else {}
    if image.library == "timm":
        vision_cfg |= {"timm_model_pretrained": False, "timm_proj": shown.kind, "timm_proj_bias": shown.bias}
    text_cfg = text.write(config.text)
    model: Json = {"embed_dim": config.embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    files: dict[str, Json] = {}
    activation = getattr(config.text if text.kind != "bert" else config.image, "activation", "")
    model["quick_gelu"] = activation == "quick_gelu"
    if isinstance(config.text, BertConfig):
        text_cfg["hf_proj_type"] = None if written.kind == "none" else written.kind
        files[CONFIG] = write_bert_config(config.text)
    elif written.bias:
        text_cfg["proj_bias"] = model["custom_text"] = True
    if config.logit_bias_init is not None:
        model["init_logit_bias"] = config.logit_bias_init
    content: Json = {"model_cfg": model}
    content["preprocess_cfg"] = {"mean": list(config.pixel_mean or ()), "std": list(config.pixel_std or ())}
    if own:
        content[OWN] = own
    return files | {OPEN_CLIP_CONFIG: content}


def _keys(config: DualEncoderConfig) -> Keys:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    keys: Keys = {("log_scale" if config.scale_limited else "free_log_scale",): ("logit_scale", SAME)}
    if config.logit_bias_init is not None:
        keys[("bias",)] = ("logit_bias", SAME)
    if image.library == "timm":
        keys |= under(image.keys(config.image), ("vision",), _TRUNK)
        keys |= _projection("visual_projection", shown, "visual.head.proj", "visual.head.mlp.fc{}", (1, 2))
    else:
        keys |= under(image.keys(config.image), ("vision",), "visual.")
        if shown.kind == "linear":
            keys[("visual_projection", "kernel")] = ("visual.proj", SAME)
    if text.kind == "bert":
        keys |= under(text.keys(config.text), ("text",), _BERT)
        return keys | _projection("text_projection", written, "text.proj", "text.proj.{}", (0, 2))
    if written.bias:
        # SigLIP's: a linear module, in a class that keeps the tower apart.
        keys |= under(text.keys(config.text), ("text",), "text.")
        return keys | linear("text_projection", "text.text_projection")
    keys[("text_projection", "kernel")] = ("text_projection", SAME)
    return keys | under(text.keys(config.text), ("text",), "")


def _projection(path: str, projection: Projection, plain: str, mlp: str, numbers: tuple[int, int]) -> Keys:
    """Return the keys of a projection: `plain` of a linear map, `mlp` with ``{}`` for the numbers of an MLP's two."""
    if projection.kind == "none":
        return {}
    if projection.kind == "linear":
        return linear(path, plain, projection.bias)
    first, second = (mlp.format(number) for number in numbers)
    return linear(f"{path}/fc1", first, projection.hidden_bias) | linear(f"{path}/fc2", second, projection.bias)


def _tidy(weights: Weights) -> Weights:
    """Return BERTs under today's names; native text towers behind "text." where the projection is a linear module.

    open_clip has two classes for the same towers, with and without that prefix. SigLIP's are published with it, CLIP's
    without.
    """
    weights = modern_keys(weights)
    prefixed = "text.token_embedding.weight" in weights
    module = any(key.endswith("text_projection.weight") for key in weights)
    if prefixed and not module:
        return {key.removeprefix("text."): value for key, value in weights.items()}
    if module and not prefixed:
        outside = ("visual.", "logit_")
        return {key if key.startswith(outside) else f"text.{key}": value for key, value in weights.items()}
    return weights


OPEN_CLIP = Layout(
    name="open_clip",
    label="open_clip",
    recognises=lambda content: "vision_cfg" in content.get("model_cfg", content),
    read=_read,
    keys=_keys,
    check=_check,
    write=_write,
    config_file=OPEN_CLIP_CONFIG,
    weights_file=OPEN_CLIP_WEIGHTS,
    # Older exports have the same layout under other names.
    older_weights=("open_clip_pytorch_model.safetensors", WEIGHTS),
    tidy=_tidy,
)
