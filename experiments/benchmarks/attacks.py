"""Attacks against their peers: the same weights, inputs and budgets, in one run, contestants in turns.

    python -m experiments.benchmarks.attacks --peers PYTHON
    python -m experiments.benchmarks.attacks --peers PYTHON --workloads pgd_small sga --repeats 7 --out figures.json

PYTHON is that of an environment with torch, transformers and any of torchattacks, foolbox and
adversarial-robustness-toolbox (what is absent there is left out, and said). Every contestant is a process of its own
that stays up; one repetition of each follows the other, and medians are compared. Workloads:

  pgd_small   PGD-10 on a CLIP image tower at 64 pixels (12 x 192), batch 16, cross-entropy over the batch's captions
  pgd_b32     the same on ViT-B/32 at 224 pixels, batch 4
  text        3 words in 16 captions by gradient-guided substitution, 8 re-scored a round: 24 queries a caption
  sga         SGA on 16 pairs of the small model: 10 image steps at 5 scales, 1 word before and after

Also: the loss that each contestant reached (higher is a better attack), peak memory of its process, and seconds to its
first result (imports and compilation; ranjax's with a cold and with a filled compilation cache).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ranjax import files

HERE = Path(__file__).resolve().parent
WORKLOADS = ("pgd_small", "pgd_b32", "text", "sga")
PEERS = {
    "pgd_small": ("torch", "torchattacks", "foolbox", "art"),
    "pgd_b32": ("torch", "torchattacks", "foolbox", "art"),
    "text": ("torch",),
    "sga": ("torch",),
}


class Contestant:
    """A process that repeats one workload when told to."""

    def __init__(self, name: str, line: list[str]):
        self.name, self.seconds, self.loss, self.peak = name, [], None, None
        began = time.perf_counter()
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self.say("first")
        self.absent = first.get("absent")
        self.start = time.perf_counter() - began

    def say(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without a word (exit code {self.process.wait()})")
        return json.loads(line)

    def go(self) -> None:
        found = self.say("go")
        self.seconds.append(found["seconds"])
        self.loss, self.peak = found["loss"], found["peak_mb"]

    def close(self) -> None:
        self.process.communicate("end\n")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peers", default="", metavar="PYTHON", help="an interpreter with torch; empty: ranjax alone")
    p.add_argument("--workloads", nargs="+", default=WORKLOADS, choices=WORKLOADS)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--out", type=Path, default=None)
    arguments = p.parse_args()
    found = {"python": platform.python_version(), "workloads": {}}
    for workload in arguments.workloads:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), workload)
            found["workloads"][workload] = run(Path(folder), workload, arguments)
    if arguments.out:
        files.write_json(arguments.out, found)
    return 0


def run(folder: Path, workload: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants of one workload, in turns."""
    # The second start finds the programs that the first one compiled; its own start is what a user pays from then on.
    ours = [sys.executable, "-m", "experiments.benchmarks.attacks_ranjax", str(folder), workload]
    cold = Contestant("ranjax, cold cache", ours)
    cold.close()
    contestants = [Contestant("ranjax", ours)]
    for name in PEERS[workload] if arguments.peers else ():
        one = Contestant(name, [arguments.peers, str(HERE / "attacks_torch.py"), str(folder), workload, name])
        if one.absent:
            print(f"{name}: left out, {one.absent}")
            one.close()
        else:
            contestants.append(one)
    for _ in range(arguments.repeats):
        for one in contestants:
            one.go()
    for one in contestants:
        one.close()
    rows = json.loads((folder / "inputs.json").read_text())["rows"]
    best = min((statistics.median(c.seconds) for c in contestants[1:]), default=None)
    print(f"\n{workload}: {rows} rows, {arguments.repeats} repeats in turns, medians")
    print(f"{'':14s} {'seconds':>8s} {'rows/s':>8s} {'loss':>10s} {'peak MB':>8s} {'start s':>8s}")
    table: dict[str, Any] = {"cold_start": cold.start}
    for one in contestants:
        middle = statistics.median(one.seconds)
        table[one.name] = {"seconds": one.seconds, "loss": one.loss, "peak_mb": one.peak, "start": one.start}
        line = f"{middle:8.3f} {rows / middle:8.2f} {one.loss:10.4f} {one.peak:8.0f} {one.start:8.1f}"
        print(f"{one.name:14s} {line}", flush=True)
    print(f"ranjax's start with a cold cache {cold.start:.1f} s")
    if best is not None:
        print(f"ranjax is {best / statistics.median(contestants[0].seconds):.2f} times the fastest peer")
    return table


def prepare(folder: Path, workload: str) -> None:
    """A CLIP with random weights and the inputs that every contestant reads."""
    from flax import nnx

    from ranjax import models

    small = workload != "pgd_b32"
    shape: dict[str, Any] = {
        "image_size": 64, "patch_size": 8, "vision_width": 192, "vision_layers": 12, "vision_heads": 3,
        "text_width": 192, "text_layers": 6, "text_heads": 3, "embed_dim": 128, "channels": 3,
    } if small else {
        "image_size": 224, "patch_size": 32, "vision_width": 768, "vision_layers": 12, "vision_heads": 12,
        "text_width": 512, "text_layers": 1, "text_heads": 8, "embed_dim": 512, "channels": 3,
    }  # fmt: skip
    config = models.DualEncoderConfig(vocab_size=400, eos_id=1, bos_id=2, pad_id=0, max_length=32, **shape)
    models.save(folder, *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    rows = 16 if small else 4
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 20, rows)
    tokens = np.zeros((rows, 32), np.int32)
    for row, length in zip(tokens, lengths):
        row[0], row[length + 1] = 2, 1
        row[1 : length + 1] = rng.integers(3, 400, length)
    np.savez(
        folder / "inputs.npz",
        images=rng.uniform(size=(rows, config.image_size, config.image_size, 3)).astype(np.float32),
        tokens=tokens,
        mask=np.arange(32)[None] < lengths[:, None] + 2,
    )
    settings = {"rows": rows, "epsilon": 8 / 255, "step": 2 / 255, "steps": 10, "words": 3, "top_k": 8}
    if workload == "sga":
        settings |= {"words": 1, "scales": [0.5, 0.75, 1.0, 1.25, 1.5], "noise": 0.05}
    files.write_json(folder / "inputs.json", settings)


if __name__ == "__main__":
    sys.exit(main())
