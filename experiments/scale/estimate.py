"""From a config to the programs that it would run on many devices, and from these to memory, traffic and time."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.scale import collectives, flops
from experiments.scale.chips import Chip
from ranjax.models import DualEncoder, split
from ranjax.stages.pretrain import encoder_shape, optimizer_settings
from ranjax.training import devices
from ranjax.training.optimizer import adamw
from ranjax.training.pretrain import make_step
from ranjax.training.state import TrainState


@dataclass(frozen=True)
class Program:
    """What one compiled step costs on each of `devices` devices.

    Attributes:
      devices: how many run it together.
      rows: rows of each device.
      parameters: number of parameters.
      state: bytes of what stays between steps (parameters and the optimizer's moments).
      temporary: bytes that XLA's CPU compiler sets aside while the step runs, gradients and activations; the compilers
        for accelerators fuse more, so theirs is rather less.
      flops: of the matrix products.
      collectives: of the compiled step.
    """

    devices: int
    rows: int
    parameters: int
    state: int
    temporary: int
    flops: int
    collectives: tuple[collectives.Collective, ...]

    @property
    def moved(self) -> float:
        """Bytes that each device sends."""
        return collectives.moved(self.collectives, self.devices)

    def summary(self) -> dict[str, tuple[int, int]]:
        """{kind: (number, bytes of their results)}."""
        found: dict[str, list[int]] = collections.defaultdict(list)
        for c in self.collectives:
            found[c.kind].append(c.bytes)
        return {kind: (len(sizes), sum(sizes)) for kind, sizes in sorted(found.items())}


def pretrain_program(config: Any, count: int, vocab_size: int, compile_memory: bool = True) -> Program:
    """Compiles the pre-training step of `config` for `count` devices, without their memory being touched.

    The global batch is ``pretrain.batch_size``. `count` devices must be visible (forced CPU devices do).

    Raises:
      ConfigError: the batch cannot be split over the devices.
    """
    mesh = devices.make_mesh(count)
    devices.check_batch_size(config.pretrain.batch_size, mesh, "pretrain.batch_size")
    shape = encoder_shape(config, vocab_size, eos_id=1, bos_id=2, pad_id=0)
    functions, params = _abstract(shape)
    optimizer = adamw(optimizer_settings(config.pretrain))
    state = jax.eval_shape(lambda p: TrainState.create(p, optimizer), params)
    rows, length, side = config.pretrain.batch_size, config.text.max_length, shape.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((rows, side, side, shape.channels), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((rows, length), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows, length), jnp.bool_),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = devices.mapped_step(make_step(functions, optimizer), mesh)
    traced = step.trace(state, batch, key)
    compiled = traced.lower().compile()
    memory = compiled.memory_analysis()
    return Program(
        devices=count,
        rows=rows // count,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        state=sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state)),
        temporary=int(memory.temp_size_in_bytes),
        flops=flops.products(traced.jaxpr),
        collectives=tuple(collectives.read(compiled.as_text())),
    )


def _abstract(shape: Any) -> tuple[Any, Any]:
    functions: list[Any] = []

    def make() -> Any:
        made, params = split(DualEncoder(shape, nnx.Rngs(0)))
        functions.append(made)
        return params

    params = jax.eval_shape(make)
    return functions[0], params


@dataclass(frozen=True)
class Prediction:
    """Of one chip: seconds of a step's computing and sending, and the efficiency against one device without sending.

    `low` assumes that nothing is sent while products run, `high` that all of it is.
    """

    compute: float
    send: float

    @property
    def low(self) -> float:
        return self.compute / (self.compute + self.send)

    @property
    def high(self) -> float:
        return self.compute / max(self.compute, self.send)


def predict(program: Program, chip: Chip, utilisation: float) -> Prediction:
    """Time of a step at that share of the chip's peak."""
    return Prediction(program.flops / (chip.flops * utilisation), program.moved / chip.bandwidth(program.devices))
