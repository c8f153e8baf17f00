"""Fully sharded data parallelism: the state is split over the mesh axis "model", weights are whole only while in use.

Every array of parameters and of the optimiser's moments is cut along its longest side that the axis divides; small
arrays stay whole. Inside the step, `gather` puts a tensor together where the encoder reads it, and once more for the
backward pass (Rajbhandari et al. 2020, ZeRO, stage 3; Zhao et al. 2023, FSDP). The transpose of that gather is a
reduce-scatter: each device receives the sum of the gradients of its own part alone, and updates that part.

The batch is split over all axes, so 8 devices as 8 x 1, 4 x 2, 2 x 4 or 1 x 8 do the same work on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from ranjax.training.devices import AXIS, MODEL

T = TypeVar("T")
R = TypeVar("R")
SMALLEST = 1024
"""Numbers below which an array stays whole: its parts would cost more messages than they save memory."""
WHOLE = PartitionSpec()
_GATHERED = "gathered weight"


def spec(shape: tuple[int, ...], parts: int, smallest: int = SMALLEST) -> PartitionSpec:
    """Return how one array is split: along its longest side (the first of equals) that `parts` divides, or not at
    all.
    """
    sides = [axis for axis, side in enumerate(shape) if side % parts == 0]
    if parts == 1 or not sides or int(np.prod(shape)) < smallest:
        return WHOLE
    chosen = max(sides, key=lambda axis: (shape[axis], -axis))
    return PartitionSpec(*(MODEL if axis == chosen else None for axis in range(chosen + 1)))


def specs(tree: PyTree, mesh: Mesh, smallest: int = SMALLEST) -> PyTree:
    """Return `spec` of every array of a state; moments have their parameter's shape, and so its split."""
    parts = mesh.shape.get(MODEL, 1)
    return jax.tree.map(lambda leaf: spec(tuple(np.shape(leaf)), parts, smallest), tree)


def place(tree: T, mesh: Mesh, split: PyTree) -> T:
    """Copy `tree` to the devices of `mesh`, split as `specs` returned; no device holds a whole copy on the way."""
    # Never an alias of the host's arrays: the result may be donated while those live on.
    return jax.device_put(jax.tree.map(np.asarray, tree), shardings(mesh, split), may_alias=False)


def shardings(mesh: Mesh, split: PyTree) -> PyTree:
    """Return the shardings on `mesh` of what `specs` returned."""
    return jax.tree.map(lambda how: NamedSharding(mesh, how), split)


def whole(tree: T, mesh: Mesh) -> T:
    """Put every array on every device of `mesh`, whatever its split."""
    if all(getattr(leaf, "is_fully_replicated", False) for leaf in jax.tree.leaves(tree)):
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda x: x, out_shardings=jax.tree.map(lambda _: everywhere, tree))(tree)


def gather(params: T, split: PyTree) -> T:
    """Assemble whole tensors from this device's parts, inside a `shard_map` that checks replication."""

    def one(part: Array, how: PartitionSpec) -> Array:
        axis = _axis(how)
        if axis is None:
            return part
        # Varying before the gather: in the backward pass the sum over "model" is then scattered first, and only this
        # device's part is summed over "data", not the whole gradient.
        part = jax.lax.pcast(part, AXIS, to="varying")
        return checkpoint_name(jax.lax.all_gather(part, MODEL, axis=axis, tiled=True), _GATHERED)

    return jax.tree.map(one, params, split)


def gathering(loss_fn: Callable[[T], R], split: PyTree) -> Callable[[T], R]:
    """Turn ``loss_fn`` of whole parameters into a function of their parts.

    Whole weights are not kept for the backward pass but gathered a second time; everything else is kept.
    """
    policy = jax.checkpoint_policies.save_anything_except_these_names(_GATHERED)
    return jax.checkpoint(lambda parts: loss_fn(gather(parts, split)), policy=policy)


def square_sums(tree: PyTree, split: PyTree) -> list[Array]:
    """Return the sum of squares of every (whole) array, f32[], from this device's parts: the same on all devices."""
    # By path: an optimizer of some parameters alone leaves gaps in its tree.
    how = dict(jax.tree_util.tree_leaves_with_path(split))
    totals = [(how[path], jnp.sum(jnp.square(part))) for path, part in jax.tree_util.tree_leaves_with_path(tree)]
    return [total if _axis(own) is None else jax.lax.psum(total, MODEL) for own, total in totals]


def global_norm(split: PyTree) -> Callable[[PyTree], Array]:
    """Return the Euclidean norm of all whole arrays together, as a function of their parts."""
    return lambda tree: jnp.sqrt(jnp.sum(jnp.stack(square_sums(tree, split))))


def _axis(how: PartitionSpec) -> int | None:
    return next((axis for axis, name in enumerate(how) if name == MODEL), None)
