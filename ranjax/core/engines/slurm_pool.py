"""Tasks as jobs in Slurm's queue, by submitit.

A task with a method ``checkpoint`` is queued again before its time is up or when it is preempted, and goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranjax.core.engines.task_pool import Pool, Task
from ranjax.core.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ranjax.core.engines.engine_table import SlurmSettings

TIMES = 1000
"""How often a job is queued again after its time was up."""


@contextmanager
def opened(settings: SlurmSettings, scratch: Path) -> Iterator[Pool]:
    """Open a pool of jobs, whose files and output lie in ``scratch``: a folder that all nodes see.

    Raises:
      ConfigError: this machine cannot queue jobs, or a setting is one that submitit refuses.
    """
    import submitit

    of_slurm = {"slurm_max_num_timeout": TIMES} if settings.cluster == "slurm" else {}
    try:
        executor = submitit.AutoExecutor(scratch, settings.cluster, **of_slurm)
    except RuntimeError as error:
        raise ConfigError("--on", "slurm", f"a machine that can queue jobs ({error})") from error
    given = {
        "slurm_partition": settings.partition or None,
        "mem_gb": settings.memory or None,
        "gpus_per_node": settings.gpus or None,
        "slurm_additional_parameters": dict(text.split("=", 1) for text in settings.options if text) or None,
    }
    executor.update_parameters(
        timeout_min=settings.minutes,
        cpus_per_task=settings.cpus,
        nodes=settings.nodes,
        tasks_per_node=settings.processes,
        **{name: value for name, value in given.items() if value is not None},
    )
    pool = SlurmPool(executor, settings.at_once)
    try:
        yield pool
    finally:
        pool.close()


class SlurmPool:
    """Jobs in the queue; a thread asks how they stand."""

    dear = True

    def __init__(self, executor: Any, at_once: int, every: float = 1.0):
        self.at_once, self._executor, self._every = at_once, executor, every
        self._jobs: dict[Future[Any], Any] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, task: Task, name: str) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._executor.update_parameters(name=name[:40])
        try:
            self._jobs[future] = self._executor.submit(task)
        except Exception as error:  # sbatch's own words
            future.set_exception(
                ConfigError("--on", "slurm", f"jobs that Slurm takes ({' '.join(str(error).split())})")
            )
        return future

    def interrupt(self) -> None:
        for job in list(self._jobs.values()):
            with suppress(Exception):  # it has ended
                job.cancel(check=False)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            for future, job in list(self._jobs.items()):
                if job.done():
                    _pass_on(job, future)
                    del self._jobs[future]
            self._ended.wait(self._every)


def _pass_on(job: Any, future: Future[Any]) -> None:
    try:
        results = job.results()
    except Exception as error:
        # submitit puts the trace between two lines of dashes.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no word"]
        dashes = [at for at, line in enumerate(lines) if line.startswith("---")]
        said = lines[dashes[-1] - 1] if dashes else lines[0]
        future.set_exception(RunError(f"job {job.job_id} ended without a result ({said}), see {job.paths.stderr}"))
        return
    # Processes of one run end alike; one that failed is the one to tell of.
    future.set_result(max(results, key=lambda one: bool(getattr(one, "code", 0))))
