"""How long the heads of one condition take at the default job's sizes: each method on each kind of features.

    python experiments/benchmarks/head_fits.py            # 768 labelled and 768 validation images, five seeds
    python experiments/benchmarks/head_fits.py --tiny     # a check that it runs

Features are random clusters, 128 wide as an embedding or 2,176 as tokens; only time is measured. Trained heads take
every rate of the default search. Prints the median of --repeats fits after one that compiles, wall and processor time;
ends in a JSON object. Methods that attack images are not among them: their time is that of the encoder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import numpy as np

from ranjax.methods import METHODS, Examples, Fit, fit_method, varied
from ranjax.methods.method_settings import HeadTraining
from ranjax.methods.search import grid
from ranjax.run.config import default_config
from ranjax.training import cpu, devices

CLASSES, WIDTHS = 8, {"embedding": 128, "tokens": 2176}
TIMED = (("ridge", "embedding"), ("ridge", "tokens"), ("lp", "embedding"), ("lp", "tokens"), ("mlp", "embedding"))
TIMED = (*TIMED, ("nmtune", "embedding"))


def split(seed: int, count: int, width: int) -> Examples:
    rng = np.random.default_rng(seed)
    centres = 0.3 * np.random.default_rng(9).normal(size=(CLASSES, width))
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    labels[:CLASSES] = np.arange(CLASSES)
    return Examples((centres[labels] + 2 * rng.normal(size=(count, width))).astype(np.float32), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    cpu.keep_freed_memory()
    cpu.split_devices()
    adapt, count = default_config().adapt, 64 if options.tiny else 768
    shared, mesh = Fit(epochs=2 if options.tiny else adapt.epochs), devices.make_mesh()
    found = {}
    for name, kind in TIMED:
        width = 16 if options.tiny else WIDTHS[kind]
        given = split(0, count, width), split(1, count, width)
        settings = METHODS[name].settings
        points = grid(adapt.search_rates) if isinstance(settings, HeadTraining) else grid()
        times = []
        for _ in range(1 + options.repeats):
            wall, processor = time.perf_counter(), time.process_time()
            for point in points:
                one = varied(dataclasses.replace(settings), point)
                arguments = {"classes": CLASSES, "seeds": range(options.seeds), "shared": shared, "mesh": mesh}
                jax.block_until_ready(fit_method(METHODS[name], one, *given, **arguments).variables)
            times.append((time.perf_counter() - wall, time.process_time() - processor))
        wall, processor = np.median(times[1:], axis=0)
        found[f"{name}, {kind}"] = {"seconds": wall, "processor_seconds": processor, "first": times[0][0]}
        print(f"{name} on {kind}: {wall:.2f} s, processor {processor:.2f} s, first {times[0][0]:.1f} s", flush=True)
    total = sum(one["seconds"] for one in found.values())
    print(json.dumps({"options": vars(options), "fits": found, "all_seconds": total}, indent=1))


if __name__ == "__main__":
    main()
