"""Prepared sets: written once, whole or not at all, and read by every later stage.

    prepared = prepare(RadiographSettings(seed=0), "data")
    prepared.splits["train"][0]["report"]

A set lies in ``folder/<builder>/<fingerprint>/<version>/``: array_record shards as tensorflow-datasets writes them,
and ``prepared.json`` with classes, prompts, data card, counts and exclusions, written last. Another seed, size or table
gives another fingerprint, and so another folder beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import absl.logging

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.core.files import digest
from ranjax.data.set_settings import RadiographSettings
from ranjax.data.sources import Source, open_splits
from ranjax.data.space import no_space, require_space
from ranjax.data.splits import SPLITS

MANIFEST = "prepared.json"
Progress = Callable[[int, int], Any]


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
      value_range: least and greatest stored pixel value that is possible.
    """

    folder: Path
    splits: Mapping[str, Source]
    classes: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    label_words: tuple[str, ...]
    card: Mapping[str, Any]
    counts: Mapping[str, int]
    exclusions: tuple[Mapping[str, str], ...]
    fingerprint: str
    content: str
    value_range: tuple[int, int] = (0, 255)


def fingerprint(settings: RadiographSettings) -> str:
    """Return 16 hexadecimal digits that change whenever the prepared set would."""
    from ranjax.data.builders import pair_builder as pairs
    from ranjax.data.text import pairing

    stated = dataclasses.asdict(settings)
    if settings.reports:
        stated["reports"] = pairing.digest_of(settings.reports)
    return digest({"layout": pairs.VERSION, "settings": stated, "generator": _generator_code()})


def prepare(
    settings: RadiographSettings, folder: str | os.PathLike[str], progress: Progress | None = None
) -> PreparedSet:
    """Generate the radiographs that `settings` describes below `folder`, or open them if that is done.

    Only one process prepares at a time; the others wait. What an interrupted preparation left is removed.

    Args:
      settings: the set; `set_writing.prepare_set` is the same for sets of files.
      folder: where prepared sets are kept; several may share it.
      progress: called with (rows done, rows in all).

    Raises:
      DataError: `settings.reports` are none, or nothing is left in a split.
      files.DiskFullError: no space is left; nothing half-written stays.
    """
    mark = fingerprint(settings)
    return open_or_write(folder, mark, lambda place: _write(settings, place, mark, progress))


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
    """Opens a prepared set: the folder that holds it, or one above it if only one is there (or matches `fingerprint`).

    Raises:
      DataError: no such set, or several.
    """
    folder = Path(folder).expanduser().absolute()
    found = {path: files.read_json(path) for path in _complete(folder)}
    if fingerprint is not None:
        found = {path: stored for path, stored in found.items() if stored["fingerprint"] == fingerprint}
    if len(found) != 1:
        wanted = f" with fingerprint {fingerprint}" if fingerprint else ""
        names = ", ".join(str(path.parent.relative_to(folder)) for path in found) or "none"
        raise DataError(f"{folder} must hold one prepared set{wanted}; found: {names}.")
    ((path, stored),) = found.items()
    return PreparedSet(
        folder=path.parent,
        splits=open_splits(path.parent, stored["counts"]),
        classes=tuple(stored["classes"]),
        prompts={name: tuple(texts) for name, texts in stored["prompts"].items()},
        label_words=tuple(stored["label_words"]),
        card=stored["card"],
        counts=stored["counts"],
        exclusions=tuple(stored["exclusions"]),
        fingerprint=stored["fingerprint"],
        content=stored["content"],
        value_range=(stored["value_range"][0], stored["value_range"][1]),
    )


def _write(settings: RadiographSettings, folder: Path, mark: str, progress: Progress | None) -> None:
    from ranjax.data import radiographs
    from ranjax.data.builders.radiograph_builder import RanjaxRadiographs
    from ranjax.data.text import pairing

    with quiet_tfds():
        builder = RanjaxRadiographs(settings, mark, data_dir=os.fspath(folder), file_format="array_record")
    write_records(builder, folder, settings.image_size, progress)
    stated = {
        "fingerprint": mark,
        "kind": type(settings).__name__,
        "settings": dataclasses.asdict(settings),
        "classes": list(radiographs.CLASSES),
        "prompts": {name: list(radiographs.PROMPTS[name]) for name in radiographs.CLASSES},
        "label_words": sorted(radiographs.LABEL_WORDS),
        "card": {**radiographs.DATA_CARD, **(pairing.CARD if settings.reports else {})},
    }
    write_manifest(builder, stated)


def write_records(builder: Any, folder: Path, image_size: int, progress: Progress | None) -> None:
    """Runs a `PairsBuilder`: array_record shards, without TFDS's own output.

    Raises:
      files.DiskFullError: no space is left.
      DataError: nothing is left in a split.
    """
    import tensorflow_datasets as tfds

    # Films compress to about half; their shuffle holds them once more.
    require_space(folder, builder.total * image_size**2)
    if progress is not None:
        builder.progress = lambda done: progress(done, builder.total)
    download = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS wants a folder for downloads, though nothing is downloaded.
    with quiet_tfds(), no_space(folder), tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(download_dir=downloads, download_config=download, file_format="array_record")


def write_manifest(builder: Any, stated: Mapping[str, Any]) -> None:
    """The manifest, last of all: what is `stated`, and what the builder counted."""
    counted = {
        "content": builder.content,
        "counts": {split: builder.counts[split] for split in SPLITS if split in builder.counts},
        "exclusions": builder.exclusions,
        "value_range": [0, 255],
    }
    files.write_json(Path(builder.data_dir) / MANIFEST, {**stated, **counted})


def _generator_code() -> str:
    """Hash of the generator's own files: a changed renderer or grammar must not pass for the prepared images."""
    from ranjax.data import radiographs

    root = Path(radiographs.__file__).parent
    names = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".md"))
    return digest([[os.fspath(path.relative_to(root)), files.sha256(path)] for path in names])


def _is_done(folder: Path, mark: str) -> bool:
    return any(files.read_json(path)["fingerprint"] == mark for path in _complete(folder))


def _complete(folder: Path) -> list[Path]:
    """The manifests of finished sets at or below `folder`."""
    return sorted(path for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(f"{depth}{MANIFEST}"))


def _remove_leftovers(folder: Path, mark: str) -> None:
    """Removes what a killed preparation left: TFDS's incomplete folders, and a set without its manifest."""
    for config in folder.glob(f"ranjax_*/{mark}"):
        shutil.rmtree(config)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system releases when its process dies."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Without TFDS's own bars and lines: the caller shows the progress."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    shown = tqdm_utils._active
    tfds.disable_progress_bar()
    # It warns that a config is not among the builder's named ones; a fingerprint never is.
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.logging.set_verbosity(level)
        if shown:
            tfds.enable_progress_bar()
