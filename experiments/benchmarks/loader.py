"""Images per second from JPEG files to float batches at 224, beside torch's DataLoader with torchvision.

    python experiments/benchmarks/loader.py --torch PYTHON
    python experiments/benchmarks/loader.py --step            # and beside a training step of a ViT-B/32 fed by it

Both read the same files in the same run on the same cores: grey pictures, shorter side to 224, centre crop, f32 in
[0, 1], batches of 32, in a new order every epoch. `--torch` names the Python that has torch and torchvision; without it
only this loader is timed. Rounds alternate; reported are the best and the median of each, and the CPU time of an image
where one process does it all, which holds on a busy machine as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Entries of the list that is shuffled: every file many times, as many as a real set has. Grain's shuffle of a few
# hundred entries costs 20 times as much an entry as that of 65,536.
LISTED = 1 << 16

PEER = """
import json, sys, time
from pathlib import Path
import torch
from torchvision.transforms import v2
torch.set_num_threads(1)
paths, workers, how = sorted(Path(sys.argv[1]).glob("*.jpg")), int(sys.argv[2]), sys.argv[3]
fit = [v2.Resize(224, antialias=True), v2.CenterCrop(224)]
if how == "pil":
    from PIL import Image
    change = v2.Compose([*fit, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    read = lambda p: change(Image.open(p).convert("L"))
else:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    change = v2.Compose([*fit, v2.ToDtype(torch.float32, scale=True)])
    read = lambda p: change(decode_jpeg(read_file(str(p)), mode=ImageReadMode.GRAY))
class Files(torch.utils.data.Dataset):
    def __len__(self): return len(paths)
    def __getitem__(self, i): return read(paths[i])
count, paths = len(paths), paths * (65536 // len(paths))
order = torch.utils.data.RandomSampler(Files(), num_samples=count)
loader = torch.utils.data.DataLoader(Files(), 32, sampler=order, num_workers=workers, drop_last=True,
                                     persistent_workers=workers > 0)
for _ in range(1): sum(b.shape[0] for b in loader)
for line in sys.stdin:
    begin, used = time.perf_counter(), time.process_time()
    count = sum(b.shape[0] for b in loader)
    # What workers use is not this process's.
    used = 0.0 if workers else time.process_time() - used
    print(json.dumps([count / (time.perf_counter() - begin), 1000 * used / count]), flush=True)
"""


def write_files(folder: Path, count: int, size: int) -> None:
    """Smooth pictures with grain, about as compressible as a radiograph."""
    for i in range(count):
        draw = np.random.default_rng(i)
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
        grain = draw.normal(0, 4, (size, size))
        pixels = np.clip(np.asarray(coarse, np.float32) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.jpg", quality=90)


def files_of(folder: Path) -> Any:
    """The files as they are."""
    from experiments.benchmarks.file_source import FileSource

    paths = sorted(folder.glob("*.jpg"))
    paths = paths * (LISTED // len(paths))
    return FileSource(paths, ["a film"] * len(paths), image_size=224)


def prepared_of(folder: Path) -> Any:
    """The same as a prepared set (PNGs of 224 in array_record), which nothing keeps in memory."""
    from ranjax.data import sources
    from ranjax.data.set_settings import SetSettings
    from ranjax.data.set_writing import prepare_set

    sources.KEEP_LIMIT = 0
    names = [path.name for path in sorted(folder.glob("*.jpg"))]
    (folder / "index.csv").write_text("\n".join(["file,report,split", *(f"{name},a film,train" for name in names)]))
    shares = {"adapt": 0.0, "validation": 0.0, "test": 0.0}
    return prepare_set(
        SetSettings("table", str(folder), patient_key="none", deidentify=False, **shares),
        folder / "prepared",
        workers=1,
    ).splits["train"]


class Ours:
    """`count` images of `Batches` over a source at a time."""

    def __init__(self, source: Any, threads: int, count: int):
        from ranjax.data.batches import Batches

        self.count = count
        self.batches = Batches(source, 32, seed=0, memory_limit=0, threads=threads)
        self.done = 0
        self()

    def __call__(self) -> tuple[float, float]:
        """Images per second, and milliseconds of CPU an image."""
        begin, used, count = time.perf_counter(), time.process_time(), 0
        steps = self.count // 32
        iterator = self.batches.iterate(self.done, threads=1, ahead=2)
        for _ in range(steps):
            count += len(next(iterator)["images"])
        self.done += steps
        return count / (time.perf_counter() - begin), 1000 * (time.process_time() - used) / count


class Peer:
    """The same by torch, in its own process that waits between rounds."""

    def __init__(self, python: str, folder: Path, workers: int, how: str):
        command = [python, "-c", PEER, str(folder), str(workers), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self()

    def __call__(self) -> tuple[float, float]:
        pipes = (self.process.stdin, self.process.stdout)
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("the peer's pipes are closed")
        pipes[0].write("go\n")
        pipes[0].flush()
        rate, used = json.loads(pipes[1].readline())
        return rate, used


def time_step(folder: Path, threads: int, steps: int = 3) -> tuple[float, float]:
    """Images per second of a ViT-B/32 training step (text: 12 layers, 512 wide, 77 tokens): on one batch that is there
    already, and fed by the loader as `training.loop.train` feeds it."""
    import jax
    from flax import nnx

    from experiments.benchmarks.file_source import FileSource
    from ranjax.data.batches import Batches
    from ranjax.data.text.tokenizer import Tokenizer
    from ranjax.models import DualEncoder, clip, split
    from ranjax.training import loop
    from ranjax.training.contrastive_step import make_step
    from ranjax.training.optimizer import AdamWSettings, TrainState, adamw

    paths = sorted(folder.glob("*.jpg"))
    reports = ["No acute disease. The heart is normal."] * len(paths)
    tokenizer = Tokenizer.build(reports, max_size=64)
    files = FileSource(paths, reports, image_size=224)
    batches = Batches(files, 32, seed=0, tokenizer=tokenizer, length=77, memory_limit=0, threads=threads)
    shape = clip(
        vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, image_size=224, patch_size=32, vision_width=768,
        vision_layers=12, vision_heads=12, text_width=512, text_layers=12, text_heads=8, max_length=77, embed_dim=512,
    )  # fmt: skip
    functions, params = split(DualEncoder(shape, nnx.Rngs(0)))
    optimizer = adamw(AdamWSettings(learning_rate=1e-4, steps=100, warmup_steps=1))
    step = jax.jit(make_step(functions, optimizer, axis_name=None), donate_argnums=0)
    state = TrainState.create(params, optimizer)

    def rows(k: int) -> dict:
        batch = batches[k]
        return {"image": batch["images"], "tokens": batch["tokens"], "mask": batch["mask"]}

    fixed = jax.device_put(rows(0))
    rates = []
    state = loop.train(step, state, lambda k: fixed, 1, key=jax.random.key(0))
    for k, batch_at in enumerate((lambda k: fixed, rows)):
        begin = time.perf_counter()
        state = loop.train(step, state, batch_at, 1 + (k + 1) * steps, key=jax.random.key(0))
        rates.append(32 * steps / (time.perf_counter() - begin))
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", default="", metavar="PYTHON")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 512])
    parser.add_argument("--decoders", nargs="+", default=["pil"], choices=["pil", "decode_jpeg"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step", action="store_true", help="time a training step of a ViT-B/32 as well")
    arguments = parser.parse_args()
    from ranjax.training.cpu import keep_freed_memory

    # As `ranjax.main` does before it trains.
    keep_freed_memory()
    cores = len(os.sched_getaffinity(0))
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_files(folder, arguments.count, size)
            files, prepared = files_of(folder), prepared_of(folder)
            ways: dict[str, Any] = {}
            for threads in dict.fromkeys((1, cores)):
                ways[f"ranjax, files, {threads} threads"] = Ours(files, threads, arguments.count)
                ways[f"ranjax, prepared set, {threads} threads"] = Ours(prepared, threads, arguments.count)
            if arguments.torch:
                for how in arguments.decoders:
                    for workers in (0, cores):
                        way = f"torch DataLoader, {how}, {workers} workers"
                        ways[way] = Peer(arguments.torch, folder, workers, how)
            figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                for way, run in ways.items():
                    figures[way].append(run())
            for run in ways.values():
                if isinstance(run, Peer):
                    run.process.terminate()
            print(f"{arguments.count} grey JPEGs of {size} x {size} to batches of 32 at 224, {cores} cores, images/s")
            for way, found in figures.items():
                rates, cpu = zip(*found)
                spent = f"  CPU ms an image {statistics.median(cpu):.2f}" if min(cpu) else ""
                print(f"  {way:<44} best {max(rates):7.0f}  median {statistics.median(rates):7.0f}{spent}", flush=True)
            if arguments.step:
                alone, fed = time_step(folder, cores)
                print(f"  ViT-B/32 step, batch 32: {alone:.1f} images/s on one batch, {fed:.1f} fed by the loader")


if __name__ == "__main__":
    sys.exit(main())
