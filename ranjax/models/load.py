"""A dual encoder from any folder this package reads, by what its config.json says it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ranjax.errors import ConfigError, nearest
from ranjax.models.clip_files import load_clip, save_clip
from ranjax.models.config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoderFunctions, Params
from ranjax.models.vision_bert import VisionBertConfig, load_vision_bert, save_vision_bert
from ranjax.models.weight_files import read_config

READERS = {"clip": load_clip, "vision-text-dual-encoder": load_vision_bert}
"""By `model_type` of config.json."""


def load(folder: str | Path, **overrides: Any) -> tuple[DualEncoderFunctions, Params, DualEncoderConfig]:
    """Reads a dual encoder as `transformers` saves it: CLIPModel, or VisionTextDualEncoderModel of a CLIP and a BERT.

    Args:
      folder: config.json with model.safetensors or its shards.
      **overrides: fields of the config that say how to run; ``grey_to_rgb=True`` (a 1-channel image is repeated) is
        taken for towers of 3 channels only.

    Raises:
      DataError: files absent, damaged, pickled, or stand-ins (HTML page, LFS pointer).
      WeightsError: a DataError with the lists of missing, extra and mis-shaped keys.
      ConfigError: a model type, or a config, that no tower here implements.
    """
    content = read_config(folder)
    kind = content.get("model_type")
    if kind not in READERS:
        raise ConfigError("config.json: model_type", kind, f"one of {sorted(READERS)}", nearest(str(kind), READERS))
    channels = (content.get("vision_config") or {}).get("num_channels", 3)
    if channels != 3:
        overrides.pop("grey_to_rgb", None)
    functions, params, config = READERS[kind](folder, **overrides)
    return functions, params, config


def save(folder: str | Path, functions: DualEncoderFunctions, params: Params) -> None:
    """Writes a folder that `load` and `transformers` read. Raises ConfigError for what the latter cannot express."""
    write = save_vision_bert if isinstance(functions.config, VisionBertConfig) else save_clip
    write(folder, functions, params)
