"""AutoAttack against its authors' code (the package pyautoattack), in one process, in turns, on one thread each.

    python -m experiments.benchmarks.autoattack --repeats 3

Needs torch and pyautoattack beside ranjax. Prints medians of seconds, how many images stay right, and the load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np

RADIUS = 0.12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    import pyautoattack
    import torch

    from experiments.parity import digits
    from ranjax.evaluation import AutoAttack

    torch.set_num_threads(1)
    model, params = digits.torch_model(), None
    params = digits.jax_params(model)
    _, _, images, labels = digits.data(arguments.images)
    x, y = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels)
    names = {"apgd_ce": "apgd-ce", "apgd_t": "apgd-t", "fab_t": "fab-t", "square": "square"}

    def theirs(name: str) -> int:
        how = {"version": "standard"} if name == "standard" else {"version": "custom", "attacks": [names[name]]}
        attack = pyautoattack.AutoAttack(model, eps=RADIUS, norm="Linf", seed=0, device="cpu", **how)
        attack.apgd.n_restarts = attack.fab.n_restarts = 1
        with torch.no_grad():
            return int((model(attack.run_standard_evaluation(x, y)[0]).argmax(1) == y).sum())

    attacks = {
        name: AutoAttack(
            (digits.jax_logits, params), RADIUS, batch_size=256, attacks=() if name == "standard" else (name,)
        )
        for name in ("standard", *names)
    }

    def ours(name: str) -> int:
        return int(attacks[name].run(images, labels).robust.sum())

    print(f"load {os.getloadavg()}, {os.cpu_count()} cores, {len(images)} images, linf {RADIUS}")
    print(f"{'attack':10} {'theirs':>8} {'ours':>8} {'times':>6} {'compiling':>10} {'left':>5} {'left':>5}")
    for name in attacks:
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        began = time.perf_counter()
        ours(name)
        first = time.perf_counter() - began
        left = {}
        for _ in range(arguments.repeats):
            for side, run in (("theirs", theirs), ("ours", ours)):
                began = time.perf_counter()
                left[side] = run(name)
                seconds[side].append(time.perf_counter() - began)
        one, other = (statistics.median(seconds[side]) for side in ("theirs", "ours"))
        print(
            f"{name:10} {one:8.2f} {other:8.2f} {one / other:6.1f} {first - other:10.1f}",
            f"{left['theirs']:5} {left['ours']:5}",
            flush=True,
        )
    print(f"load {os.getloadavg()}")


if __name__ == "__main__":
    main()
