"""How long frozen-feature training takes: LP, MLP, NMTune and RAN on every ratio and seed, against torch.

    python experiments/benchmarks/adapt_speed.py                       # the full size: 100 heads, 10,000 x 512 features
    python experiments/benchmarks/adapt_speed.py --tiny                # a check that it runs

Features are random clusters; only time is measured. Ours: every method one compiled program over ratios and seeds;
compile time apart. The peer: a plain torch loop (a module, AdamW, cosine, shuffled index batches, no data loader) that
trains NMTune on the same features in this same process; where torch is absent, this is said and left out.
`--peer-epochs` shortens the peer's run and scales its time up, as every epoch costs the same. Ends in a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from typing import Any

import jax
import numpy as np

from ranjax.training.adapt import METHODS, Examples, Fit, fit_heads


def make_features(seed: int, count: int, width: int, classes: int, ratios: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    clean = np.stack([centres[labels] + 2 * rng.normal(size=(count, width)) for _ in range(ratios)]).astype(np.float32)
    attacked = clean + 0.3 * rng.normal(size=clean.shape).astype(np.float32)
    return Examples(clean, labels, attacked)


def time_ours(options: argparse.Namespace, train: Examples, validation: Examples) -> dict[str, Any]:
    settings = Fit(epochs=options.epochs, batch_size=options.batch, parallel=options.parallel)
    figures = {}
    for name in ("lp", "mlp", "nmtune", "ran"):

        def run(name: str = name) -> float:
            start = time.perf_counter()
            arguments = {"classes": options.classes, "seeds": range(options.seeds), "settings": settings}
            jax.block_until_ready(fit_heads([METHODS[name]], train, validation, **arguments).variables)
            return time.perf_counter() - start

        first, second = run(), run()
        heads = options.ratios * options.seeds
        figures[name] = {"heads": heads, "seconds": second, "seconds_a_head": second / heads, "compile": first - second}
        print(f"{name}: {second:.2f} s for {heads} heads, {second / heads:.3f} s a head", flush=True)
    return figures


def time_torch(options: argparse.Namespace, train: Examples) -> dict[str, Any] | None:
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

    epoch()
    start = time.perf_counter()
    for _ in range(options.peer_epochs):
        epoch()
    seconds = (time.perf_counter() - start) / options.peer_epochs * options.epochs
    print(f"torch NMTune on {device}: {seconds:.2f} s a head", flush=True)
    return {"device": device, "seconds_a_head": seconds, "version": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"examples": 10_000, "width": 512, "classes": 5, "ratios": 5, "seeds": 5, "epochs": 30, "batch": 64}
    tiny = {"examples": 256, "width": 32, "classes": 5, "ratios": 2, "seeds": 2, "epochs": 2, "batch": 64}
    for name in sizes:
        parser.add_argument(f"--{name}", type=int, default=None, help=f"default {sizes[name]}")
    parser.add_argument("--peer-epochs", type=int, default=1, help="epochs of the torch loop that are timed")
    parser.add_argument("--parallel", type=int, default=None, help="runs trained side by side")
    parser.add_argument("--tiny", action="store_true", help="small defaults")
    options = parser.parse_args()
    for name, default in (tiny if options.tiny else sizes).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    train = make_features(0, options.examples, options.width, options.classes, options.ratios)
    validation = make_features(1, max(options.examples // 10, 50), options.width, options.classes, options.ratios)
    ours = time_ours(options, train, validation)
    peer = time_torch(options, train)
    total, heads = sum(f["seconds"] for f in ours.values()), sum(f["heads"] for f in ours.values())
    result = {
        "options": vars(options),
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        "ours": ours,
        "all_heads_seconds": total,
        "compile_seconds": sum(f["compile"] for f in ours.values()),
        "torch": peer,
        "nmtune_times_faster": peer and peer["seconds_a_head"] / ours["nmtune"]["seconds_a_head"],
        "all_times_faster_than_as_many_torch_nmtune_heads": peer and heads * peer["seconds_a_head"] / total,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
