"""How long one image takes through encoder and head."""

from __future__ import annotations

import time
from collections.abc import Sequence

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
    found = {}
    for name in methods:
        run = jax.jit(subject.deployed(name))
        params = subject.parameters(name)
        run(params, image).block_until_ready()
        taken = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            run(params, image).block_until_ready()
            taken.append(time.perf_counter() - begun)
        found[name] = round(1000 * sorted(taken)[CALLS // 2], 3)
    return found
