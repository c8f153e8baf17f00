"""Position embeddings for another image size or text length than an encoder was trained with."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp

from ranjax.models.checkpoints.naming import nest, paths
from ranjax.models.dual_encoder import DualEncoderFunctions, Params
from ranjax.models.encoder_config import resized, towers


def resize_positions(
    functions: DualEncoderFunctions, params: Params, image_size: int | None = None, max_length: int | None = None
) -> tuple[DualEncoderFunctions, Params]:
    """An encoder for images of another size or texts of another length; what changes is logged as a warning.

    Image positions are interpolated over their grid (cubic, antialiased, as open_clip does), that of a class token or
    of the mean stays. Text positions are cut where texts get shorter, so that short texts keep their features (but for
    SigLIP's, pooled at the last place), and interpolated linearly where they get longer.

    Raises:
      ConfigError: an `image_size` that the tower cannot take (a multiple of its patch or stride), or a `max_length`
        that is not positive.
    """
    config = functions.config
    changed = resized(
        config,
        config.image_size if image_size is None else image_size,
        config.max_length if max_length is None else max_length,
    )
    before, after = towers(config), towers(changed)
    flat: dict[tuple[str, ...], Any] = {}
    if after.image_size != before.image_size:
        flat |= _image_positions(params, before, after)
    if after.max_length != before.max_length:
        flat |= _text_positions(params, before.max_length, after.max_length)
    if flat:
        params = nest(paths(dict(params)) | flat)
    return dataclasses.replace(functions, config=changed), params


def _image_positions(params: Params, before: Any, after: Any) -> dict[tuple[str, ...], jax.Array]:
    table = before.image.position_table
    if table is None:
        return {}
    inner, first = table
    old, new = before.image.grid, after.image.grid
    path = ("vision", *inner)
    if old == new:
        return {}
    positions = paths(dict(params))[path]
    grid = positions[first:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    _say("image", f"{old} x {old} patches", f"{new} x {new}", "interpolated (cubic)")
    return {path: jnp.concatenate([positions[:first], grid.reshape(new * new, -1)])}


def _text_positions(params: Params, old: int, new: int) -> dict[tuple[str, ...], jax.Array]:
    positions = params["text"]["positions"]
    if new < old:
        _say("text", f"{old} tokens", str(new), "cut")
        positions = positions[:new]
    else:
        _say("text", f"{old} tokens", str(new), "interpolated (linear)")
        positions = jax.image.resize(positions, (new, positions.shape[1]), "linear")
    return {("text", "positions"): positions}


def _say(tower: str, old: str, new: str, how: str) -> None:
    logging.getLogger("ranjax").warning(
        "%s position embeddings %s from %s to %s: features differ from the checkpoint's until it is trained further",
        *(tower, how, old, new),
    )
