"""The same weights under two names: a path in the parameter pytree, and a key in a file of another library.

A `Layout` lists, for every path, the file's key and how its axes lie there. Reading and writing both walk that one
list, so that a round trip is exact by construction.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.models.checkpoints.weight_files import WeightsError

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How the axes of an array lie in the file.

    Attributes:
      kind: "same"; "linear", [in, out] here and [out, in] there; "patch", [size * size * channels, width] here and
        [width, channels, size, size] there; "conv", [height, width, in, out] here and [out, in, height, width] there;
        "lead", with `sizes[0]` axes of length 1 in front there.
      sizes: what "patch" (size, channels) and "lead" need to know.
      part, parts: the array is that one of so many, stacked along the first axis of one tensor in the file, as
        query, key and value of a torch MultiheadAttention are.
    """

    kind: str
    sizes: tuple[int, ...] = ()
    part: int = 0
    parts: int = 1

    def of(self, part: int, parts: int) -> Arrangement:
        """The same, as one of several parts of a tensor."""
        return dataclasses.replace(self, part=part, parts=parts)


# Parameter path -> (key in the file, arrangement of the axes there).
Layout = dict[tuple[str, ...], tuple[str, Arrangement]]

SAME, LINEAR, CONV = Arrangement("same"), Arrangement("linear"), Arrangement("conv")
# Buffers that hold no weights: of older files, and the count of batches that a batch norm has seen.
BUFFERS = ("position_ids", "num_batches_tracked")


def patch_arrangement(size: int, channels: int) -> Arrangement:
    """Arrangement of a patch embedding."""
    return Arrangement("patch", (size, channels))


def lead_arrangement(axes: int) -> Arrangement:
    """Arrangement of an array with so many axes of length 1 in front, in the file."""
    return Arrangement("lead", (axes,))


def linear(path: tuple[str, ...], key: str, bias: bool = True) -> Layout:
    """A linear map."""
    layout: Layout = {(*path, "kernel"): (f"{key}.weight", LINEAR)}
    return layout | {(*path, "bias"): (f"{key}.bias", SAME)} if bias else layout


def norm(path: tuple[str, ...], key: str) -> Layout:
    """A layer norm."""
    return {(*path, "scale"): (f"{key}.weight", SAME), (*path, "bias"): (f"{key}.bias", SAME)}


def fused_attention(path: tuple[str, ...], weight: str, bias: str, out: str) -> Layout:
    """An attention whose query, key and value are one tensor in the file."""
    layout = linear((*path, "out"), out)
    for part, name in enumerate(("query", "key", "value")):
        layout[(*path, name, "kernel")] = (weight, LINEAR.of(part, 3))
        layout[(*path, name, "bias")] = (bias, SAME.of(part, 3))
    return layout


def under(layout: Layout, path: tuple[str, ...], prefix: str) -> Layout:
    """The layout of a part inside a whole: further down the tree, and with a prefix on every key."""
    return {(*path, *inner): (prefix + key, arrangement) for inner, (key, arrangement) in layout.items()}


def to_file(value: np.ndarray, arrangement: Arrangement) -> np.ndarray:
    """An array as the file holds it (a part of a tensor as that part)."""
    match arrangement.kind:
        case "linear":
            return value.T
        case "conv":
            return value.transpose(3, 2, 0, 1)
        case "patch":
            size, channels = arrangement.sizes
            return value.reshape(size, size, channels, -1).transpose(3, 2, 0, 1)
        case "lead":
            return value.reshape(*(1,) * arrangement.sizes[0], *value.shape)
    return value


def from_file(value: np.ndarray, arrangement: Arrangement) -> np.ndarray:
    """An array as the parameter pytree holds it; inverse of `to_file`."""
    match arrangement.kind:
        case "linear":
            return value.T
        case "conv":
            return value.transpose(2, 3, 1, 0)
        case "patch":
            return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
        case "lead":
            return value.reshape(value.shape[arrangement.sizes[0] :])
    return value


def file_shape(shape: tuple[int, ...], arrangement: Arrangement) -> tuple[int, ...]:
    """Shape in the file of the whole tensor that holds a parameter of `shape`."""
    first, *others = (*to_file(np.broadcast_to(np.float32(0), shape), arrangement).shape, None)
    return () if first is None else (first * arrangement.parts, *others[:-1])


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
    weights: dict[str, np.ndarray],
    layout: Layout,
    template: Tree,
    source: str | Path,
    fresh: Callable[[], Tree] | None = None,
    ignored: tuple[str, ...] = BUFFERS,
    dtype: str = "float32",
) -> Tree:
    """Fills the tree of `template` from a file's tensors.

    Args:
      weights: the file's tensors; half precision is widened to `dtype`. The dict gives up each as it is read, so that
        a large model is not held twice.
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
    absent = [path for path in leaves if layout[path][0] not in weights]
    uses = Counter(layout[path][0] for path in leaves)
    for path, leaf in leaves.items():
        key, arrangement = layout[path]
        if key not in weights:
            continue
        wanted = file_shape(leaf.shape, arrangement)
        if weights[key].shape != wanted:
            if (entry := (key, weights[key].shape, wanted)) not in misshaped:
                misshaped.append(entry)
            continue
        stored = np.split(weights[key], arrangement.parts)[arrangement.part] if arrangement.parts > 1 else weights[key]
        filled[path] = jnp.asarray(np.asarray(from_file(stored, arrangement), np.dtype(dtype), order="C"))
        del stored
        uses[key] -= 1
        if not uses[key]:
            del weights[key]
    if misshaped or (fresh is None and (missing or extra)):
        raise WeightsError(str(source), missing, extra, misshaped)
    if fresh is not None and missing:
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
    stacked: dict[str, dict[int, np.ndarray]] = {}
    for path, (key, arrangement) in layout.items():
        stacked.setdefault(key, {})[arrangement.part] = to_file(np.asarray(leaves[path]), arrangement)
    weights = {
        key: np.concatenate([parts[i] for i in sorted(parts)]) if len(parts) > 1 else parts[0]
        for key, parts in stacked.items()
    }
    for key in [key for key in weights if key.endswith(".running_mean")]:
        # torch keeps the count beside the statistics and asks for it; with a fixed momentum nothing reads it.
        weights[key.removesuffix("running_mean") + "num_batches_tracked"] = np.zeros((), np.int64)
    return weights
