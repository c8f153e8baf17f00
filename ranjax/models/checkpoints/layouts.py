"""A dual encoder from files and into files: one table of layouts, and what every one of them shares."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.models.checkpoints.clip_files import CLIP
from ranjax.models.checkpoints.file_layout import FileLayout
from ranjax.models.checkpoints.medclip_files import MEDCLIP
from ranjax.models.checkpoints.naming import read_tree, write_tree
from ranjax.models.checkpoints.open_clip_files import OPEN_CLIP
from ranjax.models.checkpoints.siglip_files import SIGLIP
from ranjax.models.checkpoints.vision_text_files import VISION_TEXT
from ranjax.models.checkpoints.weight_files import (
    CONFIG,
    PICKLED,
    WEIGHTS,
    read_config,
    read_weights,
    refuse_pickles,
    weights_in,
    write_weights,
)
from ranjax.models.clip_config import DualEncoderConfig
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, Params, split, stored_dtype
from ranjax.models.encoder_config import TowersConfig

LAYOUTS: dict[str, FileLayout] = {layout.name: layout for layout in (CLIP, SIGLIP, VISION_TEXT, OPEN_CLIP, MEDCLIP)}
"""By the name that a config's field ``layout`` holds; the first that meets a folder reads it."""
# Older exports of open_clip keep its layout under another name.
_WEIGHTS = {OPEN_CLIP.name: (OPEN_CLIP.weights_file, "open_clip_pytorch_model.safetensors", WEIGHTS)}

Config = DualEncoderConfig | TowersConfig


def load(
    source: str | Path, strict: bool = True, dtype: str = "float32", layout: str | None = None, **overrides: Any
) -> tuple[DualEncoderFunctions, Params, Config]:
    """Reads a dual encoder in any layout of `LAYOUTS`.

    Args:
      source: a folder with a config and weights (one file, or shards with an index), or one .safetensors file with its
        config beside it.
      strict: raise on missing and extra keys; else missing ones are initialised afresh, and both are logged.
      dtype: of the parameters, "float32" or "float64"; half precision on disk is widened.
      layout: a name of `LAYOUTS`, where a folder holds several; None finds out.
      **overrides: fields of the config that say how to run, e.g. ``compute_dtype="bfloat16"``; ``grey_to_rgb=True`` (a
        1-channel image is repeated) is taken for towers of 3 channels only.

    Raises:
      DataError: files absent, damaged, pickled, or stand-ins (HTML page, LFS pointer).
      WeightsError: a DataError with the lists of missing, extra and mis-shaped keys.
      ConfigError: a model type, or a config, that no tower here implements.
    """
    source = Path(source)
    if source.suffix in PICKLED:
        read_weights(source)  # Raises, naming the command that converts it.
    folder = source.parent if source.is_file() else source
    chosen = _layout_of(folder, source if source.is_file() else None) if layout is None else _named(layout)
    content = chosen.config(folder)
    weights = dict(chosen.tidy(read_weights(source, _names(chosen))))
    config = chosen.read_config(content, folder, weights)
    if config.channels != 3:
        overrides.pop("grey_to_rgb", None)
    config = dataclasses.replace(config, **overrides)

    def fresh() -> Params:
        return split(DualEncoder(config, nnx.Rngs(0)))[1]

    template = jax.eval_shape(fresh)
    params = read_tree(weights, chosen.keys(config), template, source, None if strict else fresh, dtype=dtype)
    return DualEncoderFunctions(config), params, config


def save(folder: str | Path, functions: DualEncoderFunctions, params: Params, layout: str | None = None) -> str:
    """Writes a folder that `load` and the layout's own library read, at the parameters' precision.

    Args:
      folder: made where it is absent.
      functions, params: the encoder.
      layout: a name of `LAYOUTS`. None writes the layout that the encoder came in, or, where that cannot hold it, the
        first that can, which is logged.

    Returns:
      The name of the layout written.

    Raises:
      ConfigError: `layout` (or, with None, every layout) cannot hold this encoder; the reason is given.
    """
    config = functions.config
    if layout is None:
        chosen, own = writable_layout(config), _named(config.layout)
        if chosen is not own:
            logging.getLogger("ranjax").warning("written as %s, because %s", chosen.name, own.refuses(config))
    else:
        chosen = _named(layout)
        if (reason := chosen.refuses(config)) is not None:
            raise ConfigError("layout", layout, f"one that can hold this encoder: {reason}")
    weights = write_tree(params, chosen.keys(config))
    write_weights(folder, weights, chosen.write_config(config, str(stored_dtype(params))), chosen.weights_file)
    return chosen.name


def writable_layout(config: Config) -> FileLayout:
    """The layout that an encoder is written in: its own, or the first that can hold it.

    Raises:
      ConfigError: none can; every one's reason is given.
    """
    own = _named(config.layout)
    reasons = {option.name: option.refuses(config) for option in (own, *LAYOUTS.values())}
    chosen = next((name for name, reason in reasons.items() if reason is None), None)
    if chosen is None:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ConfigError("layout", own.name, f"no layout of files can hold this encoder ({told})")
    return LAYOUTS[chosen]


def kind_of(folder: str | Path) -> str:
    """What reads a folder's encoder: the class of transformers, or "open_clip", "medclip"."""
    layout = _layout_of(Path(folder))
    own = {} if layout.holds else read_config(folder, layout.config_file)
    return (own.get("architectures") or [layout.name])[0]


def weights_of(folder: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, under its own keys."""
    return read_weights(folder, _names(_layout_of(Path(folder))))


def _names(layout: FileLayout) -> tuple[str, ...]:
    return _WEIGHTS.get(layout.name, (layout.weights_file,))


def load_clip(source: str | Path, **options: Any) -> tuple[DualEncoderFunctions, Params, Config]:
    """`load` of a CLIPModel, whatever else its folder holds."""
    return load(source, layout=CLIP.name, **options)


def save_clip(folder: str | Path, functions: DualEncoderFunctions, params: Params) -> None:
    """`save` as a CLIPModel."""
    save(folder, functions, params, layout=CLIP.name)


def _named(name: str) -> FileLayout:
    if name not in LAYOUTS:
        raise ConfigError("layout", name, f"one of {', '.join(LAYOUTS)}", nearest(name, LAYOUTS))
    return LAYOUTS[name]


def _layout_of(folder: Path, file: Path | None = None) -> FileLayout:
    """The layout of a folder: one whose own weights are there, if several configs are."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder, and no .safetensors file")
    met = [layout for layout in LAYOUTS.values() if layout.meets(folder, file)]
    for layout in met:
        if weights_in(folder, (layout.weights_file,)) is not None:
            return layout
    if met:
        return met[0]
    if not (folder / CONFIG).is_file():
        refuse_pickles(folder)  # An archive that consists of a pickle alone.
    kind = read_config(folder).get("model_type")
    allowed = (
        "one of clip, siglip, vision-text-dual-encoder (or a folder with open_clip_config.json, or MedCLIP's weights)"
    )
    raise ConfigError("config.json: model_type", kind, allowed, nearest(str(kind), LAYOUTS))
