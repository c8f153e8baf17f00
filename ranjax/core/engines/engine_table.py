"""The table of engines: where tasks of a sweep, a run or a preparation are carried out.

settings = settings_of(ENGINES.resolve("ray", "--on"), ["cpus=4"])
with opened("ray", settings, scratch) as pool:
    ...
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranjax.core import lazy
from ranjax.core.checks import above, at_least, check_value, maps, one_of
from ranjax.core.engines.task_pool import Pool, in_threads
from ranjax.core.errors import ConfigError, nearest
from ranjax.core.registry import Table, check_entry
from ranjax.core.settings import keys_of, read, setting

KEY, OPTION = "--on", "--with"


@dataclass(frozen=True)
class LocalSettings:
    """Of this machine."""

    at_once: int = setting(1, "Runs of a sweep at one time.", check=at_least(1))


@dataclass(frozen=True)
class RaySettings:
    """Of a Ray cluster."""

    address: str = setting(
        "",
        "HOST:PORT of the cluster; empty: RAY_ADDRESS, or the one that this machine is part of; local: one that lives "
        "in this process.",
    )
    cpus: float = setting(1.0, "CPU cores that a task takes.", "cores", above(0))
    gpus: float = setting(0.0, "GPUs that a task takes; it sees no others.", "GPUs", at_least(0))
    tpus: float = setting(0.0, "TPU chips that a task takes.", "chips", at_least(0))
    restarts: int = setting(3, "How often a task is started again after its machine died.", check=at_least(0))


@dataclass(frozen=True)
class SlurmSettings:
    """Of jobs in Slurm's queue."""

    cluster: str = setting(
        "slurm", "slurm; local: submitit's stand-in on this machine, to try it.", check=one_of("slurm", "local")
    )
    partition: str = setting("", "Of the jobs; empty: Slurm's default.")
    minutes: int = setting(
        1440, "Time limit of a job; a run that needs more is queued again and goes on.", "minutes", at_least(1)
    )
    cpus: int = setting(1, "CPU cores a process.", "cores", at_least(1))
    gpus: int = setting(0, "GPUs a node.", "GPUs", at_least(0))
    memory: int = setting(0, "Memory a node; 0: Slurm's default.", "GB", at_least(0))
    nodes: int = setting(1, "Nodes of one run.", "nodes", at_least(1))
    processes: int = setting(1, "Processes of one run on each node; one a GPU.", check=at_least(1))
    at_once: int = setting(16, "Jobs in the queue at one time.", "jobs", at_least(1))
    options: tuple[str, ...] = setting(("",), "Further options of sbatch, NAME=VALUE.", check=maps)


Open = Callable[[Any, Path], AbstractContextManager[Pool]]


@dataclass(frozen=True)
class Engine:
    """One way to carry out independent tasks.

    Attributes:
      name: as ``--on`` takes it.
      label: what it is, in words.
      settings: what ``--with`` sets.
      open: takes the settings and a folder for the engine's own files, and gives a pool.
      module: the package that it needs; the extra of ranjax that installs it has the engine's name.
    """

    name: str
    label: str
    settings: Any
    open: Open
    module: str = ""

    def __post_init__(self) -> None:
        check_entry(self, "open")

    @property
    def title(self) -> str:
        """What ``--with`` sets."""
        return ", ".join(f"{key.name}={key.default}" for key in keys_of("", self.settings))


def _local(settings: LocalSettings, scratch: Path) -> AbstractContextManager[Pool]:
    return in_threads(settings.at_once)


_HERE = "ranjax.core.engines"
ENGINES: Table[Engine] = Table(
    "engine",
    Engine,
    [
        Engine("local", "processes of this machine", LocalSettings(), _local),
        Engine("ray", "tasks of a Ray cluster", RaySettings(), lazy.function(f"{_HERE}.ray_pool", "opened"), "ray"),
        Engine(
            "slurm",
            "jobs in Slurm's queue, by submitit",
            SlurmSettings(),
            lazy.function(f"{_HERE}.slurm_pool", "opened"),
            "submitit",
        ),
    ],
    key=KEY,
)


def settings_of(engine: Engine, texts: Sequence[str]) -> Any:
    """Return the settings of an engine from ``NAME=VALUE`` texts; of several for a tuple each adds one.

    Raises:
      ConfigError: an unknown name, or a value that is refused.
    """
    keys = {key.name: key for key in keys_of("", engine.settings)}
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in keys or not equals:
            expected = f"NAME=VALUE with a setting of {engine.name} ({', '.join(keys)})"
            raise ConfigError(OPTION, text, expected, nearest(name, keys))
        kind = type(keys[name].default)
        try:
            given[name] = (*given.get(name, ()), value) if kind is tuple else kind(value)
        except ValueError:
            raise ConfigError(f"{OPTION} {name}", value, f"a value of type {kind.__name__}") from None
    for name, value in given.items():
        check_value(keys[name], value)
    return read(engine.settings, given)


@contextmanager
def opened(name: str, texts: Sequence[str], scratch: Path) -> Iterator[Pool]:
    """Open the pool of the engine that ``--on`` names, with the settings of ``--with``.

    Raises:
      ConfigError: no such engine, its package is not installed, a setting is refused, or it cannot be reached.
    """
    engine = ENGINES.resolve(name)
    settings = settings_of(engine, texts)
    if engine.module and importlib.util.find_spec(engine.module) is None:
        hint = f"Install it with: pip install 'ranjax[{engine.name}]'"
        raise ConfigError(KEY, name, f"an engine whose package {engine.module} is installed", hint)
    with engine.open(settings, scratch) as pool:
        yield pool
