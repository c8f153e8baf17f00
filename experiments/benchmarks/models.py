"""Towers and the pre-training step against torch: the same weights and inputs, in one run, contestants in turns.

    python -m experiments.benchmarks.models --peers PYTHON
    python -m experiments.benchmarks.models --peers PYTHON --shapes small --repeats 7 --out figures.json
    python -m experiments.benchmarks.models --peers PYTHON --platform gpu --ours bf16 --torch sdpa_bf16
    python -m experiments.benchmarks.models --shapes small --ours "" scan "devices=2" --peers PYTHON --torch sdpa

PYTHON is that of an environment with torch and transformers, and open_clip for its line (what is absent there is left
out, and said). Every contestant is a process of its own that stays up; one repetition of each follows the other, and
medians are compared. Shapes and their workloads:

  small   a CLIP of 64 pixels, 12 x 192 and 6 x 192, batch 64 (on an accelerator 256): forward; gradient by the image;
          by the image tower's parameters; the whole pre-training step (both towers, InfoNCE, AdamW)
  b32     ViT-B/32's image tower at 224 pixels, batch 16 (128): forward and both gradients
  b16     ViT-B/16 at 224 pixels beside 12 x 512 over 77 tokens, batch 4 (256): as small; for accelerators

Every call ends when the device has done its work. Also, in the same turns, a product of two 2048 x 2048 matrices (8192
x 8192) as the ceiling, and the share of it that each line reaches (of the plain architecture's products); the
difference of every result to that of transformers; peak memory so far, of each process or of the device's own memory;
seconds of the first call; with --starts, those with a cold and with a filled compilation cache.

A fair baseline: torch freezes what needs no gradient, calls autograd.grad, and has its fused AdamW.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import platforms
from experiments.benchmarks.contestant import Contestant
from ranjax.core import files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHAPES = ("small", "b32", "b16")
TORCH = ("eager", "sdpa", "compiled", "open_clip")
IMAGE = ("forward", "image_gradient", "parameter_gradient")
# Products per forward pass: activations' gradients cost as much again, parameters' as much once more.
PASSES = {"forward": 1, "image_gradient": 2, "parameter_gradient": 3, "step": 3}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peers", default="", metavar="PYTHON", help="an interpreter with torch; empty: ranjax alone")
    p.add_argument("--shapes", nargs="+", default=SHAPES[:2], choices=SHAPES)
    p.add_argument(
        "--ours", nargs="+", default=("",), metavar="OPTIONS", help="'', bf16, scan, plain, devices=2, or several"
    )
    p.add_argument("--torch", nargs="+", default=TORCH, metavar="NAME", help=f"{', '.join(TORCH)}, sdpa_bf16")
    p.add_argument("--workloads", nargs="+", default=(), help="some of the workloads (default: all)")
    p.add_argument("--starts", action="store_true", help="also time starts, cold and cached, unrolled and scanned")
    p.add_argument("--repeats", type=int, default=5)
    platforms.add_option(p)
    p.add_argument("--out", type=Path, default=None)
    arguments = p.parse_args()
    platforms.choose(arguments.platform)
    found: dict[str, Any] = {"python": platform.python_version(), "platform": arguments.platform, "shapes": {}}
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            flops = prepare(Path(folder), shape)
            found["shapes"][shape] = run(Path(folder), shape, flops, arguments)
    if arguments.out:
        files.write_json(arguments.out, found)
    return 0


def run(folder: Path, shape: str, flops: dict[str, float], arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants of one shape, in turns."""
    workloads = [name for name in flops if not arguments.workloads or name in arguments.workloads]
    contestants = [start(folder, shape, options.split()) for options in arguments.ours]
    for name in arguments.torch if arguments.peers else ():
        one = Contestant(f"torch {name}", [arguments.peers, str(HERE / "models_torch.py"), str(folder), name])
        if one.absent:
            print(f"{name}: left out, {one.absent}")
            one.close()
        else:
            contestants.append(one)
    ceilings = [c for c in contestants if "devices" not in c.name]
    for workload in workloads:
        for number in range(arguments.repeats + 1):
            for one in contestants:
                one.go(workload)
            for one in ceilings if number else ():
                one.go("ceiling")
    for one in contestants:
        one.close()
    reference = next((c for c in contestants if c.name == "torch sdpa"), contestants[0])
    rows = rows_of(shape)
    table: dict[str, Any] = {}
    for workload in workloads:
        print(f"\n{shape} {workload}: {rows} rows, {arguments.repeats} repeats in turns, medians")
        print(
            f"{'':22s} {'seconds':>8s} {'rows/s':>8s} {'ceiling':>8s} {'first s':>8s} {'peak MB':>8s} {'differs':>9s}"
        )
        for one in contestants:
            table.setdefault(workload, {})[one.name] = line(one, workload, rows, flops[workload], reference)
        print(versus(contestants, workload), flush=True)
    for one in ceilings:
        table.setdefault("ceiling", {})[one.name] = ceiling_flops() / one.median("ceiling") / 1e9
    print("\nceiling, GFLOP/s: " + ", ".join(f"{name} {value:.0f}" for name, value in table["ceiling"].items()))
    table["starts"] = starts(folder, shape, arguments) if arguments.starts else {}
    return table


def start(folder: Path, shape: str, options: list[str], cache: str = "cache") -> Contestant:
    """A contestant of ranjax."""
    environment = {**os.environ, "RANJAX_BENCHMARK_CACHE": str(folder / cache), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "experiments.benchmarks.models_ranjax", str(folder), shape, *options]
    return Contestant(" ".join(["ranjax", *options]), line, environment)


def starts(folder: Path, shape: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds to compile and run once, with an empty and with a filled cache, unrolled and scanned."""
    last = "step" if shape == "small" else "parameter_gradient"
    found: dict[str, Any] = {}
    for options in ([], ["scan"]):
        for cache in ("cold", "filled"):
            # "filled" is the second start on the folder that "cold" filled.
            one = start(folder, shape, options, "starts" + "_".join(options))
            for workload in ("forward", last):
                one.go(workload)
            one.close()
            name = f"{' '.join(options) or 'unrolled'}, {cache} cache"
            found[name] = {"start": one.start, **one.first}
            shown = ", ".join(f"first {workload} {seconds:.1f} s" for workload, seconds in one.first.items())
            print(f"{name}: imports and weights {one.start:.1f} s, {shown}", flush=True)
    return found


def line(one: Contestant, workload: str, rows: int, flops: float, reference: Contestant) -> dict[str, Any]:
    """Prints one contestant's line and returns it."""
    seconds, told = one.median(workload), one.told[workload]
    share = None
    if "ceiling" in one.seconds:
        share = flops / seconds / (ceiling_flops() / one.median("ceiling"))
    expected = reference.told[workload]["value"]
    differs = abs(told["value"] - expected) / max(abs(expected), 1e-12)
    shown = f"{100 * share:7.0f}%" if share is not None else f"{'':>8s}"
    other = "own init" if "open_clip" in one.name else f"{differs:9.1e}"
    print(
        f"{one.name:22s} {seconds:8.3f} {rows / seconds:8.1f} {shown} {one.first[workload]:8.1f} "
        f"{told['peak_mb']:8.0f} {other:>9s}"
    )
    return {
        "seconds": one.seconds[workload],
        "first": one.first[workload],
        "share": share,
        "peak_mb": told["peak_mb"],
        "differs": differs,
    }


def versus(contestants: list[Contestant], workload: str) -> str:
    """How many times the fastest of torch each of ours is."""
    theirs = [c for c in contestants if c.name.startswith("torch") and "bf16" not in c.name]
    if not theirs:
        return ""
    best = min(theirs, key=lambda c: c.median(workload))
    times = [f"{c.name} {best.median(workload) / c.median(workload):.2f}" for c in contestants if c not in theirs]
    return f"times the fastest float32 torch ({best.name}): " + ", ".join(times)


def prepare(folder: Path, shape: str) -> dict[str, float]:
    """Writes a CLIP with random weights and everybody's inputs; returns floating-point operations by workload."""
    from flax import nnx

    from ranjax import models

    small = shape == "small"
    fields: dict[str, Any] = {
        "image_size": 64, "patch_size": 8, "vision_width": 192, "vision_layers": 12, "vision_heads": 3,
        "text_width": 192, "text_layers": 6, "text_heads": 3, "embed_dim": 128, "channels": 3,
    } if small else {
        "image_size": 224, "patch_size": 16, "vision_width": 768, "vision_layers": 12, "vision_heads": 12,
        "text_width": 512, "text_layers": 12, "text_heads": 8, "embed_dim": 512, "channels": 3, "max_length": 77,
    } if shape == "b16" else {
        "image_size": 224, "patch_size": 32, "vision_width": 768, "vision_layers": 12, "vision_heads": 12,
        "text_width": 64, "text_layers": 1, "text_heads": 1, "embed_dim": 512, "channels": 3,
    }  # fmt: skip
    config = models.clip(**{"vocab_size": 400, "eos_id": 1, "bos_id": 2, "pad_id": 0, "max_length": 32, **fields})
    models.save(folder, *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    rows = rows_of(shape)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(rows, config.image_size, config.image_size, 3)).astype(np.float32)
    arrays = {"images": images, "weights": rng.normal(size=(rows, config.embed_dim)).astype(np.float32)}
    arrays |= {"mean": np.float32(config.pixel_mean), "std": np.float32(config.pixel_std)}
    length = config.max_length
    if shape != "b32":
        lengths = rng.integers(10, length - 12, rows)
        tokens = np.zeros((rows, length), np.int32)
        for row, words in zip(tokens, lengths):
            row[0], row[words + 1] = 2, 1
            row[1 : words + 1] = rng.integers(3, 400, words)
        arrays |= {"tokens": tokens, "mask": np.arange(length)[None] < lengths[:, None] + 2}
    np.savez(folder / "inputs.npz", **arrays)
    vit, text = config.image, config.text
    patches = rows * 2 * vit.grid**2 * vit.patch_size**2 * 3 * vit.width
    image = patches + blocks(rows, vit.grid**2 + 1, vit.width, vit.layers)
    flops = {name: float(PASSES[name] * image) for name in IMAGE}
    if shape != "b32":
        flops["step"] = float(PASSES["step"] * (image + blocks(rows, length, text.width, text.layers)))
    return flops


def rows_of(shape: str) -> int:
    """Rows of a batch."""
    return platforms.rows(*{"small": (64, 256), "b32": (16, 128), "b16": (4, 256)}[shape])


def ceiling_flops() -> int:
    """Floating-point operations of the product that is the ceiling."""
    return 2 * platforms.ceiling_side() ** 3


def blocks(rows: int, time: int, width: int, layers: int) -> int:
    """Floating-point operations of a stack of blocks with an MLP of 4 x width, products alone."""
    return rows * layers * (2 * time * 12 * width**2 + 4 * time**2 * width)


if __name__ == "__main__":
    sys.exit(main())
