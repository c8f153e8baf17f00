"""Run several processes as one: find each other, agree, wait, and let one write.

    hosts.start("auto")                   # before anything touches a device
    hosts.first_does(write_the_table)     # process 0 writes, the others wait until it is done
    hosts.agree(path.exists())            # the value of process 0, in all processes

The engine is `jax.distributed`. Values go through its coordination service, not through the devices, so they neither
wait for a computation nor delay one. All processes must make these calls in the same order. With one
process every function is the trivial one and costs nothing.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ranjax.core.errors import ConfigError, DataError, OtherProcessError

T = TypeVar("T")
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
FOREVER = 7 * 24 * 3600 * 1000
"""Milliseconds that a process waits for process 0: preparing a large set takes hours."""
GONE = 60
"""Seconds without a sign of life after which a process counts as dead, and ends the others."""
_GOOGLE = "0x1ae0"
_calls = itertools.count()
_joined: list[int] = []
"""[place, number of processes] once this process joined others. jax is imported only then: a plan needs none."""


def start(mode: str = "auto", environment: Mapping[str, str] | None = None) -> None:
    """Join the processes of this run, if it has several; call it before anything touches a device.

    "auto" looks, in this order, for the variables JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID, for a Slurm step of several tasks, and for a TPU VM (whose workers know of each other); without
    any of them there is one process. "on" lets jax.distributed search whatever it knows (Open MPI, Kubernetes, ...) and
    fails where it finds nothing. "off": one process.

    Raises:
      ConfigError: some of the variables are set and others are not, one is no number, or "on" finds no cluster.
    """
    found = settings(mode, os.environ if environment is None else environment)
    if found is None or _joined:
        return
    import jax

    # Collectives of CPU devices between processes; accelerators have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler of SIGTERM would take the signal away from `signals.StopFlag`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**found, heartbeat_timeout_seconds=GONE, shutdown_timeout_seconds=GONE)
    except ValueError as error:
        raise ConfigError("distributed", mode, f"a cluster that can be found ({error})") from error
    _joined[:] = [jax.process_index(), jax.process_count()]


def settings(mode: str, environment: Mapping[str, str], devices: str = "/sys/bus/pci/devices") -> dict[str, Any] | None:
    """Return the arguments of `jax.distributed.initialize`; None: one process. See `start`."""
    if mode == "off":
        return None
    given = [name for name in VARIABLES if environment.get(name)]
    if given:
        missing = [name for name in VARIABLES if name not in given]
        if missing:
            expected = (
                f"a value set together with {', '.join(given)} (host:port of process 0, number of processes, own place)"
            )
            raise ConfigError(missing[0], "", expected)
        count, place = (_number(environment, name) for name in VARIABLES[1:])
        if not 0 <= place < count:
            raise ConfigError(VARIABLES[2], place, f"a number from 0 to {count - 1}, below {VARIABLES[1]}")
        return {"coordinator_address": environment[VARIABLES[0]], "num_processes": count, "process_id": place}
    if mode == "on" or int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1 or _on_tpu(Path(devices)):
        return {}
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ConfigError(name, environment[name], "a whole number") from None


def _on_tpu(devices: Path) -> bool:
    """Return True if this machine has a TPU, by the maker of its devices, and jax can use it."""
    from importlib.util import find_spec

    makers = (path.read_text().strip() for path in devices.glob("*/vendor"))
    return find_spec("libtpu") is not None and _GOOGLE in makers


def count() -> int:
    """Return the number of processes of this run."""
    return _joined[1] if _joined else 1


def first() -> bool:
    """Return True in process 0, the one that writes tables and prints."""
    return not _joined or _joined[0] == 0


def gather(value: T) -> list[T]:
    """Return one JSON value of every process, in their order."""
    if count() == 1:
        return [value]
    call = next(_calls)
    client = _client()
    folder = f"ranjax/{call}"
    client.key_value_set(f"{folder}/{_joined[0]:08}", json.dumps(value))
    client.wait_at_barrier(f"ranjax-{call}", FOREVER)
    found = [json.loads(text) for _, text in sorted(client.key_value_dir_get(folder))]
    if first() and call:
        # Every process that passed this barrier has read the values of the one before.
        client.key_value_delete(f"ranjax/{call - 1}")
    return found


def barrier() -> None:
    """Wait until every process is here."""
    gather(None)


def agree(value: T) -> T:
    """Return process 0's JSON value, in every process."""
    return gather(value)[0]


def anyone(flag: bool) -> bool:
    """Return True in all processes if it is true in some process."""
    return any(gather(bool(flag)))


def first_does(work: Callable[[], T]) -> T | None:
    """Carry out `work` in process 0 and return its result; the others wait for it, and return None.

    Raises:
      OtherProcessError: in the other processes, if `work` raised in process 0.
    """
    if count() == 1:
        return work()
    if not first():
        outcome = agree("")
        if outcome != "done":
            raise OtherProcessError(outcome == "refused")
        return None
    outcome = "failed"
    try:
        result = work()
        outcome = "done"
    except (ConfigError, DataError):
        outcome = "refused"
        raise
    finally:
        agree(outcome)
    return result


def stopping(flag: Callable[[], bool]) -> Callable[[], bool]:
    """Return `flag` as all processes see it: true in all of them at the same call, once it is in one.

    All processes must call it equally often.
    """
    return flag if count() == 1 else lambda: anyone(flag())


def _client() -> Any:
    # jax has no public name for its coordination service; orbax, which needs it too, follows jax's changes.
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()
