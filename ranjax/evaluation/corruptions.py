"""Common corruptions at five severities, as pure functions on images f32[B, H, W, C] in [0, 1], by modality.

After Hendrycks & Dietterich 2019 (arXiv 1903.12261), with kinds and levels chosen here for grey radiographs; what other
modalities have besides stands in `artefacts`. Severity 0 gives images back. Results are clipped to [0, 1] and do not
depend on the batch.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.evaluation import artefacts
from ranjax.evaluation.modalities import MODALITIES

LEVELS: dict[str, tuple[float, ...]] = {
    "noise": (0.02, 0.04, 0.08, 0.12, 0.18),
    "blur": (0.008, 0.012, 0.018, 0.026, 0.036),
    "contrast": (0.75, 0.6, 0.45, 0.3, 0.2),
    "exposure": (1.25, 1.5, 1.9, 2.4, 3.0),
    "jpeg": (60.0, 40.0, 25.0, 15.0, 8.0),
    "shot": (100.0, 50.0, 25.0, 12.0, 6.0),
    "speckle": (0.1, 0.2, 0.3, 0.45, 0.6),
    "impulse": (0.01, 0.02, 0.04, 0.08, 0.15),
    "pixelate": (0.75, 0.6, 0.45, 0.3, 0.2),
    "brightness": (0.08, 0.14, 0.2, 0.28, 0.36),
    "motion": (0.06, 0.12, 0.18, 0.24, 0.32),
    "rician": (0.03, 0.06, 0.1, 0.15, 0.22),
    "bias_field": (0.2, 0.35, 0.5, 0.7, 0.9),
    "ghosting": (0.06, 0.12, 0.2, 0.28, 0.36),
    "rings": (0.02, 0.035, 0.055, 0.08, 0.12),
    "stain": (0.1, 0.2, 0.3, 0.45, 0.6),
}
"""The level of each kind at severities 1 to 5, as the function of that name takes it."""
NAMES = MODALITIES["general"]

Images = Float[Array, "batch height width channels"]
Keys = Key[Array, "batch"]

_QUANTISATION = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


def corrupt(name: str, severity: int, images: Array | np.ndarray, keys: Keys) -> Images:
    """Corrupt images f32[B, H, W, C] in [0, 1], by one key an example.

    Raises:
      ConfigError: an unknown name, or a severity outside 0..5.
      DataError: images that are not [B, H, W, C].
    """
    if name not in LEVELS:
        raise ConfigError("corruption", name, f"one of {', '.join(LEVELS)}", nearest(name, LEVELS))
    if severity not in range(6):
        raise ConfigError("severity", severity, "a number from 0 (none) to 5")
    if images.ndim != 4:
        raise DataError(f"images have shape {images.shape}, expected [B, H, W, C]")
    if severity == 0:
        return jnp.asarray(images)
    functions = {"noise": noise, "blur": blur, "contrast": contrast, "exposure": exposure, "jpeg": jpeg}
    function = functions.get(name) or getattr(artefacts, name)
    return jnp.clip(function(jnp.asarray(images), keys, LEVELS[name][severity - 1]), 0, 1)


def noise(images: Images, keys: Keys, level: float) -> Images:
    """Add N(0, level^2), in pixel units, to every pixel."""
    draw = functools.partial(jax.random.normal, shape=images.shape[1:], dtype=images.dtype)
    return images + level * jax.vmap(draw)(keys)


def blur(images: Images, keys: Keys, level: float) -> Images:
    """Blur by a Gaussian with sigma = level * longer side, edges extended."""
    sigma = level * max(images.shape[1:3])
    radius = max(1, int(np.ceil(3 * sigma)))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)

    def along(x: Images, axis: int) -> Images:
        count = x.shape[axis]
        x = jnp.pad(x, [(radius, radius) if a == axis else (0, 0) for a in range(4)], mode="edge")
        blurred = jnp.zeros_like(x, shape=(*x.shape[:axis], count, *x.shape[axis + 1 :]))
        for start, weight in enumerate(kernel):
            part = jax.lax.slice_in_dim(x, start, start + count, axis=axis)
            blurred = blurred + jnp.asarray(weight, x.dtype) * part
        return blurred

    return along(along(images, 1), 2)


def contrast(images: Images, keys: Keys, level: float) -> Images:
    """Scale the differences to the image's mean by `level`."""
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return mean + level * (images - mean)


def exposure(images: Images, keys: Keys, level: float) -> Images:
    """Raise pixels to the power `level` or 1 / level: under- or over-exposed, drawn per example."""
    over = jax.vmap(lambda key: jax.random.bernoulli(key))(keys)
    gamma = jnp.where(over, 1 / level, level).astype(images.dtype)
    return images ** gamma[:, None, None, None]


def jpeg(images: Images, keys: Keys, level: float) -> Images:
    """Quantise the cosine coefficients of 8 x 8 blocks of each channel at quality `level` (1 to 100).

    By the luminance table of ITU T.81, annex K; neither chroma nor an entropy code.
    """
    scale = 5000 / level if level < 50 else 200 - 2 * level
    table = np.clip(np.floor((_QUANTISATION * scale + 50) / 100), 1, 255).astype(np.float32)
    frequency, place = np.arange(8)[:, None], np.arange(8)[None]
    cosine = (np.sqrt(2 / 8) * np.cos((2 * place + 1) * frequency * np.pi / 16)).astype(np.float32)
    cosine[0] = np.sqrt(1 / 8)
    batch, height, width, channels = images.shape
    rows, columns = -height % 8, -width % 8
    x = jnp.pad(images * 255 - 128, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
    blocks = x.reshape(batch, (height + rows) // 8, 8, (width + columns) // 8, 8, channels)
    coefficients = jnp.einsum("ui,bhiwjc,vj->bhuwvc", cosine, blocks, cosine)
    steps = jnp.asarray(table)[None, None, :, None, :, None]
    blocks = jnp.einsum("ui,bhuwvc,vj->bhiwjc", cosine, jnp.round(coefficients / steps) * steps, cosine)
    x = jnp.round(blocks.reshape(x.shape)[:, :height, :width] + 128)
    return x / 255
