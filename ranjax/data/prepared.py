"""Prepared sets: written once, whole or not at all, and read by every later stage.

    prepared = open_prepared("prepared/nih")
    prepared.splits["train"][0]["report"]

A set lies in ``folder/ranjax_set/<fingerprint>/<version>/``: array_record shards as tensorflow-datasets reads them,
and ``prepared.json`` with classes, prompts, data card, counts and exclusions, written last. Another seed, size or table
gives another fingerprint, and so another folder beside it. What is unfinished lies in ``folder/.parts/<fingerprint>``,
where a later start goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ranjax.core import files
from ranjax.core.buckets import workdirs
from ranjax.core.errors import DataError
from ranjax.data import prepared_files
from ranjax.data.images import RESIZE_MODES
from ranjax.data.images.locations import tfds_builder
from ranjax.data.sources import PreparedSource, Source

if TYPE_CHECKING:
    from ranjax.data.array_records import Written

MANIFEST = "prepared.json"


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A prepared set, opened.

    Attributes:
      folder: where its files are.
      splits: a random-access source per split.
      classes: names in label order.
      prompts: zero-shot prompts per class.
      label_words: words that state a finding.
      card: what a reader must know of the data (origin, licence, limits).
      counts: records per split.
      exclusions: what was left out, as {"id", "split", "reason"}.
      fingerprint: of the settings and of the source's files.
      content: SHA-256 over all records.
      understood: how its files were understood, see `set_account`; empty for sets that are generated.
    """

    folder: Path
    splits: Mapping[str, Source]
    classes: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    label_words: tuple[str, ...]
    card: Mapping[str, object]
    counts: Mapping[str, int]
    exclusions: tuple[Mapping[str, str], ...]
    fingerprint: str
    content: str
    understood: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_or_write(folder: str | os.PathLike[str], mark: str, write: Callable[[Path], None]) -> PreparedSet:
    """Open the set of fingerprint `mark` below `folder`; `write` it first if it is not there, alone on the folder."""
    folder = Path(folder).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # Asked first without the lock, so that a finished set can be used from a folder that cannot be written.
    if not _is_done(folder, mark):
        with _alone(folder):
            if not _is_done(folder, mark):
                _remove_leftovers(folder, mark)
                write(folder)
    return open_prepared(folder, mark)


def open_prepared(folder: str | os.PathLike[str], fingerprint: str | None = None) -> PreparedSet:
    """Open a prepared set: the folder that holds it, or one above it if only one is there (or matches `fingerprint`).

    One in an object store (``s3://``, ``gs://``, ``az://``) is brought to this machine first, as far as it is new.

    Raises:
      ConfigError: no right to read the store.
      DataError: no such set, or several; a file of it that is missing or was changed.
    """
    folder = workdirs.fetched(folder, "folder").expanduser().absolute()
    found = _complete(folder)
    if fingerprint is not None:
        found = [path for path in found if files.read_object(path).get("fingerprint") == fingerprint]
    if len(found) != 1:
        wanted = f" with fingerprint {fingerprint}" if fingerprint else ""
        names = ", ".join(str(path.parent.relative_to(folder)) for path in found) or "none"
        raise DataError(f"{folder} must hold one prepared set{wanted}; found: {names}.")
    (path,) = found
    stored = prepared_files.read_manifest(path)
    prepared_files.check(path.parent, stored)
    with prepared_files.readable_records(path.parent):
        builder = tfds_builder("", path.parent)
        size, mode = stored["settings"]["image_size"], stored["settings"].get("resize", RESIZE_MODES[0])
        names = [split for split in stored["counts"] if split in builder.info.splits]
        splits = {split: PreparedSource(builder, split, size, mode) for split in names}
    prepared_files.check_splits(path.parent, stored, {split: len(source) for split, source in splits.items()})
    return PreparedSet(
        folder=path.parent,
        splits=splits,
        classes=tuple(stored["classes"]),
        prompts={name: tuple(texts) for name, texts in stored["prompts"].items()},
        label_words=tuple(stored["label_words"]),
        card=stored["card"],
        counts=stored["counts"],
        exclusions=tuple(stored["exclusions"]),
        fingerprint=stored["fingerprint"],
        content=stored["content"],
        understood=stored.get("understood", {}),
    )


def damaged(prepared: PreparedSet) -> Iterator[str]:
    """Read every record of a set, and yield a line for each that is damaged or not the one that its columns tell of."""
    for split, source in prepared.splits.items():
        for index in range(len(source)):
            try:
                columns, record = source.meta(index), source.record(index)
            except DataError as error:
                yield str(error)
                continue
            if not all(np.array_equal(record[name], value) for name, value in columns.items()):
                yield f"record {index} of {split} of {prepared.folder} is not the one that its columns tell of."


def parts_of(folder: Path, mark: str) -> Path:
    """Return the folder of what is unfinished of the set of fingerprint `mark`."""
    return folder / ".parts" / mark


def finish(folder: Path, mark: str, made: Path, written: Written, stated: Mapping[str, object]) -> None:
    """Put the files of `made` into their place below `folder`, and write the manifest, last of all.

    Args:
      folder: where prepared sets are kept.
      mark: fingerprint of the set.
      made: folder of the whole set but its manifest.
      written: what was counted.
      stated: what else the manifest says.
    """
    from ranjax.data.array_records import NAME, VERSION

    place = folder / NAME / mark / VERSION
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(made, place)
    files.write_json(place / MANIFEST, prepared_files.sealed(place, {**stated, **written._asdict()}))
    shutil.rmtree(parts_of(folder, mark), ignore_errors=True)


def _is_done(folder: Path, mark: str) -> bool:
    return any(files.read_object(path).get("fingerprint") == mark for path in _complete(folder))


def _complete(folder: Path) -> list[Path]:
    """Return the manifests of finished sets at or below `folder`."""
    return sorted(path for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(f"{depth}{MANIFEST}"))


def _remove_leftovers(folder: Path, mark: str) -> None:
    """Remove what a killed preparation left: TFDS's incomplete folders, and a set without its manifest."""
    for config in folder.glob(f"ranjax_*/{mark}"):
        shutil.rmtree(config)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when its process dies."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
