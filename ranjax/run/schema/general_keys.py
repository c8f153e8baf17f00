"""Keys of the whole run: seed, devices, compilation."""

from ranjax.core.checks import Key, at_least, between, one_of
from ranjax.training import profiling

KEYS = (
    Key(
        "seed",
        0,
        "The one seed: data, weights, order, attacks and heads all derive from it.",
        "",
        between(0, 2**32 - 1),
    ),
    Key("devices", 0, "How many devices share the work; 0 takes all that are visible.", "devices", at_least(0)),
    Key(
        "cpu_devices",
        1,
        "Devices that a CPU is split into, so that each core works on rows of its own; 0: one a core, at most 4.",
        "devices",
        at_least(0),
    ),
    Key(
        "model_axis",
        1,
        "Of these, how many hold one copy of parameters and optimiser state between them while pre-training (FSDP).",
        "devices",
        at_least(1),
    ),
    Key(
        "distributed",
        "auto",
        "Several processes as one run, found by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, Slurm or "
        "a TPU VM ('auto'), by all that jax.distributed knows ('on'), or never ('off').",
        "",
        one_of("auto", "on", "off"),
    ),
    Key("compile_cache", "", "Folder of compiled programs; empty: the user's cache folder; 'off': none.", "path"),
    Key(
        "profile",
        "",
        "A profiler's trace of a few steps ('pretrain', 'pretrain/clean:100-104') or a stage run ('evaluate/clean').",
        "",
        profiling.check,
    ),
    Key("quick_compile", False, "Compile without XLA's expensive passes: starts sooner, computes slower."),
)
