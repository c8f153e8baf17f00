"""Tasks on a Ray cluster. Ray starts a task again on another machine when its own dies.

Nothing is sent anywhere but to the cluster: a cluster that starts here has Ray's usage statistics off, unless
RAY_USAGE_STATS_ENABLED asks for them.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ranjax
from ranjax.core.engines.task_pool import Pool, Task, TaskStopped
from ranjax.core.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from ranjax.core.engines.engine_table import RaySettings

SECONDS = 5.0
"""In which the head of a cluster must answer; Ray itself tries for two minutes and then ends the process."""


@contextmanager
def opened(settings: RaySettings, scratch: Path) -> Iterator[Pool]:
    """Join a cluster, and leave it at the end; tasks that still run are ended by Ray then.

    Raises:
      ConfigError: no cluster answers, or it is of another Python or Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    mine = not ray.is_initialized()
    if mine:
        _join(settings.address)
    try:
        yield RayPool(settings)
    finally:
        if mine:
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    named = address or os.environ.get("RAY_ADDRESS", "") or "auto"
    host, _, port = named.rpartition(":")
    options: dict[str, Any] = {"include_dashboard": False} if named == "local" else {}
    try:
        if port.isdigit() and "//" not in host:
            socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
        ray.init(named, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        ray.shutdown()  # it may be half joined
        said = str(error).strip()
        if "ersion mismatch" in said:
            raise ConfigError(
                "--on", "ray", f"a cluster of the same Python and Ray ({' '.join(said.split())})"
            ) from None
        expected = f"a Ray cluster that answers at {named!r}"
        if named == "auto":
            expected = "a Ray cluster on this machine, and there is none"
        hint = "'ray start --head' starts one, --with address=HOST:PORT names another, --with address=local needs none."
        raise ConfigError("--on", "ray", expected, hint) from error


def versions() -> dict[str, str]:
    """Return what decides the result of a task beside its arguments: versions by name."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "ranjax": ranjax.__version__, "jax": importlib.metadata.version("jax")}


class RayPool:
    """Tasks of a cluster, with as many waiting as let its autoscaler see what is needed."""

    dear = False

    def __init__(self, settings: RaySettings):
        import ray

        cpus = ray.cluster_resources().get("CPU", 1.0)
        self.at_once = max(64, int(2 * cpus / settings.cpus))
        chips = {"TPU": settings.tpus} if settings.tpus else None
        self._remote = ray.remote(
            num_cpus=settings.cpus, num_gpus=settings.gpus, resources=chips, max_retries=settings.restarts
        )(_carrier())
        self._wanted, self._refs = versions(), dict[Future[Any], Any]()
        self._stopping = threading.Event()

    def submit(self, task: Task, name: str) -> Future[Any]:
        import ray

        ref = self._remote.options(name=name).remote(self._wanted, [ray.put(task)])
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._refs = {other: of for other, of in self._refs.items() if not other.done()} | {future: ref}
        ref.future().add_done_callback(lambda ended: _pass_on(ended, future, self._stopping))
        return future

    def interrupt(self) -> None:
        import ray

        self._stopping.set()
        for future, ref in self._refs.items():
            if not future.done():
                with suppress(Exception):  # it has ended, or its machine has
                    # The task's worker ends with the run that is its child, which goes on from its last checkpoint.
                    # Without force the worker was seen to work on to the end.
                    ray.cancel(ref, force=True)


def _pass_on(ended: Future[Any], future: Future[Any], stopping: threading.Event) -> None:
    from ray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError

    error = ended.exception()
    if error is None:
        kind, value = ended.result()
        if kind == "done":
            future.set_result(value)
        elif kind == "refused":
            future.set_exception(ConfigError("--on", "ray", value))
        else:
            future.set_exception(value if isinstance(value, BaseException) else RunError(value))
    elif isinstance(error, TaskCancelledError) or (stopping.is_set() and isinstance(error, WorkerCrashedError)):
        future.set_exception(TaskStopped())
    elif isinstance(error, RayTaskError):
        # Before the task was read: the machine lacks ranjax, or a package that it needs.
        said = str(error).strip().splitlines()[-1]
        future.set_exception(ConfigError("--on", "ray", f"a cluster whose machines can import ranjax ({said})"))
    else:
        said = " ".join(str(error).split())[:300]
        future.set_exception(RunError(f"a machine of the Ray cluster died too often: {said}"))


def _carrier() -> Callable[[dict[str, str], Sequence[Any]], tuple[str, Any]]:
    """Return the function that Ray sends to its machines: it looks at their versions before it reads the task.

    It is sent by value, as one in another function, so that a machine with another ranjax can say so.
    """

    def carry(wanted, task):  # type: ignore[no-untyped-def]
        import socket

        try:
            from ranjax.core.engines import ray_pool
        except ImportError as error:
            return "refused", f"a cluster whose machines have ranjax; {socket.gethostname()} has not ({error})"
        return ray_pool.carry_out(wanted, task)

    return carry


def carry_out(wanted: dict[str, str], task: Sequence[Any]) -> tuple[str, Any]:
    """Return ("done", result), ("refused", why) or ("failed", the error), on a machine of the cluster.

    `task` holds one reference: Ray reads what it leads to after the versions were looked at.
    """
    found = versions()
    if differing := [
        f"{name} {wanted[name]}, not {found.get(name)}" for name in wanted if found.get(name) != wanted[name]
    ]:
        return "refused", f"a cluster of the same versions: {', '.join(differing)} as on {socket.gethostname()}"
    import ray

    try:
        return "done", ray.get(task[0])()
    except (ConfigError, DataError, RunError) as error:
        return "failed", error
    except Exception as error:  # of which some cannot be sent
        return "failed", f"{type(error).__name__}: {error}"
