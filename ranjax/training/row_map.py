"""Work on many independent rows: in batches of a fixed size per device, over all devices, every row exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeGuard

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Traced
from jaxtyping import Array, PyTree

from ranjax.core import keys
from ranjax.training.devices import batch_axes, make_mesh, replicate, shard_batch

RowFunction = Callable[[PyTree, PyTree], PyTree]


class RowMap:
    """Map ``fn(shared, rows) -> rows`` over any number of rows, on the devices of all processes of the mesh.

    Each device always sees the same shapes (`batch_size` rows), so the bits of a row's result depend neither on the
    number of rows nor on the number of devices. The last batch is filled up by repeating its last row, and cut again.

    Args:
      fn: a pure function of `shared` (a pytree, e.g. parameters; replicated) and `rows` (a pytree of arrays with the
        row axis first); its results have the row axis first too, and no row's result depends on another row.
      mesh: from `devices.make_mesh`; None: the first device alone.
      batch_size: rows at a time on each device.
      poll: called before each batch; raises where the work is to stop.

    With several processes in the mesh all of them make the same calls with all the rows; each puts its own on its
    devices, and all get all results.
    """

    def __init__(
        self, fn: RowFunction, mesh: Mesh | None, batch_size: int, poll: Callable[[], None] = lambda: None
    ) -> None:
        self._mesh, self._poll = make_mesh(jax.local_devices()[:1]) if mesh is None else mesh, poll
        everywhere, split = PartitionSpec(), PartitionSpec(batch_axes(self._mesh))
        # check_vma=False: rows do not talk to each other, and loops inside attacks start from unvaried constants.
        mapped = jax.shard_map(fn, mesh=self._mesh, in_specs=(everywhere, split), out_specs=split, check_vma=False)
        self._compiled = jax.jit(mapped)
        self.step = batch_size * self._mesh.size
        own = [device.process_index == jax.process_index() for device in self._mesh.devices.flat]
        self._own = np.repeat(own, batch_size)

    def share(self, tree: PyTree) -> PyTree:
        """Put `tree` on every device, to be passed as `shared` more than once; a device's own buffers are reused."""
        if jax.process_count() > 1:
            return replicate(tree, self._mesh)
        # Nothing here is donated, so no copy is needed where a device has one already.
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def trace(self, shared: PyTree, rows: PyTree) -> Traced:
        """Return the traced program for arrays or shapes of one whole batch (`step` rows), to be lowered and
        measured.
        """
        return self._compiled.trace(shared, rows)

    def batches(self, shared: PyTree, rows: PyTree) -> Iterator[tuple[int, PyTree]]:
        """Yield (rows done so far, results of this batch as NumPy arrays)."""
        leaves, structure = jax.tree.flatten(rows)
        count = len(leaves[0])
        if jax.process_count() == 1:
            # Rows are picked on the host: on a device each kind of array and number of rows would be a program.
            leaves = [x if _is_keys(x) else np.asarray(x) for x in leaves]
        for start in range(0, count, self.step):
            self._poll()
            real = min(self.step, count - start)
            index = np.minimum(np.arange(start, start + self.step), count - 1)[self._own]
            taken = [keys.take(x, index) if _is_keys(x) else x[index] for x in leaves]
            batch = shard_batch(jax.tree.unflatten(structure, taken), self._mesh)
            result = self._compiled(shared, batch)
            yield start + real, jax.tree.map(lambda x: x[:real], _to_host(result))  # noqa: B023

    def __call__(self, shared: PyTree, rows: PyTree, progress: Callable[[int], None] = lambda done: None) -> PyTree:
        """Return all results as NumPy arrays; call `progress` with the number of rows done."""
        parts = []
        for done, part in self.batches(shared, rows):
            parts.append(part)
            progress(done)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _is_keys(x: object) -> TypeGuard[Array]:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_host(tree: PyTree) -> PyTree:
    """Return global arrays as NumPy arrays, from all processes of their mesh."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
