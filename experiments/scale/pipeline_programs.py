"""The programs of a run besides pre-training and crafting, for a mesh: features, heads, tuned towers, attacks.

Retrieval, zero-shot answers, statistics and linear heads in closed form are NumPy on the host, from these features.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.scale.estimate import abstract_encoder, batch_of, on, shape_of
from ranjax.attacks.attack_table import ATTACKS
from ranjax.core.pixels import as_float
from ranjax.evaluation.white_box import WhiteBox
from ranjax.methods import tower_step
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import trace_fit
from ranjax.methods.method_settings import HeadTraining, TowerTraining
from ranjax.methods.table import METHODS, settings_of
from ranjax.methods.tower_methods import Images, Task, tower_fit
from ranjax.run.schema.evaluate_keys import IMAGE_ATTACKS
from ranjax.run.stages import inputs
from ranjax.training import devices
from ranjax.training.row_map import RowMap


class Traced(NamedTuple):
    """A traced program: its name, rows a device, and what stays on the device between calls (shapes)."""

    name: str
    rows: int
    traced: Any
    kept: Any
    params: Any
    turns: int = 1


def programs(config: Any, mesh: Mesh, vocab_size: int, classes: int = 8) -> Iterator[Traced]:
    """Yield the traced programs of the stages adapt and evaluate.

    Args:
      config: resolved.
      mesh: of the devices that they are traced for.
      vocab_size: of the tokenizer.
      classes: of the task.
    """
    shape = shape_of(config, vocab_size)
    functions, params = abstract_encoder(shape)
    whole, split = (NamedSharding(mesh, how) for how in (PartitionSpec(), PartitionSpec(devices.batch_axes(mesh))))
    rows = config.evaluate.batch_size * mesh.size
    batch = on(batch_of(shape, config, rows), split)
    encoder, tokens = on(params, whole), (batch["tokens"], batch["mask"])

    def mapped(fn: Any) -> RowMap:
        return RowMap(fn, mesh, config.evaluate.batch_size)

    def image_features(p: Any, x: Any) -> Any:
        return functions.features(p, as_float(x), "embedding")

    each = config.evaluate.batch_size
    yield Traced("image features", each, mapped(image_features).trace(encoder, batch["image"]), encoder, params)
    text = mapped(lambda p, rows: functions.text_features(p, *rows)).trace(encoder, tokens)
    yield Traced("text features", each, text, encoder, params)
    for name in METHODS.names_of([name for name in config.adapt.methods if name], "adapt.methods"):
        settings = settings_of(config.adapt, name)
        if isinstance(settings, HeadTraining) and settings.features == "embedding":
            traced, kept = _head(config, settings, classes, shape.embed_dim, mesh)
            yield Traced(f"head {name}", config.adapt.batch_size, traced, kept, kept)
        elif isinstance(settings, TowerTraining):
            yield _tuned(config, name, settings, mesh, functions, params, batch, classes)
    yield from _attacks(config, mesh, functions, params, batch, classes)


def _attacks(config: Any, mesh: Mesh, functions: Any, params: Any, batch: Any, classes: int) -> Iterator[Traced]:
    """Every attack of `evaluate.attacks` on a linear head, end to end."""
    whole, split = (NamedSharding(mesh, how) for how in (PartitionSpec(), PartitionSpec(devices.batch_axes(mesh))))
    width, each = functions.config.embed_dim, config.evaluate.batch_size

    def logits(given: Any, images: Any) -> Any:
        encoder, head = given
        return functions.image_features(encoder, images) @ head["kernel"] + head["bias"][None]

    of = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    own = on((params, {"kernel": of((width, classes)), "bias": of((classes,))}), whole)
    rows = each * mesh.size
    images = jax.ShapeDtypeStruct(batch["image"].shape, jnp.float32, sharding=split)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=split)
    keys = on(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)), split)
    for name in ATTACKS.names_of([name for name in config.evaluate.attacks if name], "evaluate.attacks"):
        attack = ATTACKS[name]
        settings = attack.at(
            IMAGE_ATTACKS.settings_of(config, attack), config.evaluate.epsilon, restarts=config.evaluate.restarts
        )
        made: list[RowMap] = []

        def map_rows(fn: Any, size: int, made: list[RowMap] = made) -> RowMap:
            made.append(RowMap(fn, mesh, size))
            return made[-1]

        WhiteBox(logits, settings, attack.run, attack.loss_for(classes, False), each, map_rows=map_rows)
        traced = made[0].trace((own, settings), (images, labels, keys, None))
        yield Traced(f"attack {name}", each, traced, own, params)


def _head(config: Any, settings: HeadTraining, classes: int, width: int, mesh: Mesh) -> tuple[Any, Any]:
    """The fit of a head on 256 labelled and as many validation images; on one device, as heads are small."""
    count, alone = 256, NamedSharding(devices.make_mesh(list(mesh.devices.flat)[:1]), PartitionSpec())
    features = jax.ShapeDtypeStruct((1, count, width), jnp.float32)
    given = Examples(features, jax.ShapeDtypeStruct((count,), jnp.int32), features)
    fit, seeds = inputs.fit_of(config.adapt), range(config.adapt.seeds)
    traced = trace_fit(
        settings, given, given, classes=classes, seeds=seeds, settings=fit, place=functools.partial(on, sharding=alone)
    )
    return traced, on(features, alone)


def _tuned(
    config: Any, name: str, method: TowerTraining, mesh: Mesh, functions: Any, params: Any, batch: Any, classes: int
) -> Traced:
    """One step of a method that reaches into the tower."""
    settings = tower_fit(config.adapt)
    rows = max(settings.batch_size // mesh.size, 1) * mesh.size
    whole, split = (NamedSharding(mesh, how) for how in (PartitionSpec(), PartitionSpec(devices.batch_axes(mesh))))
    made = tower_step.program(functions, method, settings, classes, rows * 4, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    width = functions.config.embed_dim
    of = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    task = Task(of((classes, width)), of(()))
    trained, opt_state = jax.eval_shape(made.start, params, key)
    state = on(tower_step.State(params, task, trained, opt_state), whole)
    images = jax.ShapeDtypeStruct((rows, *batch["image"].shape[1:]), jnp.uint8)
    given = on(Images(images, jax.ShapeDtypeStruct((rows,), jnp.int32), of((rows, width))), split)
    traced = made.step.trace(state, given, key)  # type: ignore[attr-defined]
    return Traced(f"tuned {name}", rows // mesh.size, traced, state, params)
