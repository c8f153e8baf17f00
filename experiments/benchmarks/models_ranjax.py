"""ranjax's contestants of `experiments.benchmarks.models`: FOLDER SHAPE [bf16] [scan] [plain] [devices=N]."""

# The environment and the allocator must be set before jax is imported.
# ruff: noqa: E402
from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

FOLDER, SHAPE, OPTIONS = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
_DEVICES = next((int(o.split("=")[1]) for o in OPTIONS if o.startswith("devices=")), 1)

from experiments.benchmarks import platforms

platforms.for_jax(_DEVICES)

from ranjax.training import cpu

if platforms.chosen() == "cpu":
    cpu.keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.contestant import serve
from experiments.benchmarks.peak import peak_mb
from ranjax import models
from ranjax.training import compile_cache, devices
from ranjax.training.contrastive_step import make_step
from ranjax.training.optimizer import AdamWSettings, TrainState, adamw


def build():
    """The workloads of this shape, each a function without arguments that returns a number."""
    compile_cache.enable(os.environ["RANJAX_BENCHMARK_CACHE"])
    dtype = "bfloat16" if "bf16" in OPTIONS else "float32"
    attention = "plain" if "plain" in OPTIONS else "auto"
    functions, params, _ = models.load(FOLDER, compute_dtype=dtype, scan="scan" in OPTIONS, attention=attention)
    given = np.load(FOLDER / "inputs.npz")
    images, weights = jnp.asarray(given["images"]), jnp.asarray(given["weights"])

    def loss(params, images):
        return jnp.sum(functions.image_features(params, images) * weights)

    calls = {}
    for name, fn in (
        ("forward", loss),
        ("image_gradient", jax.grad(loss, argnums=1)),
        ("parameter_gradient", jax.grad(lambda p, x: loss({**params, "vision": p}, x))),
    ):
        compiled = jax.jit(fn)
        first = params["vision"] if name == "parameter_gradient" else params
        calls[name] = functools.partial(timed, compiled, first, images)
    if "tokens" in given:
        calls["step"] = step(functions, params, given)
    if _DEVICES == 1:
        side = platforms.ceiling_side()
        square = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), jnp.dtype(dtype))
        calls["ceiling"] = functools.partial(timed, jax.jit(jnp.matmul), square, square)
    return calls


def step(functions, params, given):
    """The whole pre-training step as the pretrain stage runs it; its number is the loss before the update."""
    settings = AdamWSettings(learning_rate=1e-5, steps=10_000)
    mesh = devices.make_mesh()
    run = devices.data_parallel(make_step(functions, adamw(settings)), mesh)
    held = {"state": devices.replicate(TrainState.create(params, adamw(settings)), mesh)}
    batch = {"image": given["images"], "tokens": given["tokens"], "mask": given["mask"]}

    def call():
        placed = devices.shard_batch(batch, mesh)
        held["state"], metrics = run(held["state"], placed, jax.random.key(0))
        jax.block_until_ready((held["state"], metrics))
        return lambda: float(metrics["loss"])

    return call


def timed(compiled, *arguments):
    """Does the work; what it returns sums the result up when it is called."""
    found = jax.block_until_ready(compiled(*arguments))
    return lambda: summed(found)


def summed(found):
    """One number of a pytree: its sum, of absolute values for a gradient, taken by numpy."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]
    return float(leaves[0]) if leaves[0].ndim == 0 else float(sum(np.abs(leaf).sum() for leaf in leaves))


if __name__ == "__main__":
    serve(build(), functools.partial(platforms.jax_peak_mb, peak_mb))
