"""A table of every program of the pipeline, as one compiler makes it, and advice where one does not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from experiments.scale import estimate, pipeline_programs
from experiments.scale.estimate import Devices, OutOfMemory, Program
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.run.stages import memory
from ranjax.training.devices import make_mesh

Compile = Callable[[], Program]


def every(config: Any, where: Devices, vocabulary: int) -> Iterator[tuple[str, Compile]]:
    """Yield (name, a function that compiles it) of pre-training, crafting by each kind of recipe, and the rest."""
    yield "pretrain", lambda: estimate.pretrain_program(config, where, vocabulary)
    if len(config.noise.ratios) > 1:
        for recipe in dict.fromkeys((config.noise.recipe, "image_only", "text_only", "coattack")):
            own = config.copy_and_resolve_references()
            own.noise.recipe = recipe
            yield f"craft {recipe}", lambda own=own: estimate.craft_program(own, where, vocabulary)
    mesh = make_mesh(where)
    for one in pipeline_programs.programs(config, mesh, vocabulary):
        yield one.name, lambda one=one: estimate.measured(one.name, one.traced, mesh, one.rows, one.params, one.kept)


def show(config: Any, where: Devices, vocabulary: int, title: str) -> int:
    """Print the table, a program at a time; return 0, or 3 where a program does not fit."""
    print(f"{title}, memory of each chip\n")
    print(f"| {'program':<22} | {'rows':>4} | {'state':>8} | {'temporary':>9} | collectives | {'compiled':>8} |")
    print("|---|---|---|---|---|---|", flush=True)
    code = 0
    for name, make in every(config, where, vocabulary):
        try:
            program = make()
        except OutOfMemory as error:
            print(f"| {name} | does not fit | | | | |", flush=True)
            print(f"error: {advice(error, configs.typed(config))}", file=sys.stderr, flush=True)
            code = 3
            continue
        except ConfigError as error:
            # A recipe that this config cannot run, e.g. captions without their file.
            print(f"| {name} | refused: {error.key} | | | | |", flush=True)
            continue
        sent = ", ".join(f"{count} {kind}" for kind, (count, _) in program.summary().items()) or "none"
        sizes = f"{size_of(program.state):>8} | {size_of(program.temporary):>9}"
        print(f"| {name:<22} | {program.rows:>4} | {sizes} | {sent} | {program.seconds:>6.1f} s |", flush=True)
    return code


def advice(error: OutOfMemory, config: Any) -> str:
    """Return what the compiler said of a program that does not fit, and the keys that make it smaller."""
    stage = error.name.split()[0]
    stage = stage if stage in memory.LOWER else "adapt" if stage in ("tuned", "head") else "evaluate"
    sizes = f", {size_of(error.needed)} of {size_of(error.there)}" if error.needed else ""
    lower = ", ".join(memory.hints(stage, config))
    return f"{error.name} does not fit the chip's memory{sizes}. What lowers it: {lower}."


def size_of(count: float) -> str:
    """Return bytes as text."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
