"""From a config to the programs that it would run on many devices, and from these to memory, traffic and time."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from experiments.scale import collectives, flops
from experiments.scale.chips import Chip
from experiments.scale.towers import shape_of
from ranjax.attacks.pairs import Target
from ranjax.attacks.text.candidates import Table
from ranjax.core.errors import ConfigError
from ranjax.data.recipe_table import RECIPES, Recipe
from ranjax.models import DualEncoder, split
from ranjax.run.stages import memory
from ranjax.run.stages.pair_program import pair_rows
from ranjax.run.stages.pretrain import make_program
from ranjax.training import devices
from ranjax.training.row_map import RowMap

Devices = int | Sequence[Any]
"""How many of the visible devices, or devices of a topology."""


@dataclass(frozen=True)
class Program:
    """What one compiled step costs on each of `devices` devices.

    Attributes:
      name: of the step, "pretrain" or "craft".
      devices: how many run it together.
      rows: rows of each device.
      parameters: number of parameters.
      state: bytes of what stays between steps (parameters and the optimizer's moments), a device's part.
      temporary: bytes that the compiler sets aside while the step runs, gradients and activations. XLA's CPU compiler
        says far more than a TPU's.
      flops: of the matrix products.
      collectives: of the compiled step.
      seconds: of compiling it.
    """

    name: str
    devices: int
    rows: int
    parameters: int
    state: int
    temporary: int
    flops: int
    collectives: tuple[collectives.Collective, ...]
    seconds: float = 0.0

    @property
    def moved(self) -> float:
        """Bytes that each device sends."""
        return collectives.moved(self.collectives, self.devices)

    def summary(self) -> dict[str, tuple[int, int]]:
        """{kind: (number, bytes of their results)}."""
        return collectives.totals(self.collectives)


def pretrain_program(config: Any, where: Devices, vocab_size: int) -> Program:
    """Compiles the pre-training step of `config` for some devices, without their memory being touched.

    The global batch is ``pretrain.batch_size``.

    Args:
      config: resolved.
      where: how many of the visible devices (forced CPU devices do), or devices of `topology.devices`.
      vocab_size: of the tokenizer.

    Raises:
      ConfigError: the batch cannot be split over the devices.
    """
    mesh = devices.make_mesh(where, config.model_axis)
    shape = shape_of(config, vocab_size)
    functions, params = abstract_encoder(shape)
    made = make_program(functions, params, config, mesh)
    state = made.abstract(params)
    rows = config.pretrain.batch_size
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = made.step.trace(state, batch_of(shape, config, rows), key)
    return measured("pretrain", traced, mesh, rows // mesh.size, params, state)


def batch_of(shape: Any, config: Any, rows: int) -> dict[str, Any]:
    """Shapes of a batch of pairs as the loader brings it."""
    side, length = shape.image_size, config.text.max_length
    return {
        "image": jax.ShapeDtypeStruct((rows, side, side, _channels(shape)), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((rows, length), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows, length), jnp.bool_),
    }


def craft_program(config: Any, where: Devices, vocab_size: int) -> Program:
    """Compiles one batch of the crafting attack (``noise.batch_size`` pairs a device) for some devices.

    Candidates are the whole vocabulary, each of one token; a masked language model that narrows them down is left out.
    The rounds of the word search are counted as ``noise.max_words``, their largest number.

    Raises:
      ConfigError: `noise.recipe` is a control, which attacks nothing.
    """
    noise = config.noise
    recipe = RECIPES.resolve(noise.recipe)
    if recipe.kind == "control":
        raise ConfigError("noise.recipe", noise.recipe, "an attack: controls cost no products")
    mesh = devices.make_mesh(where)
    shape = shape_of(config, vocab_size)
    functions, params = abstract_encoder(shape)
    mapped = RowMap(pair_rows(functions, config, recipe, unk_id=3), mesh, noise.batch_size)
    rows, length, side = mapped.step, config.text.max_length, shape.image_size
    split = NamedSharding(mesh, PartitionSpec(devices.batch_axes(mesh)))
    whole = NamedSharding(mesh, PartitionSpec())
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    batch = (
        jax.ShapeDtypeStruct((rows, side, side, _channels(shape)), jnp.uint8),
        jax.ShapeDtypeStruct((rows, 1, length), jnp.int32),
        jax.ShapeDtypeStruct((rows, 1, length), jnp.bool_),
        jax.ShapeDtypeStruct((rows, 1, length), jnp.int32),
        keys,
        (),
        _target(recipe, rows, shape),
    )
    shared = on((params, _vocabulary(vocab_size), ()), whole)
    traced = mapped.trace(shared, on(batch, split))
    return measured("craft", traced, mesh, noise.batch_size, params, shared, noise.max_words)


def _target(recipe: Recipe, rows: int, shape: Any) -> Target | tuple[()]:
    features = jax.ShapeDtypeStruct((rows, shape.embed_dim), jnp.float32)
    return Target(features, features) if recipe.needs_target else ()


def _channels(shape: Any) -> int:
    """Of the images that the loader brings."""
    return 1 if shape.grey_to_rgb else int(shape.channels)


def _vocabulary(words: int) -> Table:
    """Shapes of a table of `words` words of one token each."""

    def of(dtype: Any, *sides: int) -> Any:
        return jax.ShapeDtypeStruct(sides, dtype)

    return Table(
        pieces=of(jnp.int32, words, 1),
        lengths=of(jnp.int32, words),
        replaceable=of(jnp.bool_, words),
        insertable=of(jnp.bool_, words),
        lists=None,
        hashes=of(jnp.uint32, words),
        order=of(jnp.int32, words),
        multiplier=of(jnp.uint32),
        pad_id=of(jnp.int32),
    )  # type: ignore[arg-type]


def on(tree: Any, sharding: Any) -> Any:
    """Shapes of a tree, all with one sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def measured(name: str, traced: Any, mesh: Any, rows: int, params: Any, kept: Any, turns: int = 1) -> Program:
    """Compile a traced program and read what it costs.

    Raises:
      OutOfMemory: the compiler cannot place it in the devices' memory.
    """
    begun = time.monotonic()
    try:
        compiled = traced.lower(lowering_platforms=_platforms(mesh)).compile()
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_exhausted(error):
            raise
        raise OutOfMemory(name, str(error)) from error
    return Program(
        name=name,
        devices=mesh.size,
        rows=rows,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        state=sum(_bytes_of_a_part(leaf) for leaf in jax.tree.leaves(kept)),
        temporary=int(compiled.memory_analysis().temp_size_in_bytes),
        flops=flops.products(traced.jaxpr, turns),
        collectives=tuple(collectives.read(compiled.as_text())),
        seconds=time.monotonic() - begun,
    )


class OutOfMemory(Exception):
    """The compiler cannot place a program in the devices' memory; `needed` and `there` in bytes, 0: it did not say."""

    def __init__(self, name: str, said: str):
        self.name = name
        found = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])", said)
        units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
        self.needed, self.there = (
            (float(found[1]) * units[found[2]], float(found[3]) * units[found[4]]) if found else (0.0, 0.0)
        )
        super().__init__(f"{name}: {said.splitlines()[0][:200]}")


def _platforms(mesh: Any) -> tuple[str, ...]:
    return (mesh.devices.flat[0].platform,)


def _bytes_of_a_part(leaf: Any) -> int:
    if leaf.sharding is None:
        return leaf.dtype.itemsize * int(np.prod(leaf.shape))
    return leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape)))


def abstract_encoder(shape: Any) -> tuple[Any, Any]:
    """(functions, shapes of the parameters) of a `DualEncoderConfig`; no array is made."""
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
