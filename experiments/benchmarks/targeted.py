"""Crafting towards a target beside today's attack on an image: pairs a second by recipe, in turns, medians.

    python -m experiments.benchmarks.targeted
    python -m experiments.benchmarks.targeted --batch 16 --rounds 5 --attacks pgd apgd_ce

The rows are those of the craft stage, on the encoder of the default job with random weights. `image_only` is PGD
against the pair's own caption, `targeted` PGD towards a target's image; both leave the caption. All recipes run once to
compile, then one call each in turns; a share is of the median seconds of `image_only` with the same image attack.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import numpy as np
from flax import nnx

from experiments.scale.towers import shape_of
from ranjax.attacks.pairs import Target
from ranjax.attacks.text import candidates
from ranjax.data.recipe_table import RECIPES
from ranjax.models import DualEncoder, split
from ranjax.run import config as configs
from ranjax.run.stages.pair_program import pair_rows
from ranjax.training.row_map import RowMap

COMPARED = ("image_only", "targeted")
VOCABULARY = 500


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--attacks", nargs="+", default=["pgd"])
    arguments = p.parse_args()
    config = configs.default_config()
    configs.override(config, "noise.batch_size", str(arguments.batch))
    shape = shape_of(config, VOCABULARY)
    functions, params = split(DualEncoder(shape, nnx.Rngs(0)))
    draw = np.random.default_rng(0)
    rows, length, side = arguments.batch, config.text.max_length, shape.image_size
    tokens = draw.integers(3, VOCABULARY, (rows, 1, length)).astype(np.int32)
    words = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    images = draw.integers(0, 256, (rows, side, side, 1)).astype(np.uint8)
    target = Target(*(draw.normal(size=(rows, shape.embed_dim)).astype(np.float32) for _ in range(2)))
    batch = (images, tokens, np.ones(tokens.shape, bool), words, jax.random.split(jax.random.key(0), rows), ())
    table = candidates.build([str(i) for i in range(3, VOCABULARY)], lambda word: [int(word)], pad_id=0).table

    def runner(attack: str, name: str) -> tuple[RowMap, tuple[object, ...]]:
        configs.override(config, "noise.image_attack", attack)
        typed, recipe = configs.typed(config), RECIPES[name]
        mapped = RowMap(pair_rows(functions, typed, recipe, unk_id=3), None, rows)
        return mapped, (*batch, target if recipe.needs_target else ())

    runs = {(attack, name): runner(attack, name) for attack in arguments.attacks for name in COMPARED}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for number in range(arguments.rounds + 1):
        for key, (mapped, given) in runs.items():
            begun = time.perf_counter()
            mapped((params, table, ()), given)
            if number:  # the first call compiles
                seconds[key].append(time.perf_counter() - begun)
    print(
        f"{jax.devices()[0].device_kind}, {rows} images of {side} pixels, medians of {arguments.rounds} calls in turns"
    )
    for (attack, name), taken in seconds.items():
        median = statistics.median(taken)
        share = median / statistics.median(seconds[attack, COMPARED[0]])
        print(f"{attack:10} {name:12} {rows / median:8.1f} pairs/s  {share:.3f} of {COMPARED[0]}'s seconds")


if __name__ == "__main__":
    main()
