"""A sweep file, and the independent runs that it expands to."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError, nearest
from ranjax.run import config as configs

ALLOWED = ("CONFIG", "GRID", "RUNS")


@dataclass(frozen=True)
class Run:
    """One run: its name (a folder's name), its config file with argument, and its overrides as (key, text)."""

    name: str
    config: str
    overrides: tuple[tuple[str, str], ...]

    def workdir(self, folder: str) -> str:
        """Return the workdir below a folder or URL."""
        return f"{folder.rstrip('/')}/{self.name}"

    def words(self, folder: str) -> list[str]:
        """Return what follows ``ranjax`` on the command line."""
        settings = [f"--config.{key}={value}" for key, value in self.overrides]
        return ["run", "--config", self.config, "--workdir", self.workdir(folder), *settings]


def expand(path: str | Path) -> list[Run]:
    """Return the runs of a sweep file, every one checked as the command line would check it.

    A sweep file is a Python program (run only those that you trust) that sets:

    - ``CONFIG``: a config file, e.g. ``"configs/ran.py:smoke"``;
    - ``GRID``: {key: values}; the product of all values is run, the last key varying fastest;
    - ``RUNS``: a list of {key: value} instead of a grid, or beside one (each entry is then combined with the grid).

    Raises:
      ConfigError: the file is missing or sets something else; a key or value is refused; two runs are the same.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("sweep", str(path), "a sweep file that exists")
    config, points = _read(path)
    runs = [_run(config, point) for point in points]
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError("sweep", str(path), f"runs that differ; these come twice: {', '.join(twice)}")
    for run in runs:
        configs.resolve(run.config, run.overrides)
    return runs


def _read(path: Path) -> tuple[str, list[dict[str, Any]]]:
    spec = importlib.util.spec_from_file_location(f"ranjax_sweep_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError("sweep", str(path), "a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = {name: value for name, value in vars(module).items() if name.isupper()}
    for name in given:
        if name not in ALLOWED:
            raise ConfigError(f"{path}: {name}", given[name], f"only {', '.join(ALLOWED)}", nearest(name, ALLOWED))
    if not isinstance(given.get("CONFIG"), str):
        raise ConfigError(f"{path}: CONFIG", given.get("CONFIG"), "a config file, as 'configs/ran.py:smoke'")
    grid, runs = given.get("GRID", {}), given.get("RUNS", [{}])
    for key, values in grid.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"{path}: GRID[{key!r}]", values, "a list of at least one value")
    points = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    return given["CONFIG"], [dict(extra) | point for extra in runs for point in points]


def _run(config: str, point: Mapping[str, Any]) -> Run:
    overrides = tuple((key, value if isinstance(value, str) else repr(value)) for key, value in point.items())
    words = [f"{key.split('.')[-1]}={value}" for key, value in overrides]
    name = re.sub(r"[^A-Za-z0-9.=_-]+", "_", ",".join(words)).strip("_") or "run"
    if len(name) > 100:  # a folder's name has a limit; the hash keeps it unique
        name = f"{name[:80]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return Run(name, config, overrides)
