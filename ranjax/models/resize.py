"""Position embeddings for another image size or text length than an encoder was trained with."""

from __future__ import annotations

import dataclasses
import logging

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.checkpoints.naming import TreePath, nest, paths
from ranjax.models.dual_encoder import DualEncoderFunctions
from ranjax.models.towers.contract import ImageTowerConfig


def resize_positions(
    functions: DualEncoderFunctions, params: Params, image_size: int | None = None, max_length: int | None = None
) -> tuple[DualEncoderFunctions, Params]:
    """Return an encoder for images of another size or texts of another length; what changes is logged as a warning.

    Image positions are interpolated over their grid (cubic, antialiased, as open_clip does), that of a class token or
    of the mean stays. Text positions are cut where texts get shorter, so that short texts keep their features (but for
    SigLIP's, pooled at the last place), and interpolated linearly where they get longer.

    Raises:
      ConfigError: an `image_size` that the tower cannot take (a multiple of its patch or stride), or a `max_length`
        that is not positive.
    """
    before = functions.config
    size = before.image_size if image_size is None else image_size
    length = before.max_length if max_length is None else max_length
    if length < 1:
        raise ConfigError("model.max_length", length, "a whole number of at least 1")
    image = dataclasses.replace(before.image, image_size=size)
    after = dataclasses.replace(before, image=image, text=dataclasses.replace(before.text, max_length=length))
    flat = _image_positions(params, before.image, image) | _text_positions(params, before.max_length, length)
    if flat:
        params = nest(paths(params) | flat)
    return dataclasses.replace(functions, config=after), params


def _image_positions(
    params: Params, before: ImageTowerConfig, after: ImageTowerConfig
) -> dict[TreePath, Float[Array, "positions width"]]:
    if before.position_table is None or before.grid == after.grid:
        return {}
    inner, first = before.position_table
    old, new, path = before.grid, after.grid, ("vision", *inner)
    positions = paths(params)[path]
    grid = positions[first:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    _say("image", f"{old} x {old} patches", f"{new} x {new}", "interpolated (cubic)")
    return {path: jnp.concatenate([positions[:first], grid.reshape(new * new, -1)])}


def _text_positions(params: Params, old: int, new: int) -> dict[TreePath, Float[Array, "positions width"]]:
    positions = params["text"].get("positions")
    if positions is None or old == new:
        return {}
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
