"""Make the process ready for a config: its allocator, its devices, the other processes of the run, its compiler."""

from __future__ import annotations

from ml_collections import ConfigDict

from ranjax.run.context import Mesh
from ranjax.training import compile_cache, cpu, devices, hosts


def ready(config: ConfigDict, alone: bool = False) -> Mesh:
    """Set this process up as a config says, before it touches a device, and return the mesh of its devices.

    Args:
      config: a resolved config.
      alone: it is no process of a run of several, whatever the environment says.
    """
    cpu.keep_freed_memory()
    if config.cpu_devices != 1:
        cpu.split_devices(config.cpu_devices)
    hosts.start("off" if alone else config.distributed)
    if config.quick_compile:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
    if config.compile_cache != "off":
        compile_cache.enable(config.compile_cache or None)
    return devices.make_mesh(config.devices or None, config.model_axis)
