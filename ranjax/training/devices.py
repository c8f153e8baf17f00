"""Data parallelism: one function that maps a per-device step over all devices.

The mesh has the axis ``"data"``; a batch is split along its leading axis, and the step talks to the other devices by
named-axis collectives. This is ``jax.shard_map`` under ``jax.jit``, which is what ``jax.pmap`` is made of today; one
device is the same code with collectives that cost nothing. The state is replicated, unless the mesh has a second axis
``"model"``: then every array of the state is split over that one (`ranjax.training.fsdp`), and the batch over both.

**Gradients.** Average the loss over the axis inside the differentiated function:

    loss, grads = jax.value_and_grad(lambda p: jax.lax.pmean(loss_fn(p), "data"))(params)

Under `shard_map`'s replication checks (the default here) this gradient, by replicated parameters, is already the sum
over the devices, and averaging it once more would send every gradient twice; without the checks it must be averaged.
Averaging only the gradients of a local loss is wrong by a factor of the number of devices under the checks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Key, PyTree

from ranjax.core.errors import ConfigError

AXIS, MODEL = "data", "model"
AxisName = str | tuple[str, ...]
T = TypeVar("T")
DeviceStep = Callable[[PyTree, PyTree, Key[Array, ""]], tuple[PyTree, PyTree]]
"""``(state, batch, key) -> (state, metrics)``."""


def make_mesh(devices: int | Sequence[jax.Device] | None = None, model: int = 1) -> Mesh:
    """Return a mesh with the axis ``"data"``, or with `model` above 1 of ``("data", "model")``.

    Args:
      devices: the devices, or how many of the visible ones (the first n), or None for all.
      model: devices that hold one copy of the state between them; neighbours, so that they talk over the fast links.

    Raises:
      ConfigError: no device or more than are visible, or a number that `model` does not divide.
    """
    visible = jax.devices()
    if devices is None:
        devices = visible
    elif isinstance(devices, int):
        if not 1 <= devices <= len(visible):
            raise ConfigError("devices", devices, f"a number from 1 to {len(visible)}, the number of visible devices")
        if devices < len(visible) and jax.process_count() > 1:
            raise ConfigError("devices", devices, f"0 or {len(visible)}: several processes share all their devices")
        devices = visible[:devices]
    elif not devices:
        raise ConfigError("devices", devices, "at least one device")
    if model < 1 or len(devices) % model:
        fitting = ", ".join(str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0)
        raise ConfigError("model_axis", model, f"a divisor of {len(devices)}, the number of devices: {fitting}")
    # Auto: under the newer default (Explicit), a product of two sharded operands is a type error.
    if model == 1:
        return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return Mesh(np.array(devices).reshape(-1, model), (AXIS, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def describe(mesh: Mesh) -> str:
    """Describe a mesh: number, shape where it has two axes, kind of device, processes where there are several."""
    shape = "" if mesh.size == mesh.shape[AXIS] else f" as {mesh.shape[AXIS]} x {mesh.shape[MODEL]}"
    hosts = "" if jax.process_count() == 1 else f" of {jax.process_count()} processes"
    return f"{mesh.size} device(s){shape}{hosts}: {mesh.devices.flat[0].device_kind}"


def local_mesh(mesh: Mesh) -> Mesh:
    """Return a mesh of this process's devices in `mesh`, for work that processes divide between them."""
    if jax.process_count() == 1:
        return mesh
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return make_mesh(own)


def batch_axes(mesh: Mesh) -> AxisName:
    """Return the axes over which a batch is split, all of the mesh, as collectives take them."""
    return AXIS if mesh.axis_names == (AXIS,) else tuple(mesh.axis_names)


def check_batch_size(size: int, mesh: Mesh, key: str = "batch_size") -> None:
    """Raise ConfigError, with the nearest allowed sizes, if `size` rows cannot be split evenly over the mesh."""
    count = mesh.size
    if size > 0 and size % count == 0:
        return
    below = size // count * count
    nearest = f"{below} or {below + count}" if below > 0 else f"{count}"
    raise ConfigError(key, size, f"a positive multiple of {count}, the number of devices", f"Nearest: {nearest}.")


def replicate(tree: T, mesh: Mesh) -> T:
    """Copy `tree` to every device. Always a copy: the result may be donated while the original lives on."""
    # device_put alone keeps the buffer of a device that already holds the value, whatever its may_alias says.
    here = jax.process_count() == 1
    copies = jax.tree.map(lambda x: jnp.copy(x) if here and isinstance(x, jax.Array) else np.array(x), tree)
    return jax.device_put(copies, NamedSharding(mesh, PartitionSpec()), may_alias=False)


def shard_batch(batch: T, mesh: Mesh) -> T:
    """Split the leading axis of every array over the devices.

    On several hosts, `batch` holds this host's rows (each host's part is the same size, in the order of the processes).

    Raises:
      ConfigError: the rows cannot be split evenly; with the nearest sizes.
    """
    sharding = NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))
    processes = len({device.process_index for device in mesh.devices.flat})
    check_batch_size(_rows(batch) * processes, mesh)
    if processes > 1:
        return jax.tree.map(lambda x: _global(x, sharding), batch)
    return jax.device_put(batch, sharding)


def _global(rows: Array | np.ndarray, sharding: NamedSharding) -> Array:
    """Return the global array of which this process holds `rows`."""
    if isinstance(rows, jax.Array) and jax.dtypes.issubdtype(rows.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_global(jax.random.key_data(rows), sharding), impl=jax.random.key_impl(rows))
    return jax.make_array_from_process_local_data(sharding, np.asarray(rows))


def data_parallel(
    step: DeviceStep, mesh: Mesh, *, donate: bool = True, check_vma: bool = True, state_specs: PyTree = None
) -> Wrapped:
    """Map a per-device step over all devices of `mesh` and compile it.

    Args:
      step: ``(state, batch, key) -> (state, metrics)`` as one device sees it: `batch` holds its rows, `state` and `key`
        are the same everywhere. Its results must be equal on all devices (averaged over `batch_axes`).
      mesh: from `make_mesh`.
      donate: gives the state's memory to the new state; the state passed in cannot be used afterwards.
      check_vma: lets `shard_map` prove that the result is equal on all devices. False for steps it cannot see through.
      state_specs: from `fsdp.specs`, for a split state; None: it is the same on all devices.

    Returns:
      A jitted function of the same signature on global arrays: the batch's leading axis is split, the rest is
      replicated. It compiles once per set of shapes, can be lowered for abstract arrays, and raises ConfigError, with
      the nearest sizes, if the rows do not divide.
    """
    everywhere, split = PartitionSpec(), PartitionSpec(batch_axes(mesh))
    state = everywhere if state_specs is None else state_specs
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(state, split, everywhere), out_specs=(state, everywhere), check_vma=check_vma
    )

    @functools.wraps(step)
    def run(state: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
        check_batch_size(_rows(batch), mesh)
        return mapped(state, batch, key)

    return jax.jit(run, donate_argnums=(0,) if donate else ())


def varies(x: Array, axis_name: AxisName) -> bool:
    """Return True if `x`, inside a `shard_map` that checks replication, may differ between devices."""
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    return set(names) <= set(jax.typeof(x).manual_axis_type.varying)


def as_varying(tree: T, axis_name: AxisName) -> T:
    """Declare that `tree` differs between devices, inside a `shard_map` that checks replication.

    The gradient by the original is then summed over the devices once, here.
    """
    names = (axis_name,) if isinstance(axis_name, str) else axis_name

    def one(x: Array) -> Array:
        missing = tuple(name for name in names if not varies(x, name))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(one, tree)


def row_keys(key: Key[Array, ""], rows: int, axis_name: AxisName | None = None) -> Key[Array, "{rows}"]:
    """Return a key for each of this device's rows; a row of the global batch has the same on any number of devices."""
    numbers = jnp.arange(rows, dtype=np.uint32)
    if axis_name is not None:
        numbers = numbers + np.uint32(rows) * jax.lax.axis_index(axis_name).astype(np.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _rows(batch: PyTree) -> int:
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"every array of a batch needs the same number of rows, got {sorted(sizes)}")
    return sizes.pop()
