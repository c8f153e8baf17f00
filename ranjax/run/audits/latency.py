"""How long one image takes through encoder and head."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ranjax.core.pixels import to_float
from ranjax.run.context import Context
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder

CALLS = 5


def milliseconds(context: Context, methods: Sequence[str]) -> dict[str, float]:
    """Return the median time of one image by method, compilation left out; a figure of this machine as it was."""
    subject = EvaluatedEncoder(context, "clean", "clean")
    image = jnp.asarray(to_float(inputs.data(context).task_split("test").images[:1]))
    return {name: median(subject.deployed(name), subject.parameters(name), image) for name in methods}


def median(function: Callable[..., jax.Array], *given: Any) -> float:
    """Return the median milliseconds of a call, compiled and called once before."""
    run = jax.jit(function)
    run(*given).block_until_ready()
    taken = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        run(*given).block_until_ready()
        taken.append(time.perf_counter() - begun)
    return round(1000 * sorted(taken)[CALLS // 2], 3)
