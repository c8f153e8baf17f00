"""Any classifier as ``logits_fn(params, images)`` and its parameters, so that its weights are arguments of a program.

    logits_fn, params = as_logits(model)

`model` is a function of images, a Flax module, a pair, or a torch module. Weights that a compiled program holds as
constants make it large, and slow to compile; so those that a function closes over are lifted out of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ranjax.attacks import input_checks, probabilities
from ranjax.attacks.ascent import ImageAttack, batch_axis
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Images, Keys, Pixels
from ranjax.attacks.tracing import in_jax
from ranjax.core.errors import DataError

LogitsFn = Callable[[PyTree, jax.Array], jax.Array]
"""``(params, images f32[B, ...]) -> logits f32[B, C]``."""
Model = Any
"""A function of images, an nnx module, ``(linen module, variables)``, ``(function, params)``, or a torch module."""


def as_logits(model: Model, images: Images) -> tuple[LogitsFn, PyTree]:
    """Return a model as ``(params, images) -> logits f32[B, C]``, and its parameters.

    Args:
      model: ``images -> logits``; an nnx module (its state is read here; put it into evaluation mode before); a pair
        ``(linen module, variables)`` or ``(function of (params, images), params)``; or a torch module that takes
        [B, C, H, W], called on the host, gradients included.
      images: f32[N, ...], of whose shape the first is tried.

    Raises:
      DataError: nothing of these, a model that leaves JAX or takes channels elsewhere, or outputs that are not [B, C].
    """
    one = jax.ShapeDtypeStruct((1, *jnp.shape(images)[1:]), jnp.result_type(images))
    logits_fn, params = in_jax(lambda: _read(model, images), one.shape, "model")
    found = in_jax(lambda: jax.eval_shape(logits_fn, params, one), one.shape, "model")
    if not hasattr(found, "shape") or found.ndim != 2 or found.shape[0] != 1:
        shape = getattr(found, "shape", type(found).__name__)
        raise DataError(f"the model gives {shape} for images {one.shape}, expected logits [1, classes]")
    return logits_fn, params


def _read(model: Model, images: Images) -> tuple[LogitsFn, PyTree]:
    if isinstance(model, tuple) and len(model) == 2:
        function, params = model
        if hasattr(function, "apply") and not isinstance(function, type):  # a linen module
            return lambda params, x: function.apply(params, x), params
        if callable(function):
            return function, params
    if "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module):
        from ranjax.attacks.torch_model import torch_logits

        return torch_logits(model), ()
    nnx = sys.modules.get("flax.nnx")  # a module of it cannot be here unless it was imported
    if nnx is not None and isinstance(model, nnx.Module):
        graph, state = nnx.split(model)
        return lambda state, x: nnx.merge(graph, state)(x), state
    if not callable(model):
        expected = "a function of images, a Flax or torch module, (linen module, variables) or (function, params)"
        raise DataError(f"the model is a {type(model).__name__}, expected {expected}")
    return lifted(model, images)


def lifted(function: Callable[[jax.Array], jax.Array], images: Images) -> tuple[LogitsFn, PyTree]:
    """Return ``(constants, images) -> logits`` of a function of images, and the arrays that it closes over.

    Of a function under `jax.jit` that function is taken; arrays within jitted parts of it stay constants.
    """
    from jax.extend import core

    inner = getattr(function, "__wrapped__", function)
    dtype = jnp.result_type(images)

    def traced(shape: tuple[int, ...]) -> core.ClosedJaxpr:
        return jax.make_jaxpr(inner)(jax.ShapeDtypeStruct(shape, dtype))

    def logits_fn(constants: PyTree, x: Pixels) -> jax.Array:
        return core.jaxpr_as_fun(core.ClosedJaxpr(traced(x.shape).jaxpr, constants))(x)[0]

    return logits_fn, tuple(map(jnp.asarray, traced((1, *jnp.shape(images)[1:])).consts))


class OnAnyModel:
    """Lets settings of an attack be called on a model: ``PGD("8/255")(model, images, labels)``."""

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """Run the attack of these settings; `loss` is that of `losses.named`, empty for the attack's own."""
        raise NotImplementedError

    def __call__(
        self, model: Model, images: Images, labels: PyTree, *, seed: int = 0, batch_size: int = 128, loss: str = ""
    ) -> ImageAttack:
        """Attack a classifier, compiled once per call.

        Args:
          model: as `as_logits` takes it.
          images: f32[N, H, W, C] in [0, 1].
          labels: i32[N], or multi-hot f32[N, C].
          seed: of the random starts, one an example.
          batch_size: images at a time.
          loss: of `losses.of_classifier`; empty: the attack's own.

        Returns:
          The result as NumPy arrays; `images` are the attacked ones. It warns of images without a finite loss.

        Raises:
          DataError, ConfigError: as the attack, and as `as_logits`.
        """
        images = np.asarray(input_checks.validate_images(images, 4))
        input_checks.validate_count(batch_size, "batch_size", 1)
        logits_fn, params = as_logits(model, images)
        one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        held = check_labels(labels, images, jax.eval_shape(logits_fn, params, one).shape[1])
        probabilities.refuse_outputs(logits_fn, params, images[:batch_size])

        @jax.jit
        def program(
            params: PyTree, images: jax.Array, labels: jax.Array, keys: jax.Array, settings: OnAnyModel
        ) -> ImageAttack:
            return settings.on_classifier(Classifier(lambda x: logits_fn(params, x), labels), images, keys, loss)

        keys = jax.random.split(jax.random.key(seed), len(images))
        step, parts = min(batch_size, len(images)), []
        for start in range(0, len(images), step):
            # The last batch is filled up by its last image, and cut again: one shape compiles once.
            rows = np.minimum(np.arange(start, start + step), len(images) - 1)
            result = program(params, jnp.asarray(images[rows]), jnp.asarray(held[rows]), keys[rows], self)
            parts.append(_cut(result, min(step, len(images) - start)))
        joined: Any = (
            None if values[0] is None else np.concatenate(values, axis=batch_axis(name))
            for name, values in zip(ImageAttack._fields, zip(*parts))
        )
        found = ImageAttack(*joined)
        if lost := int(np.sum(~found.finite)):
            said = f"{lost} of {len(images)} images gave a loss or a gradient that is not finite"
            warnings.warn(f"{said}: they come back clean, and success says nothing of them.", stacklevel=2)
        return found


def _cut(result: ImageAttack, count: int) -> list[np.ndarray | None]:
    return [
        None if value is None else np.take(np.asarray(value), np.arange(count), axis=batch_axis(name))
        for name, value in zip(ImageAttack._fields, result)
    ]


def check_labels(labels: PyTree, images: Images, classes: int) -> np.ndarray:
    """Return labels as i32[N] or multi-hot f32[N, C]; of one-hot ones it warns that each class counts for itself.

    Raises:
      DataError: another shape, or values that are no classes.
    """
    held = np.asarray(labels)
    count = len(np.asarray(images))
    if held.shape == (count, classes) and held.ndim == 2:
        if not np.isin(held, (0, 1)).all():
            raise DataError(f"labels hold {held[~np.isin(held, (0, 1))][0]:g}, expected 0 or 1 in multi-hot ones.")
        if classes > 1 and count > 1 and (held.sum(axis=1) == 1).all():
            read = "each class is a yes or no of its own (multi-label)"
            warnings.warn(f"labels are one-hot: {read}. One class of {classes}? labels.argmax(axis=1).", stacklevel=3)
        return held.astype(np.float32)
    if held.shape != (count,) or not (np.issubdtype(held.dtype, np.integer)):
        expected = f"integers ({count},), one class an image, or multi-hot ({count}, {classes})"
        raise DataError(f"labels are {held.dtype} of shape {held.shape}, expected {expected}.")
    input_checks.validate_labels(held, classes)
    return held.astype(np.int32)
