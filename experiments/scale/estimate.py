"""From a config to the programs that it would run on many devices, and from these to memory, traffic and time."""

from __future__ import annotations

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
from ranjax.run.stages.pair_program import pair_rows
from ranjax.run.stages.pretrain import make_program
from ranjax.training import devices
from ranjax.training.row_map import RowMap


@dataclass(frozen=True)
class Program:
    """What one compiled step costs on each of `devices` devices.

    Attributes:
      name: of the step, "pretrain" or "craft".
      devices: how many run it together.
      rows: rows of each device.
      parameters: number of parameters.
      state: bytes of what stays between steps (parameters and the optimizer's moments), a device's part.
      temporary: bytes that XLA's CPU compiler sets aside while the step runs, gradients and activations; the compilers
        for accelerators fuse more, so theirs is rather less.
      flops: of the matrix products.
      collectives: of the compiled step.
    """

    name: str
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
        return collectives.totals(self.collectives)


def pretrain_program(config: Any, count: int, vocab_size: int) -> Program:
    """Compiles the pre-training step of `config` for `count` devices, without their memory being touched.

    The global batch is ``pretrain.batch_size``. `count` devices must be visible (forced CPU devices do).

    Raises:
      ConfigError: the batch cannot be split over the devices.
    """
    mesh = devices.make_mesh(count, config.model_axis)
    shape = shape_of(config, vocab_size)
    functions, params = abstract_encoder(shape)
    made = make_program(functions, params, config, mesh)
    state = made.abstract(params)
    rows, length, side = config.pretrain.batch_size, config.text.max_length, shape.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((rows, side, side, _channels(shape)), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((rows, length), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows, length), jnp.bool_),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = made.step.trace(state, batch, key)
    return _measured("pretrain", traced, mesh, rows // count, params, state)


def craft_program(config: Any, count: int, vocab_size: int) -> Program:
    """Compiles one batch of the crafting attack (``noise.batch_size`` pairs a device) for `count` devices.

    Candidates are the whole vocabulary, each of one token; a masked language model that narrows them down is left out.
    The rounds of the word search are counted as ``noise.max_words``, their largest number.

    Raises:
      ConfigError: `noise.recipe` is a control, which attacks nothing.
    """
    noise = config.noise
    recipe = RECIPES.resolve(noise.recipe)
    if recipe.kind == "control":
        raise ConfigError("noise.recipe", noise.recipe, "an attack: controls cost no products")
    mesh = devices.make_mesh(count)
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
    shared = _on((params, _vocabulary(vocab_size), ()), whole)
    traced = mapped.trace(shared, _on(batch, split))
    return _measured("craft", traced, mesh, noise.batch_size, params, shared, noise.max_words)


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


def _on(tree: Any, sharding: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _measured(name: str, traced: Any, mesh: Any, rows: int, params: Any, kept: Any, turns: int = 1) -> Program:
    compiled = traced.lower().compile()
    return Program(
        name=name,
        devices=mesh.size,
        rows=rows,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        state=sum(_bytes_of_a_part(leaf) for leaf in jax.tree.leaves(kept)),
        temporary=int(compiled.memory_analysis().temp_size_in_bytes),
        flops=flops.products(traced.jaxpr, turns),
        collectives=tuple(collectives.read(compiled.as_text())),
    )


def _bytes_of_a_part(leaf: Any) -> int:
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
