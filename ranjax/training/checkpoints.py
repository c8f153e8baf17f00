"""Checkpoints of a training state, by orbax, with a content list by which damage is found.

    folder/
      40/            orbax's files of step 40
      40.json        written last, by rename: meta, shapes and dtypes, SHA-256 of every file in 40/

A checkpoint without its list was cut off while it was written; one whose files differ from the list is damaged (orbax
by itself restores wrong numbers from a flipped byte). Both are set aside as ``40.damaged`` with a warning, and the one
before is restored.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import ArrayLike, PyTree

from ranjax.core import files
from ranjax.core.errors import DataError, StuckError
from ranjax.training import hosts
from ranjax.training.optimizer import tensor_paths

T = TypeVar("T", bound=PyTree)
Json = Mapping[str, Any] | Sequence[Any] | str | float | bool | None
"""A value that JSON can hold."""
_ITEM = "state"
PATIENCE = 120.0
"""Seconds that a save may take once the wall clock was set back under it: tensorstore's waits follow that clock."""
log = logging.getLogger("ranjax")


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run, in one folder. Saves in the background; use as a context manager, or `close` it."""

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2, keep_best: int = 0):
        """Args:
        folder: made where absent; a relative path is taken from the current folder.
        keep: number of newest checkpoints that stay.
        keep_best: number of checkpoints with the lowest figure (see `save`) that stay besides.

        Raises:
          ValueError: `keep` is below 1, or `keep_best` below 0.
        """
        if keep < 1 or keep_best < 0:
            raise ValueError(f"keep = {keep!r}, keep_best = {keep_best!r}: expected at least 1, and at least 0")
        # orbax fails on relative paths, in its background thread.
        self.folder = Path(folder).expanduser().absolute()
        self.keep, self.keep_best = keep, keep_best
        self._figures: dict[int, float] = {}
        self._manager: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._finishing: Future[None] | None = None
        self._full = self._stuck = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Return the steps of the finished checkpoints, oldest first."""
        self.wait()
        return [step for step in self._present() if (self.folder / f"{step}.json").is_file()]

    def _present(self) -> list[int]:
        """Return the steps of all checkpoints, finished or not, oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit() and path.is_dir())

    def latest(self) -> int | None:
        """Return the newest finished step, or None."""
        return max(self.steps(), default=None)

    def figure(self, step: int) -> float | None:
        """Return the `figure` that `save` was given. Raises DataError if no such checkpoint is finished."""
        return self._list(step).get("figure")

    def best(self) -> int | None:
        """Return the finished step with the lowest figure (the first of equals), or None if none has one."""
        figures = {step: self.figure(step) for step in self.steps()}
        named = [step for step, figure in figures.items() if figure is not None]
        return min(named, key=lambda step: (figures[step], step), default=None)

    def meta(self, step: int) -> Any:
        """Return the `meta` that `save` was given. Raises DataError if no such checkpoint is finished."""
        return self._list(step)["meta"]

    def save(self, step: int, state: PyTree, meta: Json = None, figure: float | None = None) -> None:
        """Save `state` as that of `step`; return once the arrays are copied, and write in the background.

        The arrays may be donated right afterwards. A step that is saved already is left as it is.

        Args:
          step: updates done.
          state: pytree of arrays.
          meta: JSON value to keep beside it, e.g. the fingerprints of config and tokenizer.
          figure: of validation, lower is better; `keep_best` and `best` compare it.

        Raises:
          ValueError: a later step is in the folder: the state would never be found again.
          DiskFullError: no space is left (for this save, or for the one before that was still being written).
        """
        import orbax.checkpoint as ocp

        with _full_disk(self.folder / str(step)):
            newest = hosts.agree(self.latest())
            if newest is not None and step <= newest:
                if step == newest:
                    return
                raise ValueError(f"step {step} cannot be saved: {self.folder} already holds step {newest}")
            hosts.first_does(lambda: self._clear(step))
            content = {"step": step, "meta": meta, "figure": figure, "arrays": _describe(state)}
            if figure is not None:
                self._figures[step] = figure
            saved = self._orbax().save(step, args=ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(state)}))
            if not saved:
                raise RuntimeError(f"orbax did not save step {step} in {self.folder}")
            if self._thread is None:
                self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
            self._finishing = self._thread.submit(self._finish, self._manager, content)

    def restore(self, like: T, step: int | None = None, mesh: Mesh | None = None) -> T | None:
        """Restore the newest undamaged checkpoint, or that of `step`.

        Args:
          like: pytree of arrays or `jax.ShapeDtypeStruct`s with the shapes and dtypes of the state.
          step: which one; None: the newest undamaged one. Damaged ones are set aside with a warning.
          mesh: replicates the result over its devices, whatever number the checkpoint came from. None: the shardings of
            `like`, or the first device.

        Returns:
          The state, or None if there is no (undamaged) checkpoint.

        Raises:
          DataError: the checkpoint holds other arrays than `like` (names the first), or `step` is absent or damaged.
        """
        import orbax.checkpoint as ocp

        # One process looks and sets aside; all restore the same.
        chosen = hosts.agree(hosts.first_does(self._newest_whole)) if step is None else step
        if chosen is None:
            return None
        fault = self._fault(chosen)
        if fault is not None:
            raise DataError(f"checkpoint {self.folder / str(chosen)} cannot be used: {fault}")
        _check_same(self._list(chosen)["arrays"], _describe(like), self.folder / str(chosen))
        target = jax.tree.map(lambda leaf: _abstract(leaf, mesh), like)
        restored = self._orbax().restore(chosen, args=ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(target)}))
        return restored[_ITEM]

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
          StuckError: the wall clock was set back, and `PATIENCE` seconds later the checkpoint is not written.
          Errors of the background threads, e.g. DiskFullError.
        """
        finishing, self._finishing = self._finishing, None
        wall, began = time.time(), time.monotonic()
        while finishing is not None:
            try:
                return finishing.result(timeout=1.0)
            except files.DiskFullError:
                self._full = True
                raise
            except TimeoutError:
                if finishing.done():
                    raise
            waited = time.monotonic() - began
            back = waited - (time.time() - wall)
            if back > 1 and waited > PATIENCE:
                self._stuck = True
                raise StuckError(
                    f"a checkpoint in {self.folder} is not written after {waited:.0f} s: this machine's clock went "
                    f"back by {back:.0f} s meanwhile, and the storage layer waits by it. Set the clock right; the "
                    "same command goes on from the checkpoint before."
                )
        return None

    def close(self) -> None:
        """Wait, and end the background threads. The object may be used again."""
        try:
            self.wait()
        finally:
            manager, thread, self._manager, self._thread = self._manager, self._thread, None, None
            if self._stuck:
                manager = thread = None  # they would be waited for as long
            if thread is not None:
                thread.shutdown()
            if manager is not None:
                full, self._full = self._full, False
                # orbax raises what went wrong in the background once more as it closes.
                with contextlib.suppress(*([files.DiskFullError] if full else [])), _full_disk(self.folder):
                    manager.close()

    def _orbax(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            logging.getLogger("absl").addFilter(_is_news)
            self.folder.mkdir(parents=True, exist_ok=True)
            # A damaged list must not keep an undamaged checkpoint from being restored: read only where figures count.
            figures = [(step, self.figure(step)) for step in self.steps()] if self.keep_best else []
            self._figures |= {step: figure for step, figure in figures if figure is not None}
            options = ocp.CheckpointManagerOptions(preservation_policy=self, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """Tell orbax which checkpoints stay: the newest `keep`, and the `keep_best` with the lowest figure."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        named = sorted((step for step in steps if step in self._figures), key=lambda step: (self._figures[step], step))
        kept = {*steps[-self.keep :], *named[: self.keep_best]}
        return [step in kept for step in steps]

    def _finish(self, manager: Any, content: dict[str, Any]) -> None:
        """Write the content list once orbax is done, in the background; drop the lists of deleted checkpoints."""
        with _full_disk(self.folder / str(content["step"])):
            manager.wait_until_finished()
        if not hosts.first():
            return
        place = self.folder / str(content["step"])
        written = sorted(path for path in place.rglob("*") if path.is_file())
        listed = {str(path.relative_to(place)): files.sha256(path) for path in written}
        files.write_json(self.folder / f"{content['step']}.json", content | {"files": listed})
        for path in self.folder.glob("*.json"):
            if path.stem.isdigit() and not path.with_suffix("").is_dir():
                path.unlink()

    def _list(self, step: int) -> dict[str, Any]:
        path = self.folder / f"{step}.json"
        if not path.is_file():
            raise DataError(f"no finished checkpoint of step {step} in {self.folder}")
        return files.read_json(path)

    def _fault(self, step: int) -> str | None:
        """Describe the damage of a checkpoint; None: it has none."""
        try:
            listed = self._list(step)["files"]
        except (ValueError, KeyError) as error:
            return str(error)
        place = self.folder / str(step)
        for name, digest in listed.items():
            if not (place / name).is_file():
                return f"{name} is missing"
            if files.sha256(place / name) != digest:
                return f"{name} is damaged (its SHA-256 is not the one written down)"
        return None

    def faults(self) -> list[str]:
        """Describe the damage of all finished checkpoints; changes nothing."""
        found = ((step, self._fault(step)) for step in self.steps())
        return [f"checkpoint {self.folder / str(step)}: {fault}" for step, fault in found if fault]

    def _newest_whole(self) -> int | None:
        self.wait()
        for step in reversed(self._present()):
            unfinished = not (self.folder / f"{step}.json").is_file()
            fault = "it was cut off while it was written" if unfinished else self._fault(step)
            if fault is None:
                return step
            log.warning("checkpoint %s is passed over: %s", self.folder / str(step), fault)
            self._set_aside(step)
        return None

    def _set_aside(self, step: int) -> None:
        # Left under its number it would keep orbax from saving that step again.
        self.close()
        aside = self.folder / f"{step}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / str(step)).rename(aside)
        (self.folder / f"{step}.json").unlink(missing_ok=True)

    def _clear(self, step: int) -> None:
        """Set aside unfinished checkpoints of this step and later ones, which orbax would count as saved."""
        for other in self._present():
            if other >= step:
                self._set_aside(other)


@contextmanager
def _full_disk(place: Path) -> Iterator[None]:
    """Extend `files.no_space` to orbax's storage layer, which raises a ValueError in words."""
    try:
        with files.no_space(place):
            yield
    except ValueError as error:
        if not any(words in str(error) for words in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))):
            raise
        message = f"no space left to write {place}; free some and run again"
        raise files.DiskFullError(errno.ENOSPC, message) from error


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for orbax's tracebacks of errors in its threads, which it raises as well."""
    return "_SignalingThread.run() raised an exception" not in str(record.msg)


Leaves = dict[str, list[Any]]
"""[shape, dtype] of every leaf of a tree, by its path."""


def _describe(tree: PyTree) -> Leaves:
    """Return the shape and dtype of every leaf, by its path."""
    leaves = (leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in zip(tensor_paths(tree), leaves, strict=True)}


def _check_same(stored: Leaves, wanted: Leaves, place: Path) -> None:
    # orbax casts dtypes and ignores some mismatches in silence.
    for path in sorted(stored.keys() | wanted.keys()):
        if stored.get(path) != wanted.get(path):
            has, needs = (f"{x[path][1]}{x[path][0]}" if path in x else "nothing" for x in (stored, wanted))
            raise DataError(f"{place} does not fit: it holds {has} for {path}, expected {needs}")


def _abstract(leaf: ArrayLike | jax.ShapeDtypeStruct, mesh: Mesh | None) -> jax.ShapeDtypeStruct:
    array = leaf if isinstance(leaf, jax.ShapeDtypeStruct | jax.Array | np.ndarray) else jnp.asarray(leaf)
    if mesh is not None:
        sharding: Sharding = NamedSharding(mesh, PartitionSpec())
    else:
        sharding = getattr(array, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
