"""The tensors that the adapt stage leaves in its folder, named by their paths."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from ranjax.core.types import Params
from ranjax.models.checkpoints.naming import nest, paths

FILE = "heads.safetensors"


def flat(tree: Params) -> dict[str, np.ndarray]:
    """Return the arrays of a nested dict by their paths, "classifier/kernel", as a file of tensors holds them."""
    return {"/".join(path): np.ascontiguousarray(leaf) for path, leaf in paths(tree).items()}


def load_heads(folder: Path) -> dict[str, Params]:
    """Return {method: {"params", "stats", "encoder" where a filter stands in front}} with a leading axis of seeds."""
    return {name: {"stats": {}, **head} for name, head in _load(folder / FILE).items()}


def load_tower(folder: Path, name: str) -> dict[str, Params]:
    """Return {"encoder", "head" where there is one} of a method that tuned the tower, with a leading axis of seeds."""
    found = {"encoder": {}, **_load(folder / "tuned" / f"{name}.safetensors")}
    return found | ({"head": {"stats": {}, **found["head"]}} if "head" in found else {})


def _load(file: Path) -> dict[str, Params]:
    tree: dict[str, Params] = nest(
        {tuple(path.split("/")): jax.device_put(leaf) for path, leaf in load_file(file).items()}
    )
    return tree
