"""Prepare a set of many films of the user's own, and say what it took: time, memory, bytes, and the start of a run.

    python -m experiments.benchmarks.prepare_size --folder /tmp/size --films 100000 --side 224

The films are smooth fields with noise of three bits, each its own. They lie in tar shards, which cost no file a film.
The folder is removed in the end.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SHARD = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--films", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--size", type=int, default=224, help="of the prepared pictures, pixels")
    parser.add_argument("--codec", default="png")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--read", default="", help="a prepared set: only time the start of a run on it")
    given = parser.parse_args()
    if given.read:
        print(json.dumps(reading(given.read)))
        return
    source, out = given.folder / "source", given.folder / "prepared"
    begin = time.time()
    write(source, given.films, given.side)
    print(f"{given.films} films of {given.side} px written in {time.time() - begin:.0f} s", flush=True)
    begin = time.time()
    options = [f"--data_dir={source}", f"--out={out}", f"--image_size={given.size}", f"--codec={given.codec}"]
    options += [f"--workers={given.workers}", "--patient_key=none"]
    subprocess.run([sys.executable, "-m", "ranjax", "prepare", "webdataset", *options], check=True)
    spent, used = time.time() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"prepared in {spent:.0f} s, {given.films / spent:.0f} films/s; {size / 1e9:.2f} GB; peak {used:.2f} GB")
    shutil.rmtree(source)
    command = [sys.executable, "-m", "experiments.benchmarks.prepare_size", "--folder=.", f"--read={out}"]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    shutil.rmtree(given.folder)


def write(folder: Path, films: int, side: int) -> None:
    """Write tar shards of films."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 8, (side * 2, side * 2), dtype=np.uint8)
    for start in range(0, films, SHARD):
        with tarfile.open(folder / f"train-{start // SHARD:05d}.tar", "w") as archive:
            for number in range(start, min(films, start + SHARD)):
                coarse = Image.fromarray(rng.integers(10, 240, (12, 12), dtype=np.uint8))
                pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BILINEAR))
                top, left = rng.integers(0, side, 2)
                buffer = io.BytesIO()
                film = Image.fromarray(pixels + noise[top : top + side, left : left + side])
                film.save(buffer, "PNG", compress_level=1)
                said = {"report": f"Film {number}. " + "Heart size is normal and the lungs are clear. " * 5}
                for name, data in (("png", buffer.getvalue()), ("json", json.dumps(said).encode())):
                    member = tarfile.TarInfo(f"{number:07d}.{name}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def reading(folder: str) -> dict[str, float]:
    """Return what the start of a run on a set costs: seconds and the peak of memory."""
    from ranjax.core import host_memory
    from ranjax.data.batches import Batches
    from ranjax.data.prepared import open_prepared

    found: dict[str, float] = {}
    begin = time.time()
    source = open_prepared(folder).splits["train"]
    found["open s"] = time.time() - begin
    begin = time.time()
    found["reports"] = len(source.column("report"))
    found["column of reports s"] = time.time() - begin
    begin = time.time()
    batches = Batches(source, 64, seed=0)
    batches[0]
    found["first batch s"] = time.time() - begin
    begin = time.time()
    for step in range(1, 31):
        batches[step]
    found["pairs a second"] = 30 * 64 / (time.time() - begin)
    found["peak GB"] = host_memory.peak() / 1e9
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
