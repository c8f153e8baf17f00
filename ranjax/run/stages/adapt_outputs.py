"""The tensors that the adapt stage left in its folder, read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from ranjax.core.types import Params

FILE = "heads.safetensors"


def load_heads(folder: Path) -> dict[str, Params]:
    """Return {method: {"params", "stats", "encoder" where a filter stands in front}} with a leading axis of seeds."""
    found = _nested(load_file(folder / FILE))
    for heads in found.values():
        heads.setdefault("stats", {})
    return found


def load_tower(folder: Path, name: str) -> dict[str, Params]:
    """Return {"encoder", "head" where there is one} of a method that tuned the tower, with a leading axis of seeds."""
    found = _nested(load_file(folder / "tuned" / f"{name}.safetensors"))
    found.setdefault("encoder", {})
    if "head" in found:
        found["head"].setdefault("stats", {})
    return found


def _nested(tensors: Mapping[str, np.ndarray]) -> dict[str, Params]:
    found: dict[str, Params] = {}
    for path, value in tensors.items():
        node = found
        *parts, last = path.split("/")
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(value)
    return found
