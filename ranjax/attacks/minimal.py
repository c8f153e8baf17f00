"""The smallest perturbation that succeeds, over a list of radii in one call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ranjax.attacks import input_checks
from ranjax.attacks.ascent import ImageAttack, Loss, expand_like, fold_in
from ranjax.attacks.input_checks import Images, Length, Number
from ranjax.attacks.pgd import pgd
from ranjax.core.errors import ConfigError


class MinimalNorm(NamedTuple):
    """The result of `minimal_norm` for B images and E radii.

    Attributes:
      epsilon: f32[B], the smallest radius that succeeds: 0 where the clean image does, infinite where none does.
      images: f32[B, ...], the adversarial images at that radius; the clean ones where none succeeds.
      norm: f32[B], their realised distance.
      success: bool[E, B], True where this or a smaller radius succeeds; ``1 - success.mean(1)`` is the robust accuracy.
      loss: f32[E, B], the loss reached at each radius.
    """

    epsilon: jax.Array
    images: jax.Array
    norm: jax.Array
    success: jax.Array
    loss: jax.Array


def minimal_norm(
    loss_fn: Loss,
    images: Images,
    keys: ArrayLike,
    settings: PyTree,
    epsilons: Sequence[Length],
    *,
    attack: Callable[..., ImageAttack] = pgd,
    mask: ArrayLike | None = None,
) -> MinimalNorm:
    """Attack every image at every radius; compiled once for all radii.

    Args:
      loss_fn: ``images -> (loss f32[B], success bool[B])``, e.g. from `losses.of_classifier`.
      images: f32[B, H, W, C] in [0, 1].
      keys: key[B].
      settings: of `attack`, with a method ``with_epsilon`` (`pgd.PGD` keeps its step in proportion to the radius).
      epsilons: rising radii above 0, numbers or "8/255".
      attack: `pgd.pgd`, `apgd.apgd` or one like them.
      mask: as for `pgd.pgd`.

    Raises:
      ConfigError: radii that do not rise, or a loss function that does not state success.
    """
    radii = validate_radii(epsilons, settings.norm)
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])

    def at(numbered: tuple[Number, Float[Array, ""]]) -> ImageAttack:
        number, radius = numbered
        return attack(loss_fn, images, fold_in(keys, number), settings.with_epsilon(radius), mask=mask)

    numbers = jnp.arange(len(radii), dtype=jnp.uint32)
    result = jax.lax.map(at, (numbers, jnp.asarray(np.asarray(radii), images.dtype)))
    if result.success is None:
        raise ConfigError("loss_fn", "a loss alone", "a function that returns (loss, success)")
    success = jnp.cumsum(result.success.astype(jnp.int32), axis=0) > 0
    already, found = result.clean_success[0], success[-1]
    first = jnp.argmax(success, axis=0)
    radius = jnp.where(found, jnp.asarray(np.asarray(radii), images.dtype)[first], jnp.inf)
    rows = jnp.arange(images.shape[0])
    take = found & ~already
    return MinimalNorm(
        epsilon=jnp.where(already, 0, radius),
        images=jnp.where(expand_like(take, images), result.images[first, rows], images),
        norm=jnp.where(take, result.norm[first, rows], 0),
        success=success | already[None, :],
        loss=result.loss,
    )


def validate_radii(epsilons: Sequence[Length], norm: str) -> list[float]:
    """Return rising radii above 0 in pixel units.

    Raises:
      ConfigError: one radius alone, none, or radii that do not rise.
    """
    if isinstance(epsilons, (str, int, float)):
        raise ConfigError("epsilons", epsilons, "a list of radii, e.g. ('2/255', '4/255')")
    radii = [input_checks.validate_length(epsilon, "epsilons", norm, positive=True) for epsilon in epsilons]
    if not radii or any(b <= a for a, b in itertools.pairwise(radii)):
        raise ConfigError("epsilons", tuple(epsilons), "at least one radius, rising")
    return radii
