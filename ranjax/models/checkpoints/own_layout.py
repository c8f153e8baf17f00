"""This project's own layout: config.json with the towers' names and fields, and tensors under their paths.

It holds every encoder, also one whose tower no other library has.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Content, Json, Keys, Weights, paths
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.tower_table import TOWERS, tower_of

NAME = "ranjax"
# How to run an encoder is no part of its files.
_NOT_WRITTEN = ("image", "text", "grey_to_rgb", "compute_dtype", "remat", "scan", "layout")
_FIELDS = tuple(field.name for field in dataclasses.fields(DualEncoderConfig) if field.name not in _NOT_WRITTEN)


def _read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
    fields = {name: _frozen(content[name]) for name in _FIELDS if name in content}
    for name in ("image_projection", "text_projection"):
        fields[name] = Projection(**content[name])
    image, text = (_read_tower(content, part) for part in ("image", "text"))
    return DualEncoderConfig(image=image, text=text, layout=NAME, **fields)


def _read_tower(content: Content, part: str) -> Any:
    name, fields = content[f"{part}_tower"], content[part]
    tower = TOWERS.resolve(name, f"config.json: {part}_tower")
    known = {field.name for field in dataclasses.fields(tower.config)}
    if tower.kind != part or set(fields) != known:
        expected = f"the fields of {tower.config.__name__}: {', '.join(sorted(known))}"
        raise ConfigError(f"config.json: {part}", sorted(fields), expected)
    return tower.config(**{key: _frozen(value) for key, value in fields.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
    content: Json = {"model_type": NAME, "dtype": dtype}
    content |= {name: value for name, value in dataclasses.asdict(config).items() if name in _FIELDS}
    for part, tower in (("image", config.image), ("text", config.text)):
        content |= {f"{part}_tower": tower_of(tower).name, part: dataclasses.asdict(tower)}
    return {CONFIG: content}


def _keys(config: DualEncoderConfig) -> Keys:
    from ranjax.models.dual_encoder import DualEncoder

    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: DualEncoder(config, nnx.Rngs(0))), nnx.Param))
    return {path: (".".join(path), SAME) for path in paths(jax.tree.map(lambda leaf: leaf, shapes))}


OWN_LAYOUT = Layout(
    name=NAME,
    label="ranjax",
    recognises=lambda content: content.get("model_type") == NAME,
    read=_read,
    keys=_keys,
    write=_write,
)
