"""Images to small PNGs over all cores, in parts that survive an interruption.

Rows are cut into parts of fixed size. A part is a Parquet file with an outcome per row; it is written whole or not at
all. A second start reads the parts that are there and makes the others, so the outcome depends neither on the number
of workers nor on where the first start was cut off.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from ranjax.core import files
from ranjax.core.errors import DataError, RunError
from ranjax.data.images.duplicates import perceptual_hash
from ranjax.data.images.loading import load
from ranjax.data.images.locations import Reference
from ranjax.data.images.reading import encode_png, resize

PART = 128
"""Rows of a part: a few seconds of work, so little is lost when a preparation is cut off."""


class Outcome(NamedTuple):
    """What became of one image.

    png: uint8[size, size, 1] as PNG, empty where `reason` says why there is none. image_hash: its perceptual hash.
      mode,
    height, width, low, high: as stored by the publisher. mean: of the prepared pixels, 0 to 255. marks: what a reader
      of the set should know, in words, separated by "; ".
    """

    png: bytes
    reason: str = ""
    image_hash: bytes = b""
    mode: str = ""
    height: int = 0
    width: int = 0
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    marks: str = ""


class Interrupted(Exception):
    """A stop was asked for; the parts that are done remain."""


def decode(reference: Reference, size: int, mode: str) -> Outcome:
    """Read one image and make it a square of `size`; the outcome has a reason in place of pixels where that cannot
    be."""
    try:
        loaded = load(reference)
    except DataError as error:
        return Outcome(b"", str(error))
    image = resize(loaded.picture, size, mode)
    return Outcome(
        encode_png(image), "", perceptual_hash(loaded.picture), loaded.mode, *loaded.size, loaded.low, loaded.high,
        round(float(image.mean()), 3), "; ".join(loaded.marks),
    )  # fmt: skip


def decode_all(
    references: Sequence[Reference],
    size: int,
    mode: str,
    folder: Path,
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Leave one part file per `PART` rows in `folder`; those that exist are kept.

    Args:
      references: where the images lie, in order.
      size, mode: see `images.resize`.
      folder: of the parts; one per set and fingerprint.
      workers: processes; 0 takes one per usable core. Few rows are read in this process.
      progress: called with (rows done, rows in all).
      stop: polled between parts.

    Raises:
      Interrupted: `stop` said so.
      RunError: a process died.
    """
    # Parts of an earlier start count as done.
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(references), PART)
    todo = [start for start in starts if not _part(folder, start).exists()]
    done = len(references) - sum(min(PART, len(references) - start) for start in todo)
    if done:
        progress(done, len(references))
    workers = min(workers or len(os.sched_getaffinity(0)), len(todo))

    def finished(start: int) -> None:
        nonlocal done
        done += min(PART, len(references) - start)
        progress(done, len(references))

    # Few rows: in this process, which starts no other.
    if workers <= 1:
        for start in todo:
            if stop():
                raise Interrupted
            _make_part(references[start : start + PART], size, mode, _part(folder, start))
            finished(start)
        return
    # Spawned, not forked: the parent may hold threads (JAX, array_record) that do not survive a fork. Ctrl-C reaches
    # every process of the terminal, and the parent stops between parts.
    spawn, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, spawn, initializer=signal.signal, initargs=ignore)
    running: dict[Future, int] = {}
    try:
        while todo or running:
            while todo and len(running) < 2 * workers and not stop():
                start = todo.pop(0)
                job = pool.submit(_make_part, references[start : start + PART], size, mode, _part(folder, start))
                running[job] = start
            if not running:
                raise Interrupted
            # At most two parts a worker are waiting, so that a stop takes effect soon.
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for job in ended:
                start = running.pop(job)
                job.result()
                finished(start)
    except BrokenProcessPool as error:
        # Which of the parts in work it was, the pool cannot tell; what is done is on the disk.
        cure = "the same command goes on from what is decoded; fewer workers need less memory"
        raise RunError(f"a process that decodes images died (killed, or out of memory): {cure}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def outcomes(folder: Path, first: int, last: int) -> Iterator[Outcome]:
    """Yield the outcomes of rows `first` to `last` (not included) in order, read part by part."""
    for start in range(first - first % PART, last, PART):
        found = read_part(_part(folder, start))
        yield from found[max(0, first - start) : last - start]


def read_part(path: Path) -> list[Outcome]:
    """Return the outcomes of one part. Raises DataError for a file that is no part."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return [Outcome(**row) for row in parquet.read_table(pa.BufferReader(path.read_bytes())).to_pylist()]
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is damaged; remove it and run again") from error


def _make_part(references: Sequence[Reference], size: int, mode: str, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.Table.from_pylist([decode(reference, size, mode)._asdict() for reference in references])
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="none", write_statistics=False)
    files.write_bytes(path, buffer.getvalue())


def _part(folder: Path, start: int) -> Path:
    return folder / f"part-{start:09d}"
