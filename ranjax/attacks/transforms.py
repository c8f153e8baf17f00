"""Losses under random transformations of the image: each turns a loss into a `KeyedLoss`, which any attack takes.

    pgd.pgd(transforms.scaled(loss_fn), images, keys, settings)
    jitted(loss, settings, transform=transforms.diverse)

Draws are per example and fresh at each step. The inner loss may itself be a `KeyedLoss`: transformations nest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ranjax.attacks import input_checks
from ranjax.attacks.ascent import KeyedLoss, Loss, Scored, SummedLoss, Value, fold_in, score, summed
from ranjax.attacks.input_checks import Keys, Number, Pixels
from ranjax.core.errors import ConfigError

SGA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


def expectation(loss_fn: Loss, samples: int) -> SummedLoss:
    """Return the mean loss over `samples` draws of a random loss, and so the gradient of the expectation.

    For a defence that draws at random (Athalye et al. 2018), written as ``KeyedLoss(lambda images, keys: ...)``.
    Success, where the loss states it, is that of the majority of draws. A loss without draws comes out unchanged.
    """
    input_checks.validate_count(samples, "samples", 1)

    def draw(images: Pixels, keys: Keys, number: Number) -> Scored:
        loss, success = score(loss_fn, images, keys, number)
        return loss / samples, success

    return summed(draw, samples, lambda success: 2 * jnp.sum(success, axis=0) > samples)


def without_success(loss_fn: Loss) -> Loss:
    """Return the loss without its success: an attack then keeps the iterate of the highest loss.

    Of a random loss, success at one step is that of its draws: an attack that keeps the first success keeps luck.
    """
    if isinstance(loss_fn, SummedLoss):
        inner = loss_fn

        def part(images: Pixels, keys: Keys, number: Number) -> Scored:
            return inner.part(images, keys, number)[0], None

        return summed(part, inner.count, lambda success: jnp.zeros(success.shape[1:], bool))

    def loss(*given: Array) -> Value:
        found = loss_fn(*given)
        return found[0] if isinstance(found, tuple) else found

    return KeyedLoss(loss) if isinstance(loss_fn, KeyedLoss) else loss


def diverse(loss_fn: Loss, probability: float | int = 0.5, smallest: float | int = 0.9) -> KeyedLoss:
    """Return the loss under input diversity: with `probability`, the image is shrunk and padded by zeros.

    DI-FGSM (Xie et al. 2019, arXiv 1803.06978). The side is drawn from [smallest, 1] times the image's and the place
    at random; the size of the image stays. The paper draws whole pixels and enlarges (299 to 330), here the scale is
    continuous and the image never grows.

    Args:
      loss_fn: a loss of images f32[B, H, W, C].
    """
    if not 0 <= probability <= 1:
        raise ConfigError("probability", probability, "from 0 to 1")
    if not 0 < smallest <= 1:
        raise ConfigError("smallest", smallest, "above 0, at most 1")

    def shrink(image: Float[Array, "height width channels"], key: Key[Array, ""]) -> Array:
        coin = jax.random.uniform(jax.random.fold_in(key, 0), (), image.dtype)
        return jnp.where(coin < probability, shrunk(image, key, smallest), image)

    def varied(images: Pixels, keys: Keys) -> Value:
        _require_pixels(images)
        loss, success = score(loss_fn, jax.vmap(shrink)(images, fold_in(keys, 0)), keys, 1)
        return loss if success is None else (loss, success)

    return KeyedLoss(varied)


def shrunk(
    image: Float[Array, "height width channels"], key: Key[Array, ""], smallest: float | int
) -> Float[Array, "height width channels"]:
    """Return an image resized by a factor drawn from [smallest, 1] and put at a random place among zeros."""
    side, place = (jax.random.fold_in(key, i) for i in (1, 2))
    size = jnp.asarray(image.shape[:2], image.dtype)
    scale = jax.random.uniform(side, (), image.dtype, minval=smallest, maxval=1)
    shift = jax.random.uniform(place, (2,), image.dtype) * size * (1 - scale)
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.stack([scale, scale]), shift, method="linear", antialias=False
    )


def scaled(loss_fn: Loss, scales: Sequence[float] = SGA_SCALES, noise: float | int = 0.05) -> SummedLoss:
    """Return the sum of the loss over the image at several scales (SGA, Lu et al. 2023, arXiv 2307.14061).

    Each copy gets Gaussian noise, is resized by its scale, clipped to [0, 1] and resized back (bicubic). At scale 1 the
    image is taken as it is. Success, where the loss states it, is that of the unscaled image, or else of the first
    scale.

    Args:
      loss_fn: a loss of images f32[B, H, W, C].
      scales: factors above 0. noise: standard deviation in pixel units.
    """
    if not scales or any(not s > 0 for s in scales):
        raise ConfigError("scales", tuple(scales), "at least one factor, each above 0")
    if not noise >= 0:
        raise ConfigError("noise", noise, "0 or more")
    ordered = sorted(scales, key=lambda s: s != 1)  # the unscaled image first: its success counts

    def copy(images: Pixels, keys: Keys, place: int, factor: float) -> Pixels:
        if factor == 1:
            return images
        batch, height, width, channels = images.shape
        own = fold_in(keys, 2 * place)
        draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(own)
        shape = (batch, max(int(factor * height), 1), max(int(factor * width), 1), channels)
        other = jnp.clip(jax.image.resize(images + noise * draw, shape, "cubic", antialias=False), 0, 1)
        return jax.image.resize(other, images.shape, "cubic", antialias=False)

    copies = [functools.partial(copy, place=place, factor=factor) for place, factor in enumerate(ordered)]

    def one(images: Pixels, keys: Keys, number: Number) -> Scored:
        _require_pixels(images)
        own = jax.lax.switch(number.astype(jnp.int32), copies, images, keys)
        return score(loss_fn, own, keys, 2 * number + 1)

    return summed(one, len(ordered), lambda success: success[0])


def _require_pixels(images: Pixels) -> None:
    if images.ndim != 4:
        raise ConfigError("images.shape", images.shape, "[B, H, W, C], because this transformation resizes")
