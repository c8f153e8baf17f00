"""The contrastive pre-training step of a dual encoder: as one device sees it, and as a program for a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Array, Float, Key, PyTree

from ranjax.core.errors import ConfigError
from ranjax.core.pixels import as_float
from ranjax.core.types import Encoder, Loss, Metrics, Params, Step
from ranjax.objectives import contrastive
from ranjax.training import fsdp
from ranjax.training.devices import (
    AXIS,
    AxisName,
    as_varying,
    batch_axes,
    check_batch_size,
    data_parallel,
    row_keys,
    varies,
)
from ranjax.training.optimizer import AdamWSettings, TrainState, adamw, clip_log_scale, only

Batch = dict[str, Array]
Augment = Callable[[Key[Array, "batch"], Float[Array, "batch height width channels"]], Array]
"""``(keys, images) -> images`` of the same shape."""


def held_out_loss(
    functions: Encoder,
    params: Params,
    image: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    objective: str,
) -> Float[Array, ""]:
    """Return the loss of held-out pairs, all of them each other's negatives, by a name of `contrastive.OBJECTIVES`.

    Row i of the image features is paired with row i of the text features.
    """
    loss = contrastive.OBJECTIVES[objective]
    return loss(image, text, functions.logit_scale(params), **_bias(loss, functions, params))[0]


def _bias(objective: Loss, functions: Encoder, params: Params) -> dict[str, Any]:
    """Return the encoder's bias of the logits, for the objective that takes one."""
    sigmoid = getattr(objective, "func", objective) is contrastive.sigmoid_loss
    return {"bias": functions.logit_bias(params)} if sigmoid else {}


def make_step(
    functions: Encoder,
    optimizer: optax.GradientTransformation,
    *,
    objective: Loss = contrastive.info_nce,
    accumulate: int = 1,
    augment: Augment | None = None,
    axis_name: AxisName | None = AXIS,
    trainable: PyTree[bool] | None = None,
    param_specs: PyTree = None,
) -> Step[TrainState]:
    """Build the per-device step ``(state, batch, key) -> (state, metrics)``, for `devices.data_parallel`.

    Args:
      functions: the encoder's pure functions. Parameters are f32; the compute dtype is the encoder's own.
      optimizer: from `optimizer.adamw`.
      objective: a contrastive loss; `contrastive.sigmoid_loss` gets the encoder's ``bias`` too.
      accumulate: parts in which the encoders work through this device's rows, one after the other. Memory holds one
        part's activations; the loss still sees every pair of the global batch as a negative (as in GradCache, Gao et
        al. 2021: features first, then one more forward pass with gradients for each part).
      augment: changes images; key i depends on the step and on the row's place in the global batch, not on the number
        of devices.
      axis_name: mesh axis (or axes, `devices.batch_axes`) of the data, or None for a step on one device without a mesh.
      trainable: a tree of bools from `models.trainable.select`; parameters that are False there get no gradient. The
        optimizer must leave them alone, see `optimizer.only`. None: all parameters are trained.
      param_specs: how parameters and moments are split over the mesh axis "model", from `fsdp.specs`; None: every
        device has all of them. The optimizer then needs `fsdp.global_norm` for its clipping.

    The batch is ``{"image": f32[B,H,W,C] in [0, 1] or u8, "tokens": i32[B,L], "mask": bool[B,L]}``.

    Metrics, all scalars and equal on all devices: ``loss`` (before the update), ``gradient_norm`` (before clipping),
    ``logit_scale`` (the factor of the cosines, before the update), the objective's accuracies, ``finite`` (bool), and
    ``bad_tensor`` (i32: place, in the order of `optimizer.tensor_paths`, of the first tensor with a non-finite
    gradient; -1 if there is none).

    Raises:
      ConfigError: on the first call, if `accumulate` does not divide this device's rows.
    """
    if accumulate < 1:
        raise ConfigError("accumulate", accumulate, "a number of at least 1")

    def step(state: TrainState, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        images = as_float(batch["image"])
        if augment is not None:
            images = augment(row_keys(key, images.shape[0], axis_name), images)

        # The axes over which `shard_map` checks replication; None outside of it, or without checks.
        checked_axes = axis_name if axis_name is not None and varies(images, axis_name) else None

        def loss_fn(params: Params) -> tuple[Float[Array, ""], dict[str, Array]]:
            if trainable is not None:
                params = jax.tree.map(lambda leaf, on: leaf if on else jax.lax.stop_gradient(leaf), params, trainable)
            scale = functions.logit_scale(params)
            if checked_axes is not None and accumulate > 1:
                # Else the sum over the devices would be taken, and every gradient sent, once for each part.
                params = as_varying(params, checked_axes)
            image = _in_parts(functions.image_features, params, (images,), accumulate)
            text = _in_parts(functions.text_features, params, (batch["tokens"], batch["mask"]), accumulate)
            loss, aux = objective(image, text, scale, axis_name=axis_name, **_bias(objective, functions, params))
            return loss, aux | {"logit_scale": scale}

        # Loss and gradients, averaged over all devices.
        differentiated = loss_fn if param_specs is None else fsdp.gathering(loss_fn, param_specs)
        (loss, aux), grads = jax.value_and_grad(differentiated, has_aux=True)(state.params)
        if axis_name is not None and checked_axes is None:
            if param_specs is not None:
                raise ValueError("param_specs need a shard_map that checks replication (check_vma=True)")
            # Without replication checks nothing has summed yet. With them, the gradient by replicated parameters is
            # already the sum over the devices; averaging it once more would send every gradient twice.
            grads = jax.lax.pmean(grads, axis_name)

        # Norms by tensor, which also name the first one that is not finite.
        whole = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)] if param_specs is None else None
        norms = jnp.stack(whole or fsdp.square_sums(grads, param_specs))
        bad = ~jnp.isfinite(norms)
        metrics = aux | {
            "loss": loss,
            "gradient_norm": jnp.sqrt(jnp.sum(norms)),
            "finite": jnp.isfinite(loss) & ~jnp.any(bad),
            "bad_tensor": jnp.where(jnp.any(bad), jnp.argmax(bad).astype(jnp.int32), -1),
        }

        # The update.
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = clip_log_scale(optax.apply_updates(state.params, updates))
        return state.updated(params, opt_state), metrics

    return step


@dataclass(frozen=True)
class Program:
    """A pre-training step for a mesh.

    Attributes:
      step: jitted ``(state, batch, key) -> (state, metrics)`` on global arrays; the state is donated.
      mesh: from `devices.make_mesh`.
      optimizer: its transformation.
      specs: how a `TrainState` is split over the mesh, as a `TrainState`; all whole without an axis "model".
      create: jitted ``params -> state`` before the first update; the parameters are donated.
    """

    step: Wrapped
    mesh: Mesh
    optimizer: optax.GradientTransformation
    specs: TrainState
    create: Wrapped

    def start(self, params: Params) -> TrainState:
        """Return the state before the first update; no device ever holds more of the moments than its part."""
        state: TrainState = self.create(fsdp.place(params, self.mesh, self.specs.params))
        return state

    def abstract(self, params: Params) -> TrainState:
        """Return shapes, dtypes and shardings of the state, for a checkpoint to be restored into."""
        like = jax.eval_shape(functools.partial(TrainState.create, optimizer=self.optimizer), params)
        placed = fsdp.shardings(self.mesh, self.specs)
        return jax.tree.map(lambda leaf, how: leaf.update(sharding=how), like, placed)


def program(
    functions: Encoder,
    params: Params,
    settings: AdamWSettings,
    mesh: Mesh,
    *,
    batch_size: int,
    accumulate: int = 1,
    chunk: int | None = None,
    objective: str = "info_nce",
    augment: Augment | None = None,
    trainable: PyTree[bool] | None = None,
) -> Program:
    """Build the whole pre-training step on a mesh, of the data axis alone or with an axis "model".

    Args:
      functions, accumulate, augment, trainable: see `make_step`.
      params: the parameters, or their shapes.
      settings: of AdamW.
      mesh: from `devices.make_mesh`.
      batch_size: pairs of the global batch.
      chunk: rows whose logits exist at one time on a device, see `contrastive.info_nce`.
      objective: a name of `contrastive.OBJECTIVES`.

    Raises:
      ConfigError: the batch cannot be split over the devices, or a device's rows into `accumulate` parts.
    """
    check_batch_size(batch_size, mesh, "pretrain.batch_size")
    rows = batch_size // mesh.size
    if accumulate < 1 or rows % accumulate:
        raise ConfigError("pretrain.accumulate", accumulate, f"a divisor of {rows}, the pairs of one device")
    split = fsdp.specs(params, mesh)
    sharded = any(leaf != fsdp.WHOLE for leaf in jax.tree.leaves(split))
    optimizer = adamw(settings, fsdp.global_norm(split)) if sharded else adamw(settings)
    if trainable is not None:
        optimizer = only(optimizer, trainable)
    step = make_step(
        functions,
        optimizer,
        objective=functools.partial(contrastive.OBJECTIVES[objective], chunk=chunk),
        accumulate=accumulate,
        augment=augment,
        axis_name=batch_axes(mesh),
        trainable=trainable,
        param_specs=split if sharded else None,
    )
    first = functools.partial(TrainState.create, optimizer=optimizer)
    specs = fsdp.specs(jax.eval_shape(first, params), mesh)
    create = jax.jit(first, out_shardings=fsdp.shardings(mesh, specs), donate_argnums=0)
    return Program(data_parallel(step, mesh, state_specs=specs), mesh, optimizer, specs, create)


def _in_parts(
    encode: Callable[..., Array], params: Params, arrays: tuple[Array, ...], parts: int
) -> Float[Array, "batch dim"]:
    """Return ``encode(params, *arrays)``, computed in `parts` sequential parts whose activations are recomputed for
    the gradient.
    """
    if parts == 1:
        return encode(params, *arrays)
    rows = arrays[0].shape[0]
    if rows % parts:
        raise ConfigError("accumulate", parts, f"a divisor of {rows}, the rows of one device")
    split = [x.reshape(parts, rows // parts, *x.shape[1:]) for x in arrays]
    features = jax.lax.map(lambda part: jax.checkpoint(encode)(params, *part), tuple(split))
    return features.reshape(rows, features.shape[-1])
