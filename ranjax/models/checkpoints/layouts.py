"""A dual encoder from files and into files: the table of layouts, and what every one of them shares."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.registry import Table
from ranjax.core.types import Params
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.medclip_files import MEDCLIP
from ranjax.models.checkpoints.naming import read_tree, write_tree
from ranjax.models.checkpoints.open_clip_files import OPEN_CLIP
from ranjax.models.checkpoints.own_layout import OWN_LAYOUT
from ranjax.models.checkpoints.transformers_layouts import CLIP, SIGLIP, VISION_TEXT
from ranjax.models.checkpoints.weight_files import (
    CONFIG,
    PICKLED,
    read_config,
    read_weights,
    refuse_pickles,
    weights_in,
    write_weights,
)
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split, stored_dtype
from ranjax.models.encoder_config import DualEncoderConfig

LAYOUTS: Table[Layout] = Table(
    "layout", Layout, (CLIP, SIGLIP, VISION_TEXT, OPEN_CLIP, MEDCLIP, OWN_LAYOUT), key="layout"
)
"""By the name that a config's field `layout` holds; the first that meets a folder reads it, the last holds anything."""


def load(
    source: str | Path, strict: bool = True, dtype: str = "float32", layout: str | None = None, **overrides: Any
) -> tuple[DualEncoderFunctions, Params, DualEncoderConfig]:
    """Read a dual encoder in any layout of `LAYOUTS`.

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
        refuse_pickles(source)
    folder = source.parent if source.is_file() else source
    chosen = _layout_of(folder, source if source.is_file() else None) if layout is None else LAYOUTS.resolve(layout)
    content = chosen.content(folder)
    weights = dict(chosen.tidy(read_weights(source, chosen.weights_files)))
    config = chosen.read(content, folder, weights)
    if config.channels != 3:
        overrides.pop("grey_to_rgb", None)
    config = dataclasses.replace(config, **overrides)

    def fresh() -> Params:
        return split(DualEncoder(config, nnx.Rngs(0)))[1]

    template = jax.eval_shape(fresh)
    params = read_tree(weights, chosen.keys(config), template, source, None if strict else fresh, dtype=dtype)
    return DualEncoderFunctions(config), params, config


def save(folder: str | Path, functions: DualEncoderFunctions, params: Params, layout: str | None = None) -> str:
    """Write a folder that `load` and the layout's own library read, at the parameters' precision.

    Args:
      folder: made where it is absent.
      functions, params: the encoder.
      layout: a name of `LAYOUTS`. None writes the layout that the encoder came in, or, where that cannot hold it, the
        first that can, which is logged.

    Returns:
      The name of the layout written.

    Raises:
      ConfigError: `layout` cannot hold this encoder; the reason is given.
    """
    config = functions.config
    if layout is None:
        chosen = writable_layout(config)
        if config.layout not in ("", chosen.name):
            reason = LAYOUTS.resolve(config.layout).refuses(config)
            logging.getLogger("ranjax").warning("written as %s, because %s", chosen.name, reason)
    else:
        chosen = LAYOUTS.resolve(layout)
        if reason := chosen.refuses(config):
            raise ConfigError("layout", layout, f"one that can hold this encoder: {reason}")
    weights = write_tree(params, chosen.keys(config))
    write_weights(folder, weights, chosen.write(config, str(stored_dtype(params))), chosen.weights_files[0])
    return chosen.name


def writable_layout(config: DualEncoderConfig) -> Layout:
    """Return the layout that an encoder is written in: its own, or the first that can hold it."""
    own = [LAYOUTS.resolve(config.layout)] if config.layout else []
    return next(layout for layout in (*own, *LAYOUTS.values()) if not layout.refuses(config))


def kind_of(folder: str | Path) -> str:
    """Return what reads a folder's encoder: the class of transformers, or a layout's name, e.g. "open_clip"."""
    layout = _layout_of(Path(folder))
    content = {} if layout.holds else read_config(folder, layout.config_file)
    return (content.get("architectures") or [layout.name])[0]


def weights_of(folder: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a folder, under its own keys."""
    return read_weights(folder, _layout_of(Path(folder)).weights_files)


def _layout_of(folder: Path, file: Path | None = None) -> Layout:
    """Return the layout of a folder: one whose own weights are there, if several configs are."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder, and no .safetensors file")
    met = [layout for layout in LAYOUTS.values() if layout.meets(folder, file)]
    for layout in met:
        if weights_in(folder, layout.weights_files[:1]) is not None:
            return layout
    if met:
        return met[0]
    if not (folder / CONFIG).is_file():
        refuse_pickles(folder)  # An archive that consists of a pickle alone.
    kind = str(read_config(folder).get("model_type"))
    named = ", ".join(layout.name for layout in LAYOUTS.values() if layout.config_file == CONFIG and not layout.holds)
    expected = f"one of {named} (or a folder with {OPEN_CLIP.config_file}, or MedCLIP's weights)"
    raise ConfigError("config.json: model_type", kind, expected, nearest(kind, LAYOUTS))
