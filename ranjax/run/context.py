"""What a stage run is given: its config, folders and devices, and how it is stopped."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from ranjax.core import files
from ranjax.core.engines.task_pool import Pool
from ranjax.run import config as configs
from ranjax.run.plan import StageRun, config_of, fingerprints, plan
from ranjax.run.schema import RunConfig
from ranjax.training import hosts

if TYPE_CHECKING:  # a plan needs no JAX
    from jax.sharding import Mesh
else:
    Mesh = object

T = TypeVar("T")
PARTS = "parts"
"""Subfolder in which a stage run keeps `Context.checkpointed_arrays` until it is done."""


class Stopped(Exception):
    """The run was asked to stop; what was done so far is saved. The message says where it stands."""


@dataclass(frozen=True)
class Context:
    """What a stage run is given.

    Attributes:
      config: as the recipe of this stage run reads it.
      workdir: folder of the whole run.
      stage_run: the one that is carried out, and `plan`: all of them.
      fingerprint: of this stage run.
      mesh: devices, from `training.devices.make_mesh`.
      stop: returns True once a stop was asked for.
      say: takes one line of text.
      shared: what `memoize` holds; one dictionary for all stage runs of a process.
      pool: of the engine that writes shards of noisy pairs; None: this process does.
    """

    config: RunConfig
    workdir: Path
    stage_run: StageRun
    plan: tuple[StageRun, ...]
    fingerprint: str
    mesh: Mesh
    stop: Callable[[], bool]
    say: Callable[[str], None]
    shared: dict[Hashable, Any] = field(default_factory=dict)
    pool: Pool | None = None

    @property
    def folder(self) -> Path:
        return self.workdir / self.stage_run.id

    def check_stop(self, where: str) -> None:
        """Raise `Stopped` if a stop was asked for; call it where everything done so far is saved."""
        if self.stop():
            raise Stopped(f"{self.stage_run.id}, {where}")

    def poll(self) -> None:
        """Raise `Stopped` if a stop was asked for, between two batches of work that is not saved yet.

        Stage runs share compiled programs, so the message names the stage run that is running now. Several processes
        do not come to the same batches: they agree on a stop in `check_stop` alone.
        """
        if hosts.count() == 1 and not self.shared.get("uninterrupted") and self.stop():
            raise Stopped(f"{self.shared.get('running', self.stage_run.id)}, between two batches")

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Let `poll` ignore stops inside the block: for work that a stop itself needs, as the figure of what it
        saves.
        """
        self.shared["uninterrupted"] = True
        try:
            yield
        finally:
            del self.shared["uninterrupted"]

    def stop_every(self, polls: int) -> Callable[[], bool]:
        """Return `stop` for a tight loop: several processes agree on it at every `polls`-th call alone."""
        if hosts.count() == 1:
            return self.stop
        calls = itertools.count(1)
        return lambda: next(calls) % polls == 0 and self.stop()

    def memoize(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gave for `key` the first time in this process: programs, opened sets, loaded weights."""
        if key not in self.shared:
            self.shared[key] = make()
        found: T = self.shared[key]
        return found

    def checkpointed_arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return what `make` gave for `name` the first time in this stage run, through stops and kills.

        For parts that take long and are no result by themselves. They lie on the disk until `clear_arrays`.
        """
        from safetensors.numpy import load_file

        path = self.folder / PARTS / f"{re.sub('[^A-Za-z0-9_.-]', '-', name)}.safetensors"
        if not hosts.agree(path.is_file()):
            made = make()
            hosts.first_does(lambda: files.write_tensors(path, made))
        return load_file(path)

    def clear_arrays(self) -> None:
        """Remove the `checkpointed_arrays` of this stage run."""
        hosts.first_does(lambda: shutil.rmtree(self.folder / PARTS, ignore_errors=True))

    def folder_of(self, run_id: str) -> Path:
        return self.workdir / run_id

    @property
    def craft_id(self) -> str:
        """The stage run that crafted the noisy pairs of this condition's recipe."""
        recipe = self.config.noise.recipe
        return next(r.id for r in self.plan if r.stage == "craft" and (r.recipe or recipe) == recipe)

    def manifest_of(self, run_id: str) -> dict[str, Any]:
        return files.read_json(self.workdir / run_id / "manifest.json")


def context_of(config: ConfigDict, workdir: Path, run: StageRun, mesh: Mesh, shared: dict[Hashable, Any]) -> Context:
    """Return the context that `run` of a finished workdir was given, to read it again; it never stops and is silent."""
    whole = configs.typed(config)
    runs = plan(whole)
    expected = fingerprints(whole, runs)[run.id]
    return Context(
        config_of(whole, run), workdir, run, runs, expected, mesh, lambda: False, lambda line: None, shared=shared
    )
