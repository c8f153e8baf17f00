"""What 10^6, 10^8 and 10^9 pairs take, stage by stage, from the work of a pair and measured rates.

    python -m experiments.scale.growth
    python -m experiments.scale.growth --craft_flop 3e12 --epochs 10 --bytes 12000

The work of a pair is that of the compiled programs of docs/scale.md (ViT-B/16 and a 12-layer text tower; change it by
the options), times are the makers' peaks times --utilisation, and a queue of shards under preemptions is simulated. The
first bottleneck is the stage of the most days where every stage has what --hosts and --chips say.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.scale.chips import CHIPS

SIZES = (10**6, 10**8, 10**9)
SHARD = 256 << 20
CLUSTERS = (("v5e", 256), ("h100", 64))


class Plan(NamedTuple):
    """What a number of pairs takes, in bytes, requests, hours of chips and hours of the clock."""

    stored: float
    noisy: float
    requests: float
    prepare_hours: float
    craft_chip_hours: float
    craft_hours: float
    train_chip_hours: float
    train_hours: float
    read_rate: float


def plan(pairs: int, chip: str, chips: int, given: argparse.Namespace) -> Plan:
    """Return what `pairs` take on `chips` of a kind of `CHIPS`."""
    speed = CHIPS[chip].flops * given.utilisation
    noisy = pairs * given.ratio
    craft, train = noisy * given.craft_flop / speed / 3600, pairs * given.epochs * given.train_flop / speed / 3600
    return Plan(
        stored=pairs * (given.bytes + 1024),
        noisy=noisy * given.noisy_bytes,
        requests=pairs * given.epochs,
        prepare_hours=pairs / (given.images * given.hosts * given.cores) / 3600,
        craft_chip_hours=craft,
        craft_hours=craft / chips,
        train_chip_hours=train,
        train_hours=train / chips,
        read_rate=pairs * given.epochs / (train / chips * 3600),
    )


def completion(
    shards: int, workers: int, hours: float, rate: float, restart: float = 0.1, seed: int = 0
) -> tuple[float, float]:
    """Return the hours that a queue of shards takes, and the share of work that is done twice.

    Args:
      shards: of equal length, taken one by one; what a preempted worker had of its shard is lost.
      workers: that take them.
      hours: of one shard.
      rate: preemptions a worker and hour, of exponential gaps.
      restart: hours until a preempted worker is there again.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    free = [0.0] * min(workers, shards)
    heapq.heapify(free)
    left, last, lost = shards, 0.0, 0.0
    while left:
        begin = heapq.heappop(free)
        gap = rng.exponential(1 / rate) if rate else np.inf
        if gap < hours:
            lost += gap
            heapq.heappush(free, begin + gap + restart)
            continue
        left -= 1
        last = max(last, begin + hours)
        heapq.heappush(free, begin + hours)
    return last, lost / (shards * hours + lost)


def main(argv: Sequence[str] | None = None) -> int:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m experiments.scale.growth", description=summary, epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--train_flop", type=float, default=64.3e12 / 512, help="of a pair in pre-training, FLOP")
    p.add_argument("--craft_flop", type=float, default=98.4e12 / 64, help="of a noisy pair, FLOP")
    p.add_argument("--epochs", type=float, default=30.0, help="passes over the pairs")
    p.add_argument("--ratio", type=float, default=0.3, help="share of the pairs that become noisy")
    p.add_argument("--bytes", type=float, default=25_000, help="of a stored picture")
    p.add_argument("--noisy_bytes", type=float, default=130_000, help="of a stored noisy pair")
    p.add_argument("--images", type=float, default=100.0, help="images that a core prepares a second")
    p.add_argument("--cores", type=int, default=64, help="of a host")
    p.add_argument("--hosts", type=int, default=4, help="that prepare")
    p.add_argument("--utilisation", type=float, default=0.4, help="share of a chip's peak that products reach")
    given = p.parse_args(argv)
    for chip, chips in CLUSTERS:
        print(f"\n{chips} {chip}, {given.hosts} hosts of {given.cores} cores; {given.epochs:g} epochs, "
              f"{given.ratio:.0%} noisy")  # fmt: skip
        print(f"  {'pairs':>8}{'stored':>10}{'noisy':>10}{'reads':>9}{'prepare':>11}{'craft':>22}{'pre-train':>22}"
              f"{'reads/s':>10}{'dollars':>12}")  # fmt: skip
        for pairs in SIZES:
            of = plan(pairs, chip, chips, given)
            dollars = (of.craft_chip_hours + of.train_chip_hours) * CHIPS[chip].price
            print(
                f"  {pairs:>8.0e}{of.stored / 1e12:>7.2f} TB{of.noisy / 1e12:>7.2f} TB{of.requests:>9.0e}"
                f"{of.prepare_hours:>9.1f} h{of.craft_chip_hours:>12,.0f} ch{of.craft_hours:>5.1f} h"
                f"{of.train_chip_hours:>12,.0f} ch{of.train_hours:>5.0f} h{of.read_rate:>10,.0f}{dollars:>12,.0f}"
            )
    print("\nA queue of 10,000 shards of 0.5 h on 64 workers, by preemptions a worker and day:")
    for daily in (0, 1, 4, 12, 48):
        hours, twice = completion(10_000, 64, 0.5, daily / 24)
        print(f"  {daily:>3}: {hours:6.1f} h, {100 * twice:4.1f} % of the work is done twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
