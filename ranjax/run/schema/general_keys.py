"""Keys of the whole run: seed, devices, compilation."""

from __future__ import annotations

from dataclasses import dataclass

from ranjax.core.checks import at_least, between, one_of
from ranjax.core.settings import keys_of, setting
from ranjax.training import profiling


@dataclass(frozen=True)
class General:
    """Settings of the whole run; their keys have no group."""

    seed: int = setting(
        0, "The one seed: data, weights, order, attacks and heads all derive from it.", check=between(0, 2**32 - 1)
    )
    devices: int = setting(0, "How many devices share the work; 0 takes all that are visible.", "devices", at_least(0))
    cpu_devices: int = setting(
        1,
        "Devices that a CPU is split into, so that each core works on rows of its own; 0: one a core, at most 4.",
        "devices",
        at_least(0),
    )
    model_axis: int = setting(
        1,
        "Of these, how many hold one copy of parameters and optimiser state between them while pre-training (FSDP).",
        "devices",
        at_least(1),
    )
    distributed: str = setting(
        "auto",
        "Several processes as one run, found by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, Slurm or "
        "a TPU VM ('auto'), by all that jax.distributed knows ('on'), or never ('off').",
        check=one_of("auto", "on", "off"),
    )
    compile_cache: str = setting(
        "", "Folder of compiled programs; empty: the user's cache folder; 'off': none.", "path"
    )
    profile: str = setting(
        "",
        "A profiler's trace of a few steps ('pretrain', 'pretrain/clean:100-104') or a stage run ('evaluate/clean').",
        check=profiling.check,
    )
    quick_compile: bool = setting(False, "Compile without XLA's expensive passes: starts sooner, computes slower.")


KEYS = keys_of("", General)
