"""The contrastive pre-training step of a dual encoder, as one device sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from ranjax.errors import ConfigError
from ranjax.objectives import contrastive
from ranjax.training.devices import AXIS, row_keys, varies
from ranjax.training.optimizer import clip_log_scale
from ranjax.training.state import TrainState

Batch = dict[str, jax.Array]
Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class DualEncoderLike(Protocol):
    """The functions of a dual encoder that a step needs; see `ranjax.models.DualEncoderFunctions`."""

    def image_features(self, params: Any, images: jax.Array) -> jax.Array: ...

    def text_features(self, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array: ...

    def logit_scale(self, params: Any) -> jax.Array: ...


def make_step(
    functions: DualEncoderLike,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective = contrastive.info_nce,
    accumulate: int = 1,
    augment: Augment | None = None,
    axis_name: str | None = AXIS,
    trainable: Any = None,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the per-device step ``(state, batch, key) -> (state, metrics)``, for `devices.data_parallel`.

    Args:
      functions: the encoder's pure functions. Parameters are f32; the compute dtype is the encoder's own.
      optimizer: from `optimizer.adamw`.
      objective: ``(image, text, scale, axis_name=...) -> (loss averaged over the axis, aux)``.
      accumulate: parts in which the encoders work through this device's rows, one after the other. Memory holds one
        part's activations; the loss still sees every pair of the global batch as a negative (as in GradCache, Gao et
        al. 2021: features first, then one more forward pass with gradients for each part).
      augment: ``(keys key[B], images f32[B,H,W,C]) -> images``; key i depends on the step and on the row's place in the
        global batch, not on the number of devices.
      axis_name: mesh axis of the data, or None for a step on one device without a mesh.
      trainable: a tree of bools from `models.trainable.select`; no gradient is computed by what is False there. The
        optimizer must leave it alone, see `optimizer.only`. None: all parameters are trained.

    The batch is ``{"image": f32[B,H,W,C] in [0, 1] or u8, "tokens": i32[B,L], "mask": bool[B,L]}``.

    Metrics, all scalars and equal on all devices: ``loss`` (before the update), ``gradient_norm`` (before clipping),
    ``logit_scale`` (the factor of the cosines, before the update), the objective's accuracies, ``finite`` (bool), and
    ``bad_tensor`` (i32: place, in the order of `optimizer.tensor_paths`, of the first tensor with a non-finite
    gradient; -1 if there is none).

    Raises:
      ConfigError: on the first call, if `accumulate` does not divide this device's rows.
    """
    if accumulate < 1:
        raise ConfigError("accumulate", accumulate, "at least 1")

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        images = as_float(batch["image"])
        if augment is not None:
            images = augment(row_keys(key, images.shape[0], axis_name), images)

        def loss_fn(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            params = params if trainable is None else stop_gradients(params, trainable)
            image = _in_parts(functions.image_features, params, (images,), accumulate)
            text = _in_parts(functions.text_features, params, (batch["tokens"], batch["mask"]), accumulate)
            scale = functions.logit_scale(params)
            loss, aux = objective(image, text, scale, axis_name=axis_name)
            return loss, aux | {"logit_scale": scale}

        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        if axis_name is not None and not varies(images, axis_name):
            # Without replication checks nothing has summed yet. With them, the gradient by replicated parameters is
            # already the sum over the devices; averaging it once more would send every gradient twice.
            grads = jax.lax.pmean(grads, axis_name)
        norms = jnp.stack([jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)])
        bad = ~jnp.isfinite(norms)
        metrics = aux | {
            "loss": loss,
            "gradient_norm": jnp.sqrt(jnp.sum(norms)),
            "finite": jnp.isfinite(loss) & ~jnp.any(bad),
            "bad_tensor": jnp.where(jnp.any(bad), jnp.argmax(bad).astype(jnp.int32), -1),
        }
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = clip_log_scale(optax.apply_updates(state.params, updates))
        return state.updated(params, opt_state), metrics

    return step


def as_float(images: jax.Array) -> jax.Array:
    """Images in [0, 1]: 8-bit ones are divided by 255 (on the device: a quarter of the bytes to move)."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images


def stop_gradients(params: Any, trainable: Any) -> Any:
    """`params`, constant to differentiation where the tree of bools `trainable` says False."""
    return jax.tree.map(lambda leaf, on: leaf if on else jax.lax.stop_gradient(leaf), params, trainable)


def _in_parts(encode: Callable[..., jax.Array], params: Any, arrays: tuple[jax.Array, ...], parts: int) -> jax.Array:
    """``encode(params, *arrays)``, in `parts` sequential parts whose activations are recomputed for the gradient."""
    if parts == 1:
        return encode(params, *arrays)
    rows = arrays[0].shape[0]
    if rows % parts:
        raise ConfigError("accumulate", parts, f"a divisor of {rows}, the rows of one device")
    split = [x.reshape(parts, rows // parts, *x.shape[1:]) for x in arrays]
    features = jax.lax.map(lambda part: jax.checkpoint(encode)(params, *part), tuple(split))
    return features.reshape(rows, features.shape[-1])
