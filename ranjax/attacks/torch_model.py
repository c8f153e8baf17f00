"""A torch classifier as a JAX function of images with gradients; torch computes both, on the host."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ranjax.attacks.input_checks import Images, Pixels


def torch_logits(module: Callable[..., PyTree]) -> Callable[[PyTree, jax.Array], jax.Array]:
    """Return ``(unused, images f32[B, H, W, C]) -> logits f32[B, K]`` of a torch module that takes [B, C, H, W].

    Parameters stay torch's, on torch's device; only images, logits and the gradient by the images cross over. The
    module runs as it is: put it into evaluation mode before.
    """
    import torch

    parameter = next(iter(module.parameters()), torch.zeros(()))  # type: ignore[attr-defined]
    device, dtype = parameter.device, parameter.dtype

    def to_torch(images: np.ndarray | jax.Array) -> torch.Tensor:
        return torch.from_numpy(np.array(np.moveaxis(np.asarray(images), -1, 1), order="C")).to(device, dtype)

    def forward(images: np.ndarray | jax.Array) -> np.ndarray:
        with torch.no_grad():
            return module(to_torch(images)).float().cpu().numpy()

    def backward(images: np.ndarray | jax.Array, cotangent: np.ndarray | jax.Array) -> np.ndarray:
        with torch.enable_grad():
            given = to_torch(images).requires_grad_()
            out = module(given)
            weights = torch.from_numpy(np.array(cotangent)).to(device, out.dtype)
            (gradient,) = torch.autograd.grad(out, given, weights)
        return np.moveaxis(gradient.float().cpu().numpy(), 1, -1)

    classes: dict[tuple[int, ...], int] = {}

    def shape_of(images: Images) -> jax.ShapeDtypeStruct:
        if images.shape[1:] not in classes:
            classes[images.shape[1:]] = forward(np.zeros((1, *images.shape[1:]), np.float32)).shape[1]
        return jax.ShapeDtypeStruct((images.shape[0], classes[images.shape[1:]]), jnp.float32)

    @jax.custom_vjp
    def logits(images: Pixels) -> jax.Array:
        return jax.pure_callback(forward, shape_of(images), images)

    def ahead(images: Pixels) -> tuple[jax.Array, jax.Array]:
        return logits(images), images

    def back(images: Pixels, cotangent: jax.Array) -> tuple[jax.Array]:
        found = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        return (jax.pure_callback(backward, found, images, cotangent),)

    logits.defvjp(ahead, back)
    return lambda unused, images: logits(images)
