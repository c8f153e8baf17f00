"""Write and open a set of very many records, and say what grows with their number: seconds of CPU, memory, bytes.

    python -m experiments.benchmarks.record_count --folder /tmp/count --records 1000000

Tables are not read and pictures not decoded: `prepare_size` measures that. Rows, parts, facts, the check for copies,
shards and the start of a run are those of a preparation. The folder is removed in the end; what is there goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.core import host_memory
from ranjax.data.images.decode import Outcome

SIDE, POOL = 28, 997
"""Pixels of a side, and different pictures; hashes are drawn, so that all but one in a thousand are no copies."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--read", action="store_true", help="only open the set that lies there")
    given = parser.parse_args()
    if given.read:
        read(given.folder)
        return
    write(given.folder, given.records)
    command = [sys.executable, "-m", "experiments.benchmarks.record_count", f"--folder={given.folder}", "--read"]
    subprocess.run(command, check=True)
    shutil.rmtree(given.folder)


class Told:
    """Says what each step took: seconds of this process's CPU, of the clock, and the most memory so far."""

    def __init__(self) -> None:
        self._cpu, self._clock = time.process_time(), time.monotonic()

    def __call__(self, step: str, **more: object) -> None:
        cpu, clock = time.process_time(), time.monotonic()
        said = {"cpu s": round(cpu - self._cpu, 2), "s": round(clock - self._clock, 1)}
        print(json.dumps({"step": step, **said, "peak GB": round(host_memory.peak() / 1e9, 3), **more}), flush=True)
        self._cpu, self._clock = cpu, clock


@functools.cache
def _pool() -> list[tuple[bytes, bytes]]:
    from ranjax.data.images.codecs import Storage
    from ranjax.data.images.decode import outcome_of

    rng = np.random.default_rng(0)
    coarse = (Image.fromarray(rng.integers(10, 240, (4, 4), dtype=np.uint8)) for _ in range(POOL))
    made = (outcome_of(one.resize((SIDE, SIDE), Image.Resampling.BILINEAR), Storage(SIDE)) for one in coarse)
    return [(one.data, one.digest) for one in made]


def _outcomes(first: int, last: int) -> list[Outcome]:
    """Return outcomes as decoding gives them; one row in a thousand has the hash of the row before it."""
    hashes = np.random.default_rng(first).integers(0, 256, (last - first, 32), dtype=np.uint8)
    found = []
    for row in range(first, last):
        data, digest = _pool()[row % POOL]
        own = hashes[row - first - (row % 1000 == 1 and row > first)].tobytes()
        found.append(Outcome(data, "", own, "L", SIDE, SIDE, 10.0, 240.0, 120.0, "", digest, len(data)))
    return found


def write(folder: Path, count: int) -> None:
    """Write the set as a preparation does once its pictures are decoded."""
    from ranjax.data import prepared
    from ranjax.data.array_records import write_records
    from ranjax.data.images import decode, duplicates
    from ranjax.data.images.locations import FileRef
    from ranjax.data.row_filters import Row, spilled_rows

    told, mark, labels = Told(), f"count{count}", np.zeros(14, np.float32)
    told("start")
    report = "Heart size is normal and the lungs are clear. " * 5
    splits = ["train"] * (count - count // 20) + ["test"] * (count // 20)
    rows = spilled_rows(
        Row(f"{place:08d}", FileRef(""), f"Film {place}. {report}", -1, labels, f"patient {place // 2}", split, {})
        for place, split in enumerate(splits)
    )
    told("rows")
    parts = prepared.parts_of(folder, mark)
    decode.make_parts(count, lambda first, last: functools.partial(_outcomes, first, last), parts, workers=1)
    told("parts")
    facts = decode.facts(parts, count)
    told("facts")
    told("copies", groups=len(duplicates.across(facts.hashes, [str(place % 2) for place in range(count)])))

    made = parts / "set"
    written = write_records(
        made, parts, rows, facts, mark=mark, class_count=14, description="many records", shared_patients=True
    )
    told("shards")
    stated = {
        "fingerprint": mark,
        "settings": {"image_size": SIDE},
        "classes": [],
        "prompts": {},
        "label_words": [],
        "card": {},
    }
    prepared.finish(folder, mark, made, written, stated)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    told("manifest", records=sum(written.counts.values()), GB=round(size / 1e9, 2))


def read(folder: Path) -> None:
    """Open the set as a run does, and read its first batches."""
    from ranjax.data.batches import Batches
    from ranjax.data.prepared import open_prepared

    told = Told()
    told("imports")
    source = open_prepared(folder).splits["train"]
    told("open", records=len(source))
    told("ids", count=len(source.ids))
    told("reports", count=len(source.column("report")))
    # Read row by row, as a set is that does not fit in memory.
    batches = Batches(source, 256, seed=0, memory_limit=0)
    order = [batches.index(step) for step in range(3)]
    told("order of three batches", first=[int(one) for one in order[0][:3]])
    batches[0]
    told("first batch")
    for step in range(1, 21):
        batches[step]
    told("20 batches of 256")


if __name__ == "__main__":
    main()
