"""This project's own layout: config.json with the towers' names and fields, and tensors under their paths.

It holds every encoder, also one whose tower no other library has.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.config_keys import object_of, refuse_type, refuse_unknown
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Content, Json, Keys, Weights, paths
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.tower_table import TOWERS, tower_of

NAME, _KEY = "ranjax", "config.json: "
# How to run an encoder is no part of its files.
_NOT_WRITTEN = ("image", "text", "grey_to_rgb", "compute_dtype", "remat", "scan", "attention", "layout")
_FIELDS = tuple(field.name for field in dataclasses.fields(DualEncoderConfig) if field.name not in _NOT_WRITTEN)


def _read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
    needed = ("image", "text", "image_tower", "text_tower", "image_projection", "text_projection", "embed_dim")
    refuse_unknown(content, (*_FIELDS, *needed, "model_type", "dtype"), _KEY, frozenset())
    for name in needed:
        if name not in content:
            raise ConfigError(_KEY + name, None, "present")
    fields = _checked(DualEncoderConfig, {name: content[name] for name in _FIELDS if name in content}, _KEY)
    for name in ("image_projection", "text_projection"):
        fields[name] = Projection(**_whole(Projection, content, name))
    image, text = (_read_tower(content, part) for part in ("image", "text"))
    return DualEncoderConfig(image=image, text=text, layout=NAME, **fields)


def _read_tower(content: Content, part: str) -> Any:
    name = content[f"{part}_tower"]
    refuse_type(f"{part}_tower", name, "", _KEY)
    tower = TOWERS.resolve(name, f"{_KEY}{part}_tower")
    if tower.kind != part:
        raise ConfigError(f"{_KEY}{part}_tower", name, f"a tower of kind {part}")
    return tower.config(**_whole(tower.config, content, part))


def _whole(kind: type, content: Content, key: str) -> dict[str, Any]:
    """Return the object under `key`, which has every field of a dataclass and no other."""
    given, known = object_of(content, key, _KEY), {field.name for field in dataclasses.fields(kind)}
    if set(given) != known:
        expected = f"the fields of {kind.__name__}: {', '.join(sorted(known))}"
        raise ConfigError(f"{_KEY}{key}", sorted(given), expected)
    return _checked(kind, given, f"{_KEY}{key}.")


def _checked(kind: type, given: Content, prefix: str) -> dict[str, Any]:
    """Return fields of a dataclass, lists as tuples. Raises ConfigError for a value of another type."""
    hints = typing.get_type_hints(kind)
    for key, value in given.items():
        if not _fits(value, hints[key]) and key not in ("image_projection", "text_projection"):
            raise ConfigError(prefix + key, value, f"a value of type {getattr(hints[key], '__name__', hints[key])}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value of JSON is of a type: a number, text, truth value, null, or a list of one of these."""
    if inner := typing.get_args(hint):
        if typing.get_origin(hint) is tuple:
            return isinstance(value, list) and all(_fits(part, inner[0]) for part in value)
        return any(_fits(value, part) for part in inner)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint if hint in (int, str, bool, type(None)) else True


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
