"""Position embeddings for another image size or text length than an encoder was trained with."""

from __future__ import annotations

import dataclasses
import logging

import jax
import jax.numpy as jnp

from ranjax.errors import ConfigError
from ranjax.models.dual_encoder import DualEncoderFunctions, Params


def resize_positions(
    functions: DualEncoderFunctions, params: Params, image_size: int | None = None, max_length: int | None = None
) -> tuple[DualEncoderFunctions, Params]:
    """An encoder for images of another size or texts of another length; what changes is logged as a warning.

    Image positions are interpolated over the grid of patches (cubic, antialiased, as open_clip does), the class
    token's stays. Text positions are cut where texts get shorter, so that short texts keep their features, and
    interpolated linearly where they get longer.

    Raises:
      ConfigError: `image_size` is not a multiple of the patch size, or `max_length` not positive.
    """
    config = functions.config
    changes = {"image_size": image_size or config.image_size, "max_length": max_length or config.max_length}
    resized = dataclasses.replace(config, **changes)
    if resized.max_length != changes["max_length"]:
        raise ConfigError("model.max_length", max_length, f"{config.max_length}: this text tower keeps its length")
    vision, text = dict(params["vision"]), dict(params["text"])
    if resized.patches != config.patches:
        old, new = (c.image_size // c.patch_size for c in (config, resized))
        positions = vision["positions"]
        grid = positions[1:].reshape(old, old, -1)
        grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
        vision["positions"] = jnp.concatenate([positions[:1], grid.reshape(new * new, -1)])
        _say("image", f"{old} x {old} patches", f"{new} x {new}", "interpolated (cubic)")
    if resized.max_length < config.max_length:
        text["positions"] = text["positions"][: resized.max_length]
        _say("text", f"{config.max_length} tokens", str(resized.max_length), "cut")
    elif resized.max_length > config.max_length:
        shape = (resized.max_length, config.text_width)
        text["positions"] = jax.image.resize(text["positions"], shape, "linear")
        _say("text", f"{config.max_length} tokens", str(resized.max_length), "interpolated (linear)")
    return dataclasses.replace(functions, config=resized), {**params, "vision": vision, "text": text}


def _say(tower: str, old: str, new: str, how: str) -> None:
    logging.getLogger("ranjax").warning(
        "%s position embeddings %s from %s to %s: features differ from the checkpoint's until it is trained further",
        *(tower, how, old, new),
    )
