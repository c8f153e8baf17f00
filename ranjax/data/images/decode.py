"""Images to small encoded ones over all cores, in parts that survive an interruption.

Rows are cut into parts of fixed size. A part is an Arrow file with an outcome per row; it is written whole or not at
all. A second start reads the parts that are there and makes the others, so the outcome depends neither on the number
of workers nor on where the first start was cut off. What is asked of a part is read from it alone, never all pictures.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from ranjax.core import files
from ranjax.core.engines.task_pool import Pool, TaskStopped, in_processes, is_seen, work_through
from ranjax.core.errors import ConfigError, DataError, RunError
from ranjax.data.images import codecs
from ranjax.data.images.duplicates import BITS, perceptual_hash
from ranjax.data.images.loading import load
from ranjax.data.images.locations import Reference

if TYPE_CHECKING:
    import pyarrow as pa

PART = 128
"""Rows of a part: a few seconds of work, so little is lost when a preparation is cut off."""
_LIGHT = ("reason", "image_hash", "digest", "mode", "height", "width", "low", "high", "mean", "marks", "stored")


class Outcome(NamedTuple):
    """What became of one image.

    data: as `codecs.encode` stored it, empty where `reason` says why there is none, or where pictures were not asked
      for. image_hash: its perceptual hash. mode, height, width, low, high: as stored by the publisher. mean: of the
      prepared pixels, 0 to 255. marks: what a reader of the set should know, in words, separated by "; ". digest: of
      the prepared pixels, 16 bytes. stored: bytes of `data`.
    """

    data: bytes
    reason: str = ""
    image_hash: bytes = b""
    mode: str = ""
    height: int = 0
    width: int = 0
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    marks: str = ""
    digest: bytes = b""
    stored: int = 0


class Facts(NamedTuple):
    """What the parts say of all rows.

    reasons: why a row has no picture, by its place. hashes: perceptual hashes, zeros where there is none. sizes: bytes
      of the pictures.
    """

    reasons: dict[int, str]
    hashes: UInt8[np.ndarray, "rows 32"]
    sizes: Int64[np.ndarray, " rows"]


class Interrupted(Exception):
    """A stop was asked for; the parts that are done remain."""


def outcome_of(picture: Image.Image, storage: codecs.Storage) -> Outcome:
    """Return the outcome of a Pillow "L" picture that was generated: there are no facts of a publisher."""
    data, pixels = codecs.encode(picture, storage)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
    mean = round(float(pixels.mean()), 3)
    return Outcome(data, image_hash=perceptual_hash(picture), mean=mean, digest=digest, stored=len(data))


def decode(reference: Reference, storage: codecs.Storage) -> Outcome:
    """Read one image and store it; the outcome has a reason in place of pixels where that cannot be."""
    try:
        loaded = load(reference)
    except DataError as error:
        return Outcome(b"", str(error))
    height, width = loaded.size
    return outcome_of(loaded.picture, storage)._replace(
        mode=loaded.mode, height=height, width=width, low=loaded.low, high=loaded.high, marks="; ".join(loaded.marks)
    )


def decode_rows(references: Sequence[Reference], storage: codecs.Storage) -> list[Outcome]:
    """Return the outcomes of images that lie at `references`: a job of `make_parts`, with its arguments bound."""
    return [decode(reference, storage) for reference in references]


Job = Callable[[], list[Outcome]]
"""Makes the outcomes of one part."""


def make_parts(
    count: int,
    job_of: Callable[[int, int], Job],
    folder: Path,
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    pool: Pool | None = None,
) -> None:
    """Leave one part file per `PART` rows in `folder`; those that exist are kept.

    Args:
      count: rows.
      job_of: gives the job of the rows from a first to a last (not included); it can be sent to another process.
      folder: of the parts; one per set and fingerprint.
      workers: processes; 0 takes one per usable core. Few rows are made in this process.
      progress: called with (rows done, rows in all).
      stop: polled between parts.
      pool: of an engine on other machines; None: processes of this one.

    Raises:
      Interrupted: `stop` said so.
      ConfigError: the engine refuses its tasks, or what other machines wrote is not seen here.
      RunError: a process died.
    """
    # Parts of an earlier start count as done.
    folder.mkdir(parents=True, exist_ok=True)
    todo = [start for start in range(0, count, PART) if not _part(folder, start).exists()]
    done = count - sum(min(PART, count - start) for start in todo)
    if done:
        progress(done, count)
    workers = min(workers or len(os.sched_getaffinity(0)), len(todo))

    def job(start: int) -> tuple[Job, Path]:
        return job_of(start, min(start + PART, count)), _part(folder, start)

    # Few rows: in this process, which starts no other.
    if workers <= 1 and pool is None:
        for start in todo:
            if stop():
                raise Interrupted
            _make_part(*job(start))
            done += min(PART, count - start)
            progress(done, count)
        return

    def task(starts: list[int]) -> tuple[str, Callable[[], None]]:
        return f"decode {starts[0]}", functools.partial(_make_missing, [job(start) for start in starts])

    with nullcontext(pool) if pool else in_processes(workers) as chosen:
        size = -(-len(todo) // chosen.at_once) if chosen.dear else 1
        bundles = deque(todo[at : at + size] for at in range(0, len(todo), size))
        try:
            for starts, made in work_through(chosen, bundles, task, stop):
                made.result()
                _check_seen(folder, starts)
                done += sum(min(PART, count - start) for start in starts)
                progress(done, count)
        except BrokenProcessPool as error:
            # Which of the parts in work it was, the pool cannot tell; what is done is on the disk.
            cure = "the same command goes on from what is decoded; fewer workers need less memory"
            raise RunError(f"a process that decodes images died (killed, or out of memory): {cure}") from error
        except (TaskStopped, CancelledError):
            raise Interrupted from None
    if done < count:
        raise Interrupted


def _check_seen(folder: Path, starts: Sequence[int]) -> None:
    """Raise ConfigError where a part that another machine made is not here."""
    if lacking := [part for part in (_part(folder, start) for start in starts) if not is_seen(part)]:
        expected = f"a folder that all machines of the engine see; {lacking[0].name} was written elsewhere"
        raise ConfigError("--out", str(folder), expected)


def _make_missing(parts: Sequence[tuple[Job, Path]]) -> None:
    """Make parts; a start before this one may have left some."""
    for job, path in parts:
        if not path.exists():
            _make_part(job, path)


def outcomes(folder: Path, count: int) -> Iterator[Outcome]:
    """Yield the outcomes of `count` rows in order, without their pictures."""
    for start in range(0, count, PART):
        table = _open(_part(folder, start)).select(_LIGHT)
        yield from (Outcome(b"", **row) for row in table.to_pylist())


def facts(folder: Path, count: int) -> Facts:
    """Return what the parts say of `count` rows."""
    found = Facts({}, np.zeros((count, BITS // 8), np.uint8), np.zeros(count, np.int64))
    for place, outcome in enumerate(outcomes(folder, count)):
        if outcome.reason:
            found.reasons[place] = outcome.reason
        else:
            found.hashes[place] = np.frombuffer(outcome.image_hash, np.uint8)
            found.sizes[place] = outcome.stored
    return found


def pictures(folder: Path, places: Int64[np.ndarray, " chosen"]) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (place, picture as stored, digest of its pixels) of rows at ascending `places`; no other is read."""
    cuts = np.flatnonzero(np.diff(places // PART)) + 1
    for inside in np.split(places, cuts) if len(places) else ():
        start = int(inside[0]) // PART * PART
        table = _open(_part(folder, start))
        data, digests = table.column("data"), table.column("digest")
        for place in inside - start:
            yield start + int(place), data[place].as_py(), digests[place].as_py()


def _open(path: Path) -> pa.Table:
    """Map one part. Raises DataError for a file that is no part."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is damaged; remove it and run again") from error


def _make_part(job: Job, path: Path) -> None:
    import pyarrow as pa

    kinds = {bytes: pa.binary(), str: pa.string(), int: pa.int64(), float: pa.float64()}
    types = [(name, kinds[type(value)]) for name, value in Outcome(b"")._asdict().items()]
    types[types.index(("data", pa.binary()))] = ("data", pa.large_binary())
    table = pa.Table.from_pylist([outcome._asdict() for outcome in job()], schema=pa.schema(types))
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as file:
        file.write_table(table)
    files.write_bytes(path, buffer.getvalue())


def _part(folder: Path, start: int) -> Path:
    return folder / f"part-{start:09d}.arrow"
