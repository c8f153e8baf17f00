"""The same weights under two names: a path in the parameter pytree, and a key in a file of another library.

`Keys` list, for every path, the file's key and how its axes lie there. Reading and writing both walk that one
list, so that a round trip is exact by construction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ranjax.core.errors import DataError
from ranjax.core.types import Params
from ranjax.models.checkpoints.weight_files import WeightsError
from ranjax.models.towers.contract import Content as Content
from ranjax.models.towers.contract import Json as Json

TreePath = tuple[str, ...]
"""Where an array lies in the parameters."""
Weights = Mapping[str, np.ndarray]
"""Tensors of a file by key."""


class Arrangement(NamedTuple):
    """How the axes of an array lie in the file.

    Attributes:
      kind: "same"; "linear", [in, out] here and [out, in] there; "conv", [height, width, in, out] here and
        [out, in, height, width] there; "lead", with axes of length 1 in front there.
      sizes: of "conv", height, width and in where they are one axis here (a patch embedding); of "lead", those axes.
      part, parts: the array is that one of so many, stacked along the first axis of one tensor in the file, as
        query, key and value of a torch MultiheadAttention are.
    """

    kind: str
    sizes: tuple[int, ...] = ()
    part: int = 0
    parts: int = 1


# Parameter path -> (key in the file, arrangement of the axes there).
Keys = dict[TreePath, tuple[str, Arrangement]]
# Our path -> the file's key, with or without an arrangement, see `named`.
Names = Mapping[str, str | tuple[str, Arrangement]]

SAME, LINEAR, CONV = Arrangement("same"), Arrangement("linear"), Arrangement("conv")
# Buffers that hold no weights: of older files, and the count of batches that a batch norm has seen.
BUFFERS = ("position_ids", "num_batches_tracked")


def named(names: Names, layers: int = 0) -> Keys:
    """Return the keys of a part of a model by what a library calls them.

    Args:
      names: our path -> the file's key, of an array that lies there as it does here, or with its arrangement. A key
        that ends with ``*`` stands for weight and bias: of a layer norm where our name begins with "norm", else of a
        linear map. ``query|key|value`` in our path: one tensor there holds them all. ``{}`` in both stands for a
        block's number.
      layers: how many blocks there are.
    """
    keys: Keys = {}
    for ours, theirs in names.items():
        pattern, arrangement = (theirs, SAME) if isinstance(theirs, str) else theirs
        for i in range(layers if "{}" in ours else 1):
            *path, last = ours.format(i).split("/")
            key, members = pattern.format(i), last.split("|")
            for part, name in enumerate(members):
                if not key.endswith("*"):
                    keys[(*path, name)] = key, arrangement
                    continue
                weight = ("scale", SAME) if name.startswith("norm") else ("kernel", LINEAR)
                for (leaf, kind), word in ((weight, "weight"), (("bias", SAME), "bias")):
                    keys[(*path, name, leaf)] = key[:-1] + word, kind._replace(part=part, parts=len(members))
    return keys


def blocks(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of a transformer's blocks for `named`, whose keys begin with `prefix`."""
    return {f"blocks/layers/{{}}/{ours}": prefix + theirs for ours, theirs in names.items()}


def linear(path: str, key: str, bias: bool = True) -> Keys:
    """Return the keys of a linear map, with or without a bias."""
    return named({path: f"{key}.*"} if bias else {f"{path}/kernel": (f"{key}.weight", LINEAR)})


def conv_norm(path: TreePath, convolution: str, norm: str) -> Keys:
    """Return the keys of a convolution and of the batch norm behind it."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    keys: Keys = {(*path, "kernel"): (f"{convolution}.weight", CONV)}
    return keys | {(*path, "norm", ours): (f"{norm}.{theirs}", SAME) for ours, theirs in names.items()}


def stages(depths: tuple[int, ...]) -> Iterator[tuple[int, int, TreePath]]:
    """Iterate over the blocks of a residual network: number of the stage, of the block in it, and path."""
    return ((i, j, ("stages", str(i), str(j))) for i, depth in enumerate(depths) for j in range(depth))


def inside(weights: Weights, prefix: str) -> Weights:
    """Return the tensors whose keys begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def under(keys: Keys, path: TreePath, prefix: str) -> Keys:
    """Return the keys of a part inside a whole: further down the tree, and with a prefix on every key."""
    return {(*path, *inner): (prefix + key, arrangement) for inner, (key, arrangement) in keys.items()}


def to_file(value: np.ndarray, arrangement: Arrangement) -> np.ndarray:
    """Return an array as the file holds it (a part of a tensor as that part)."""
    match arrangement.kind:
        case "linear":
            return value.T
        case "conv":
            return value.reshape(*(arrangement.sizes or value.shape[:3]), -1).transpose(3, 2, 0, 1)
        case "lead":
            return value.reshape(*arrangement.sizes, *value.shape)
    return value


def from_file(value: np.ndarray, arrangement: Arrangement) -> np.ndarray:
    """Return an array as the parameter pytree holds it; inverse of `to_file`."""
    match arrangement.kind:
        case "linear":
            return value.T
        case "conv":
            found = value.transpose(2, 3, 1, 0)
            return found.reshape(-1, found.shape[-1]) if arrangement.sizes else found
        case "lead":
            return value.reshape(value.shape[len(arrangement.sizes) :])
    return value


def file_shape(shape: tuple[int, ...], arrangement: Arrangement) -> tuple[int, ...]:
    """Return the shape in the file of the whole tensor that holds a parameter of `shape`."""
    found = to_file(np.broadcast_to(np.float32(0), shape), arrangement).shape
    return (found[0] * arrangement.parts, *found[1:]) if found else ()


def paths(tree: Params) -> dict[TreePath, Any]:
    """Return the leaves of a nested dict by their path, in natural order (layer 2 before layer 10)."""
    flat = {
        tuple(str(entry.key) for entry in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    return dict(sorted(flat.items(), key=lambda item: [(part.isdigit(), part.zfill(6)) for part in item[0]]))


def nest(flat: Mapping[TreePath, Any]) -> Params:
    """Return a nested dict of leaves by their path, the inverse of `paths`."""
    return traverse_util.unflatten_dict(dict(flat))


def read_tree(
    weights: dict[str, np.ndarray],
    keys: Keys,
    template: Params,
    source: str | Path,
    fresh: Callable[[], Params] | None = None,
    dtype: str = "float32",
) -> Params:
    """Fill the tree of `template` from a file's tensors.

    Args:
      weights: the file's tensors; half precision is widened to `dtype`. The dict gives up each as it is read, so that
        a large model is not held twice.
      keys: one entry for each leaf of the template.
      template: pytree of shapes.
      source: where the weights came from, for messages.
      fresh: None raises on any missing or extra key. A function that initialises the whole tree logs them instead,
        and gives the missing ones their values; only those are computed.
      dtype: "float32" or "float64" (the latter under x64).

    Raises:
      WeightsError: keys missing or extra (without `fresh`), or mis-shaped (always).
      DataError: numbers of 64 bits that `dtype` does not hold.
    """
    leaves = paths(template)
    known = {key for key, _ in keys.values()}
    missing = sorted(known - weights.keys())
    extra = sorted(key for key in weights if key not in known and key.rsplit(".", 1)[-1] not in BUFFERS)
    present = [path for path in leaves if keys[path][0] in weights]
    wanted = {keys[path][0]: file_shape(leaves[path].shape, keys[path][1]) for path in present}
    misshaped = [(key, weights[key].shape, shape) for key, shape in wanted.items() if weights[key].shape != shape]
    if misshaped or (fresh is None and (missing or extra)):
        raise WeightsError(str(source), missing, extra, misshaped)
    last = {keys[path][0]: path for path in present}
    filled = {}
    for path in present:
        key, arrangement = keys[path]
        tensor = weights.pop(key) if last[key] == path else weights[key]
        tensor = np.split(tensor, arrangement.parts)[arrangement.part] if arrangement.parts > 1 else tensor
        with np.errstate(over="ignore"):
            values = np.asarray(from_file(tensor, arrangement), np.dtype(dtype), order="C")
        if tensor.dtype == np.float64 and not np.isfinite(values).all():
            raise DataError(f"{source}: {key} holds numbers beyond {dtype}")
        filled[path] = jax.device_put(values)
    if fresh is not None and missing:
        absent = [path for path in leaves if path not in filled]
        filled |= dict(zip(absent, jax.jit(lambda: [paths(fresh())[path] for path in absent])()))
    if missing or extra:
        logging.getLogger("ranjax").warning(
            "%s: %d keys missing and freshly initialised (%s); %d unknown and left out (%s)",
            *(source, len(missing), ", ".join(missing), len(extra), ", ".join(extra)),
        )
    return nest(filled)


def write_tree(params: Params, keys: Keys) -> dict[str, np.ndarray]:
    """Return the file's tensors of a parameter tree. Raises WeightsError where tree and keys do not match."""
    leaves = paths(params)
    if set(leaves) != set(keys):
        missing = sorted("/".join(path) for path in set(keys) - set(leaves))
        extra = sorted("/".join(path) for path in set(leaves) - set(keys))
        raise WeightsError("the parameters given", missing, extra, [])
    stacked: dict[str, dict[int, np.ndarray]] = {}
    for path, (key, arrangement) in keys.items():
        stacked.setdefault(key, {})[arrangement.part] = to_file(np.asarray(leaves[path]), arrangement)
    weights = {
        key: np.concatenate([stack[i] for i in sorted(stack)]) if len(stack) > 1 else stack[0]
        for key, stack in stacked.items()
    }
    for key in [key for key in weights if key.endswith(".running_mean")]:
        # torch keeps the count beside the statistics and asks for it; with a fixed momentum nothing reads it.
        weights[key.removesuffix("running_mean") + "num_batches_tracked"] = np.zeros((), np.int64)
    return weights
