"""Attacks against their peers: the same weights, inputs and budgets, in one run, contestants in turns.

    python -m experiments.benchmarks.attacks --install peers/
    python -m experiments.benchmarks.attacks --install peers/ --workloads pgd_small sga --repeats 7 --out figures.json
    python -m experiments.benchmarks.attacks --peers PYTHON --workloads pgd_b32 text --platform gpu

--install makes (once) two environments in that folder, one with torch, transformers, torchattacks, foolbox and
adversarial-robustness-toolbox, one with TextAttack; without it, name interpreters by --peers and --textattack. What
cannot be imported there is left out, and said. Every contestant is a process of its own that stays up; one repetition
of each follows the other, and medians are compared. Workloads:

  pgd_small   PGD-10 on a CLIP image tower at 64 pixels (12 x 192), batch 16, cross-entropy over the batch's captions
  pgd_b32     the same on ViT-B/32 at 224 pixels, batch 4
              (on an accelerator, batches of 128 in all of them)
  text        3 words in 16 captions by gradient-guided substitution, 8 re-scored a round: 24 queries a caption
  text_b32    the same with a text tower of 12 x 512 beside ViT-B/32, batch 16 (256); for accelerators
  sga         SGA on 16 pairs of the small model: 10 image steps at 5 scales, 1 word before and after

"ranjax" splits the CPU into a device a core, "unsplit" leaves it one device of all cores, and "bfloat16" follows
gradients computed in bfloat16 and scores in float32. "matmul" is the ceiling: the product of two 4096 x 4096 float32
matrices (8192 x 8192 on an accelerator); the share of it is taken from the products that ranjax needs (its last block
is computed at the pooled token alone). Also: the loss that each contestant reached (higher is a better attack), peak
memory of its process or of the device, and seconds to its first result (imports and compilation; ranjax's with a cold
and with a filled compilation cache).
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

from experiments.benchmarks import platforms
from ranjax.core import files

HERE = Path(__file__).resolve().parent
WORKLOADS = ("pgd_small", "pgd_b32", "text", "sga", "text_b32")
PEERS = {
    "pgd_small": ("torch", "torchattacks", "foolbox", "art"),
    "pgd_b32": ("torch", "torchattacks", "foolbox", "art"),
    "text": ("torch", "textattack"),
    "text_b32": ("torch",),
    "sga": ("torch",),
}
# A CPU build of torch by the pin; torchattacks wants torchvision and an old requests, but runs without them.
INSTALL = {
    "peers": (
        ("torch==2.13.0", "transformers>=5,<6", "foolbox", "adversarial-robustness-toolbox"),
        ("--no-deps", "torchattacks"),
    ),
    "textattack": (("torch==2.13.0", "textattack==0.3.11", "flair>=0.15", "transformers>=4.48,<5", "sentencepiece"),),
}
FLOAT32, UNSPLIT, BFLOAT16 = "ranjax", "ranjax unsplit", "ranjax bfloat16"


class Contestant:
    """A process that repeats one workload when told to."""

    def __init__(self, name: str, line: list[str]):
        self.name, self.seconds, self.cpu, self.loss, self.peak, self.cold = name, [], [], None, None, None
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
        self.cpu.append(found["cpu"])
        self.loss, self.peak = found["loss"], found["peak_mb"]

    def close(self) -> None:
        self.process.communicate("end\n")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--install", type=Path, default=None, metavar="FOLDER", help="make the peers' environments here")
    p.add_argument("--peers", default="", metavar="PYTHON", help="an interpreter with torch and the image attacks")
    p.add_argument("--textattack", default="", metavar="PYTHON", help="an interpreter with TextAttack")
    p.add_argument("--workloads", nargs="+", default=WORKLOADS[:4], choices=WORKLOADS)
    p.add_argument("--repeats", type=int, default=5)
    platforms.add_option(p)
    p.add_argument("--devices", type=int, default=0, help="devices that the CPU is split into; 0: one a core")
    p.add_argument("--out", type=Path, default=None)
    arguments = p.parse_args()
    platforms.choose(arguments.platform)
    if arguments.install:
        arguments.peers, arguments.textattack = (install(arguments.install, name) for name in INSTALL)
    found = {"python": platform.python_version(), "workloads": {}}
    for workload in arguments.workloads:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), workload)
            found["workloads"][workload] = run(Path(folder), workload, arguments)
    if arguments.out:
        files.write_json(arguments.out, found)
    return 0


def install(folder: Path, name: str) -> str:
    """The interpreter of the environment `name` in the folder, made where it is absent."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        for packages in INSTALL[name]:
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


def contestants_of(folder: Path, workload: str, arguments: argparse.Namespace) -> list[Contestant]:
    """ranjax, the ceiling and the peers that are there, each with its first result behind it."""

    def ours(name: str, work: str = workload, dtype: str = "float32", parts: int = arguments.devices) -> Contestant:
        line = [sys.executable, "-m", "experiments.benchmarks.attacks_ranjax", str(folder), work, dtype, str(parts)]
        return Contestant(name, line)

    # The second start finds the programs that the first one compiled; its own start is what a user pays from then on.
    cold = ours("cold")
    cold.close()
    found = [ours(FLOAT32), ours("matmul", "matmul", parts=1), ours(UNSPLIT, parts=1)]
    found[0].cold = cold.start
    if not workload.startswith("text"):
        found.append(ours(BFLOAT16, dtype="bfloat16"))
    for name in PEERS[workload]:
        python = arguments.textattack if name == "textattack" else arguments.peers
        if not python:
            print(f"{name}: left out, no interpreter was named for it")
            continue
        one = Contestant(name, [python, str(HERE / "attacks_torch.py"), str(folder), workload, name])
        if one.absent:
            print(f"{name}: left out, {one.absent}")
            one.close()
        else:
            found.append(one)
    return found


def run(folder: Path, workload: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants of one workload, in turns."""
    contestants = contestants_of(folder, workload, arguments)
    for _ in range(arguments.repeats):
        for one in contestants:
            one.go()
    for one in contestants:
        one.close()
    settings = json.loads((folder / "inputs.json").read_text())
    rows, middle = settings["rows"], {one.name: statistics.median(one.seconds) for one in contestants}
    print(
        f"\n{workload}: {rows} rows, {arguments.repeats} repeats in turns, medians, Python {platform.python_version()}"
    )
    print(f"{'':16s} {'seconds':>8s} {'rows/s':>8s} {'cpu s':>8s} {'loss':>10s} {'peak MB':>8s} {'start s':>8s}")
    table: dict[str, Any] = {"cold_start": contestants[0].cold}
    for one in contestants:
        cpu = statistics.median(one.cpu)
        table[one.name] = {
            "seconds": one.seconds,
            "cpu": one.cpu,
            "loss": one.loss,
            "peak_mb": one.peak,
            "start": one.start,
        }
        if one.name != "matmul":
            seconds = middle[one.name]
            line = f"{seconds:8.3f} {rows / seconds:8.2f} {cpu:8.2f} {one.loss:10.4f} {one.peak:8.0f} {one.start:8.1f}"
            print(f"{one.name:16s} {line}", flush=True)
    print(f"ranjax's start with a cold cache: {contestants[0].cold:.1f} s")
    ceiling = 2 * side() ** 3 / middle.pop("matmul") / 1e9
    table["ceiling_gflops"] = ceiling
    for ours in (FLOAT32, UNSPLIT) if workload.startswith("pgd") else ():
        rate = rows * settings["gflop"] / middle[ours]
        table[ours]["gflops"] = rate
        print(
            f"matmul ceiling {ceiling:.0f} GFLOP/s; products of {ours} {rate:.0f} GFLOP/s, {rate / ceiling:.0%} of it"
        )
    for ours in (FLOAT32, UNSPLIT, BFLOAT16):
        for peer in middle:
            if ours in middle and not peer.startswith(FLOAT32):
                print(f"{ours} is {middle[peer] / middle[ours]:.2f} times {peer}")
    return table


def side() -> int:
    """Of the square matrices whose product is the ceiling."""
    return max(4096, platforms.ceiling_side())


def products(config: Any, gradients: int, forwards: int) -> float:
    """GFLOP of the matrix products that PGD needs for one image: gradients by the image alone, weights apart.

    A gradient is a forward pass and as many products again on the way back. The last block needs keys and values of all
    tokens, but queries, output and MLP of one.
    """
    image = config.image
    width, layers, tokens = image.width, image.layers, image.grid**2 + 1
    linear = 2 * (4 * width**2 + 2 * width * image.mlp_width)
    mixing = 4 * tokens * width
    last = tokens * 2 * 2 * width**2 + (linear - 4 * width**2) + mixing
    patches = image.grid**2 * 2 * image.patch_size**2 * image.channels * width
    forward = patches + (layers - 1) * tokens * (linear + mixing) + last + 2 * width * config.embed_dim
    return (2 * gradients + forwards) * forward / 1e9


def prepare(folder: Path, workload: str) -> None:
    """A CLIP with random weights and the inputs that every contestant reads."""
    from flax import nnx

    from ranjax import models

    small, layers = not workload.endswith("b32"), 12 if workload == "text_b32" else 1
    shape: dict[str, Any] = {
        "image_size": 64, "patch_size": 8, "vision_width": 192, "vision_layers": 12, "vision_heads": 3,
        "text_width": 192, "text_layers": 6, "text_heads": 3, "embed_dim": 128, "channels": 3,
    } if small else {
        "image_size": 224, "patch_size": 32, "vision_width": 768, "vision_layers": 12, "vision_heads": 12,
        "text_width": 512, "text_layers": layers, "text_heads": 8, "embed_dim": 512, "channels": 3,
    }  # fmt: skip
    config = models.clip(vocab_size=400, eos_id=1, bos_id=2, pad_id=0, max_length=32, **shape)
    models.save(folder, *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    rows = platforms.rows(4 if workload == "pgd_b32" else 16, 256 if workload == "text_b32" else 128)
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 20, rows)
    tokens = np.zeros((rows, lengths.max() + 2), np.int32)  # padded to the longest, for all contestants
    for row, length in zip(tokens, lengths):
        row[0], row[length + 1] = 2, 1
        row[1 : length + 1] = rng.integers(3, 400, length)
    np.savez(
        folder / "inputs.npz",
        images=rng.uniform(size=(rows, config.image_size, config.image_size, 3)).astype(np.float32),
        tokens=tokens,
        mask=np.arange(tokens.shape[1])[None] < lengths[:, None] + 2,
    )
    settings = {"rows": rows, "epsilon": 8 / 255, "step": 2 / 255, "steps": 10, "words": 3, "top_k": 8}
    if workload.startswith("pgd"):
        settings["gflop"] = products(config, gradients=10, forwards=1)
    if workload == "sga":
        settings |= {"words": 1, "scales": [0.5, 0.75, 1.0, 1.25, 1.5], "noise": 0.05}
    files.write_json(folder / "inputs.json", settings)


if __name__ == "__main__":
    sys.exit(main())
