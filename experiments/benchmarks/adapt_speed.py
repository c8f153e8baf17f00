"""How long frozen-feature training takes: MLP, NMTune and RAN v1 on every ratio and seed, against torch.

    python experiments/benchmarks/adapt_speed.py          # 100 heads on 10,000 x 512 features; needs torch beside
    python experiments/benchmarks/adapt_speed.py --tiny   # a check that it runs

Features are random clusters; only time is measured. Ours: each method one compiled program over ratios and seeds;
compile time apart. The peer: a plain torch loop (a module, AdamW, cosine, shuffled index batches, no data loader) that
trains NMTune on the features of one ratio in this same process, in turns with ours; where torch is absent, this is said
and left out.

How time is scaled: every epoch costs the same, so each side is timed over a few epochs and stated for --epochs:
--timed-epochs of our wide heads, all epochs of the light ones, --peer-epochs of one torch head, which runs once before
and once after each of our methods, of which the median counts.
Runs are shared out over the devices: a device a core, unless --one-device.
Torch trains its heads one after another: its time for our work is its seconds a head times the number of heads, all
taken as NMTune. Ends in a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import fit_heads
from ranjax.methods.method_settings import Fit
from ranjax.methods.table import METHODS
from ranjax.training import cpu, devices

METHODS_TIMED = ("mlp", "nmtune", "ran_v1")


def make_features(seed: int, count: int, width: int, classes: int, ratios: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    clean = np.stack([centres[labels] + 2 * rng.normal(size=(count, width)) for _ in range(ratios)]).astype(np.float32)
    attacked = clean + 0.3 * rng.normal(size=clean.shape).astype(np.float32)
    return Examples(clean, labels, attacked)


def time_method(options: argparse.Namespace, name: str, train: Examples, validation: Examples) -> dict[str, Any]:
    """Seconds of all ratios and seeds of one method, for `options.epochs`."""
    timed = options.timed_epochs if METHODS[name].settings.head == "residual" else options.epochs
    settings = Fit(epochs=timed, batch_size=options.batch, parallel=options.parallel)

    mesh = None if options.one_device else devices.make_mesh()

    def run() -> float:
        start = time.perf_counter()
        arguments = {"classes": options.classes, "seeds": range(options.seeds), "settings": settings, "mesh": mesh}
        jax.block_until_ready(fit_heads([METHODS[name].settings], train, validation, **arguments).variables)
        return time.perf_counter() - start

    first, second = run(), run()
    heads = options.ratios * options.seeds
    seconds = second / timed * options.epochs
    print(f"{name}: {seconds:.2f} s for {heads} heads, {seconds / heads:.3f} s a head", flush=True)
    return {"heads": heads, "seconds": seconds, "seconds_a_head": seconds / heads, "compile": first - second}


def torch_loop(options: argparse.Namespace, train: Examples) -> Callable[[], float] | None:
    """A function that gives torch's seconds for one NMTune head, or None without torch."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: the comparison is left out", flush=True)
        return None
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = torch.tensor(train.features[0], device=device)
    labels = torch.tensor(train.labels, device=device)
    width = features.shape[1]

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = 4 * width
            self.body = nn.Sequential(
                nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
            )
            self.scale = nn.Parameter(torch.ones(width))
            self.classifier = nn.Linear(width, options.classes)

        def forward(self, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.scale * self.body(f) + f
            return z, self.classifier(z)

    head = Head().to(device)
    per_epoch = len(features) // options.batch
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: 0.5 * (1 + math.cos(math.pi * t / (per_epoch * options.epochs)))
    )

    def epoch() -> None:
        order = torch.randperm(len(features), device=device)
        for step in range(per_epoch):
            rows = order[step * options.batch : (step + 1) * options.batch]
            f = features[rows]
            z, logits = head(f)
            unit = nn.functional.normalize
            centred = z - z.mean(0)
            covariance = centred.T @ centred / (len(z) - 1)
            off = covariance - torch.diag(torch.diag(covariance))
            sigma = torch.linalg.svdvals(z)
            loss = nn.functional.cross_entropy(logits, labels[rows]) + nn.functional.mse_loss(unit(z), unit(f))
            loss = loss + 0.04 * off.square().sum() / width - 0.001 * sigma[0] / sigma.sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def seconds_a_head() -> float:
        start = time.perf_counter()
        for _ in range(options.peer_epochs):
            epoch()
        return (time.perf_counter() - start) / options.peer_epochs * options.epochs

    epoch()
    print(f"torch {torch.__version__} on {device}", flush=True)
    return seconds_a_head


def products(options: argparse.Namespace) -> dict[str, float]:
    """What the products alone of one NMTune head take at the rate of a 2048-square product: no float32 loop is faster.

    Five products a step: two layers forward, two gradients by weights, one by the hidden layer.
    """
    a = jax.numpy.ones((2048, 2048), jax.numpy.float32)
    square = jax.jit(lambda a: a @ a)
    square(a).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        square(a).block_until_ready()
        times.append(time.perf_counter() - start)
    rate = 2 * 2048**3 / float(np.median(times))
    steps = options.examples // options.batch * options.epochs
    return {"gflops": rate / 1e9, "seconds_a_head": 5 * 2 * options.batch * 4 * options.width**2 * steps / rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"examples": 10_000, "width": 512, "classes": 5, "ratios": 5, "seeds": 5, "epochs": 30, "batch": 64}
    tiny = {"examples": 256, "width": 32, "classes": 5, "ratios": 2, "seeds": 2, "epochs": 2, "batch": 64}
    for name in sizes:
        parser.add_argument(f"--{name}", type=int, default=None, help=f"default {sizes[name]}")
    parser.add_argument("--peer-epochs", type=int, default=1, help="epochs of the torch loop that are timed")
    parser.add_argument("--timed-epochs", type=int, default=1, help="epochs of our heads that are timed")
    parser.add_argument("--parallel", type=int, default=None, help="runs trained side by side")
    parser.add_argument("--methods", nargs="+", default=METHODS_TIMED, choices=METHODS_TIMED)
    parser.add_argument("--one-device", action="store_true", help="all cores to one device, not a device a core")
    parser.add_argument("--tiny", action="store_true", help="small defaults")
    options = parser.parse_args()
    for name, default in (tiny if options.tiny else sizes).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    cpu.split_devices(1 if options.one_device else 0)
    train = make_features(0, options.examples, options.width, options.classes, options.ratios)
    validation = make_features(1, max(options.examples // 10, 50), options.width, options.classes, options.ratios)
    peer, times, ours = torch_loop(options, train), [], {}
    for name in options.methods:
        times += [peer()] if peer else []
        ours[name] = time_method(options, name, train, validation)
        times += [peer()] if peer else []
    total, heads = sum(f["seconds"] for f in ours.values()), sum(f["heads"] for f in ours.values())
    torch_head = float(np.median(times)) if times else None
    result = {
        "options": vars(options),
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        "ours": ours,
        "all_heads_seconds": total,
        "compile_seconds": sum(f["compile"] for f in ours.values()),
        "torch_seconds_a_head": torch_head,
        "torch_seconds_a_head_range": times and [min(times), max(times)],
        "torch_nmtune_over_ours": {name: torch_head and torch_head / f["seconds_a_head"] for name, f in ours.items()},
        "products": products(options),
        "all_times_faster_than_as_many_torch_nmtune_heads": torch_head and heads * torch_head / total,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
