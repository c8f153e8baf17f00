"""The same weights under two names: a path in the parameter pytree, and a key in a file of another library.

A `Layout` lists, for every path, the file's key and how its axes lie there. Reading and writing both walk that one
list, so that a round trip is exact by construction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.models.weight_files import WeightsError

Tree = dict[str, Any]
# Parameter path -> (key in the file, arrangement of the axes there).
Layout = dict[tuple[str, ...], tuple[str, str]]

SAME, LINEAR = "same", "linear"


def patch_arrangement(size: int, channels: int) -> str:
    """Arrangement of a patch embedding: [size * size * channels, width] here, [width, channels, size, size] there."""
    return f"patch {size} {channels}"


def to_file(value: np.ndarray, arrangement: str) -> np.ndarray:
    """An array as the file holds it."""
    if arrangement == SAME:
        return value
    if arrangement == LINEAR:
        return value.T
    _, size, channels = arrangement.split()
    return value.reshape(int(size), int(size), int(channels), -1).transpose(3, 2, 0, 1)


def from_file(value: np.ndarray, arrangement: str) -> np.ndarray:
    """An array as the parameter pytree holds it; inverse of `to_file`."""
    if arrangement == SAME:
        return value
    if arrangement == LINEAR:
        return value.T
    return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])


def file_shape(shape: tuple[int, ...], arrangement: str) -> tuple[int, ...]:
    """Shape in the file of a parameter of `shape`."""
    return to_file(np.broadcast_to(np.float32(0), shape), arrangement).shape


def paths(tree: Tree) -> dict[tuple[str, ...], Any]:
    """Leaves of a nested dict by their path, in natural order (layer 2 before layer 10)."""
    flat = {
        tuple(str(entry.key) for entry in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    return dict(sorted(flat.items(), key=lambda item: [(part.isdigit(), part.zfill(6)) for part in item[0]]))


def nest(flat: Mapping[tuple[str, ...], Any]) -> Tree:
    """Inverse of `paths`."""
    tree: Tree = {}
    for path, leaf in flat.items():
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = leaf
    return tree


def read_tree(
    weights: Mapping[str, np.ndarray],
    layout: Layout,
    template: Tree,
    source: str | Path,
    fresh: Callable[[], Tree] | None = None,
    ignored: tuple[str, ...] = ("position_ids",),
    dtype: str = "float32",
) -> Tree:
    """Fills the tree of `template` from a file's tensors.

    Args:
      weights: the file's tensors; half precision is widened to `dtype`.
      layout: path -> (key, arrangement), one entry for each leaf of the template.
      template: pytree of shapes.
      source: where the weights came from, for messages.
      fresh: None raises on any missing or extra key. A function that initialises the whole tree logs them instead,
        and gives the missing ones their values; only those are computed.
      ignored: last parts of keys that carry no weights (buffers of older files).
      dtype: "float32" or "float64" (the latter under x64).

    Raises:
      WeightsError: keys missing or extra (without `fresh`), or mis-shaped (always).
    """
    leaves = paths(template)
    known = {key for key, _ in layout.values()}
    missing = sorted(key for key in known if key not in weights)
    extra = sorted(key for key in weights if key not in known and key.rsplit(".", 1)[-1] not in ignored)
    misshaped, filled = [], {}
    for path, leaf in leaves.items():
        key, arrangement = layout[path]
        if key not in weights:
            continue
        wanted = file_shape(leaf.shape, arrangement)
        if weights[key].shape != wanted:
            misshaped.append((key, weights[key].shape, wanted))
            continue
        filled[path] = jnp.asarray(np.asarray(from_file(weights[key], arrangement), np.dtype(dtype), order="C"))
    if misshaped or (fresh is None and (missing or extra)):
        raise WeightsError(str(source), missing, extra, misshaped)
    if fresh is not None and missing:
        absent = [path for path in leaves if layout[path][0] not in weights]
        filled |= dict(zip(absent, jax.jit(lambda: [paths(fresh())[path] for path in absent])()))
    if missing or extra:
        logging.getLogger("ranjax").warning(
            "%s: %d keys missing and freshly initialised (%s); %d unknown and left out (%s)",
            *(source, len(missing), ", ".join(missing), len(extra), ", ".join(extra)),
        )
    return nest(filled)


def write_tree(params: Tree, layout: Layout) -> dict[str, np.ndarray]:
    """The file's tensors of a parameter tree. Raises WeightsError where the tree and the layout do not match."""
    leaves = paths(params)
    if set(leaves) != set(layout):
        missing = sorted("/".join(path) for path in set(layout) - set(leaves))
        extra = sorted("/".join(path) for path in set(leaves) - set(layout))
        raise WeightsError("the parameters given", missing, extra, [])
    return {key: to_file(np.asarray(leaves[path]), arrangement) for path, (key, arrangement) in layout.items()}
