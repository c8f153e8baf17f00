"""Data parallelism: one function that maps a per-device step over all devices.

The mesh has one axis, ``"data"``. The state is replicated, a batch is split along its leading axis, and the step talks
to the other devices by named-axis collectives. This is ``jax.shard_map`` under ``jax.jit``, which is what ``jax.pmap``
is made of today; one device is the same code with collectives that cost nothing.

**Gradients.** Average the loss over the axis inside the differentiated function:

    loss, grads = jax.value_and_grad(lambda p: jax.lax.pmean(loss_fn(p), "data"))(params)

Under `shard_map`'s replication checks (the default here) this gradient, by replicated parameters, is already the sum
over the devices, and averaging it once more would send every gradient twice; without the checks it must be averaged.
Averaging only the gradients of a local loss is wrong by a factor of the number of devices under the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ranjax.errors import ConfigError

AXIS = "data"
T = TypeVar("T")
Step = Callable[[Any, Any, jax.Array], tuple[Any, Any]]


def make_mesh(devices: int | Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis ``"data"``.

    Args:
      devices: the devices, or how many of the visible ones (the first n), or None for all.

    Raises:
      ConfigError: if more devices are asked for than are visible, or none.
    """
    visible = jax.devices()
    if devices is None:
        devices = visible
    elif isinstance(devices, int):
        if not 1 <= devices <= len(visible):
            raise ConfigError("devices", devices, f"1 to {len(visible)}, the number of visible devices")
        devices = visible[:devices]
    elif not devices:
        raise ConfigError("devices", devices, "at least one device")
    # Auto: under the newer default (Explicit), a product of two sharded operands is a type error.
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(size: int, mesh: Mesh, key: str = "batch_size") -> None:
    """Raises ConfigError naming the nearest allowed sizes if `size` rows cannot be split evenly over the mesh."""
    count = mesh.shape[AXIS]
    if size > 0 and size % count == 0:
        return
    below = size // count * count
    nearest = f"{below} or {below + count}" if below > 0 else f"{count}"
    raise ConfigError(key, size, f"a positive multiple of {count}, the number of devices", f"Nearest: {nearest}.")


def replicate(tree: T, mesh: Mesh) -> T:
    """A copy of `tree` on every device. Always a copy: the result may be donated while the original lives on."""
    # device_put alone keeps the buffer of a device that already holds the value, whatever its may_alias says.
    copies = jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else np.array(x), tree)
    return jax.device_put(copies, NamedSharding(mesh, PartitionSpec()), may_alias=False)


def shard_batch(batch: T, mesh: Mesh) -> T:
    """Splits the leading axis of every array over the devices.

    On several hosts, `batch` holds this host's rows (each host's part is the same size, in the order of the processes).

    Raises:
      ConfigError: if the rows cannot be split evenly; names the nearest sizes.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    hosts = jax.process_count()
    check_batch_size(_rows(batch) * hosts, mesh)
    if hosts > 1:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
    return jax.device_put(batch, sharding)


def data_parallel(step: Step, mesh: Mesh, *, donate: bool = True, check_vma: bool = True) -> Step:
    """Maps a per-device step over all devices of `mesh` and compiles it.

    Args:
      step: ``(state, batch, key) -> (state, metrics)`` as one device sees it: `batch` holds its rows, `state` and `key`
        are the same everywhere. What it returns must be equal on all devices (averaged over the axis ``"data"``).
      mesh: from `make_mesh`.
      donate: gives the state's memory to the new state; the state passed in cannot be used afterwards.
      check_vma: lets `shard_map` prove that the result is equal on all devices. False for steps it cannot see through.

    Returns:
      A function of the same signature on global arrays: the batch's leading axis is split, the rest is replicated. It
      compiles once per set of shapes, and raises ConfigError, naming the nearest sizes, if the rows do not divide.
    """
    compiled = mapped_step(step, mesh, donate=donate, check_vma=check_vma)

    def run(state: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        check_batch_size(_rows(batch), mesh)
        return compiled(state, batch, key)

    return run


def mapped_step(step: Step, mesh: Mesh, *, donate: bool = True, check_vma: bool = True) -> Any:
    """The jitted function behind `data_parallel`, which can also be lowered for abstract arrays."""
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(everywhere, split, everywhere), out_specs=everywhere, check_vma=check_vma
    )
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


def varies(x: jax.Array, axis_name: str) -> bool:
    """Whether `x`, inside a `shard_map` that checks replication, may differ between devices; False without checks."""
    return axis_name in jax.typeof(x).manual_axis_type.varying


def row_keys(key: jax.Array, rows: int, axis_name: str | None = None) -> jax.Array:
    """One key per row of the global batch, key[rows] for this device's part: the same on any number of devices."""
    numbers = jnp.arange(rows, dtype=np.uint32)
    if axis_name is not None:
        numbers = numbers + np.uint32(rows) * jax.lax.axis_index(axis_name).astype(np.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _rows(batch: Any) -> int:
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"every array of a batch needs the same number of rows, got {sorted(sizes)}")
    return sizes.pop()
