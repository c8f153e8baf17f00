"""Artefacts of single modalities, as pure functions on images f32[B, H, W, C] in [0, 1] with a key and a level each.

Kinds as MedMNIST-C has them (Di Salvo et al. 2024, arXiv 2406.17536), and for MR, which it lacks, as TorchIO has them
(Perez-Garcia et al. 2021). Formulas and levels are written here, and differ. `corruptions` clips the results.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

Images = Float[Array, "batch height width channels"]
Keys = Key[Array, "batch"]

# Optical density of haematoxylin, eosin and what is left, a row a stain (Ruifrok & Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS = (_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(np.float32)


def _normal(keys: Keys, shape: tuple[int, ...], dtype: jnp.dtype, number: int = 0) -> Array:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape, dtype))(keys)


def _either(keys: Keys, number: int = 7) -> Array:
    drawn = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, number)))(keys)
    return drawn[:, None, None, None]


def shot(images: Images, keys: Keys, level: float) -> Images:
    """Count photons: a Poisson draw of mean `level` at white, over `level`."""
    drawn = jax.vmap(lambda key, image: jax.random.poisson(key, level * image))(keys, images)
    return drawn.astype(images.dtype) / level


def speckle(images: Images, keys: Keys, level: float) -> Images:
    """Multiply every pixel by 1 + N(0, level^2)."""
    return images * (1 + level * _normal(keys, images.shape[1:], images.dtype))


def impulse(images: Images, keys: Keys, level: float) -> Images:
    """Set a share `level` of the pixels to black or white."""

    def draw(key: Key[Array, ""]) -> Array:
        return jax.random.uniform(key, (*images.shape[1:3], 1), images.dtype)

    at = jax.vmap(draw)(keys)
    return jnp.where(at < level / 2, 0.0, jnp.where(at < level, 1.0, images)).astype(images.dtype)


def pixelate(images: Images, keys: Keys, level: float) -> Images:
    """Keep a share `level` of the pixels of each side."""
    batch, height, width, channels = images.shape
    small = (batch, max(1, round(level * height)), max(1, round(level * width)), channels)
    return jax.image.resize(jax.image.resize(images, small, "linear"), images.shape, "nearest")


def brightness(images: Images, keys: Keys, level: float) -> Images:
    """Add or take away `level`, drawn per example."""
    return images + level * jnp.where(_either(keys), 1.0, -1.0).astype(images.dtype)


def motion(images: Images, keys: Keys, level: float) -> Images:
    """Average along rows or columns, drawn per example, over `level` of the longer side."""
    reach = max(1, round(level * max(images.shape[1:3]) / 2))

    def along(axis: int) -> Images:
        padded = jnp.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
        count = images.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, i, i + count, axis=axis) for i in range(2 * reach + 1)]
        return jnp.mean(jnp.stack(parts), axis=0)

    return jnp.where(_either(keys), along(1), along(2))


def rician(images: Images, keys: Keys, level: float) -> Images:
    """Take the magnitude of a complex signal with N(0, level^2) in both parts, as of an MR image."""
    real, imaginary = (level * _normal(keys, images.shape[1:], images.dtype, n) for n in (0, 1))
    return jnp.sqrt(jnp.square(images + real) + jnp.square(imaginary))


def bias_field(images: Images, keys: Keys, level: float) -> Images:
    """Multiply by exp(level * f), f a polynomial of degree 2 in both places, drawn, with a largest value of 1."""
    height, width = images.shape[1:3]
    y, x = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)[None, :]
    basis = jnp.stack([jnp.broadcast_to(b, (height, width)) for b in (x, y, x * y, x * x - 0.5, y * y - 0.5)])
    field = jnp.tensordot(_normal(keys, (5,), images.dtype), basis.astype(images.dtype), axes=1)
    field = field / jnp.max(jnp.abs(field), axis=(1, 2), keepdims=True)
    return images * jnp.exp(level * field)[..., None]


def ghosting(images: Images, keys: Keys, level: float) -> Images:
    """Mix in copies moved by a third and two thirds along rows or columns, drawn, as of a patient who moves in MR."""

    def along(axis: int) -> Images:
        step = images.shape[axis] // 3
        return (jnp.roll(images, step, axis) + jnp.roll(images, 2 * step, axis)) / 2

    return (1 - level) * images + level * jnp.where(_either(keys), along(1), along(2))


def rings(images: Images, keys: Keys, level: float) -> Images:
    """Add N(0, level^2) to each ring about the middle, as of a CT detector out of trim."""
    height, width = images.shape[1:3]
    y, x = np.ogrid[:height, :width]
    ring = np.rint(np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)).astype(np.int32)
    drawn = _normal(keys, (int(ring.max()) + 1,), images.dtype)
    return images + level * jnp.take(drawn, jnp.asarray(ring), axis=1)[..., None]


def stain(images: Images, keys: Keys, level: float) -> Images:
    """Scale what each stain absorbs by exp(+-level), drawn per example and stain; of grey images their density."""
    density = -jnp.log(jnp.maximum(images, 1 / 255))
    stains = jnp.asarray(_STAINS, images.dtype) if images.shape[3] == 3 else jnp.eye(images.shape[3])
    amount = density @ jnp.linalg.inv(stains)
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (images.shape[3],), images.dtype))(keys)
    return jnp.exp(-(amount * jnp.exp(level * signs)[:, None, None, :]) @ stains)
