"""Pictures of cases: uint8 films, and where on them each lesion lies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.data.radiographs import film, lesions, projection
from ranjax.data.radiographs.findings import KINDS, Case
from ranjax.data.radiographs.parameters import pack
from ranjax.data.radiographs.volume import Grid, load_grid
from ranjax.keys import example_keys, stream

_LARGEST_COARSE = 96


def is_fine(size: int) -> bool:
    """Whether films of `size` pixels are projected from the fine grid."""
    return size > _LARGEST_COARSE


@lru_cache(maxsize=2)
def _device_fields(fine: bool) -> tuple[Grid, dict[str, jax.Array]]:
    grid = load_grid(fine)
    return grid, {name: jnp.asarray(field) for name, field in grid.fields.items()}


def _pixels(size: int) -> int:
    return size + size // 4


@partial(jax.jit, static_argnames=("slab_cm", "size"))
def _films(fields: dict, parameters: dict, keys: jax.Array, slab_cm: float, size: int) -> jax.Array:
    def one(case: tuple[dict, jax.Array]) -> jax.Array:
        p, key = case
        water = projection.project(fields, p, lesions.attenuation(fields, p), slab_cm, _pixels(size))
        x, z = projection.film_coordinates(p, size)
        grey = film.expose(p, projection.sample(water, x, z), x, z, key)
        return jnp.round(grey * 255.0).astype(jnp.uint8)

    return jax.lax.map(one, (parameters, keys))


@partial(jax.jit, static_argnames=("slab_cm", "size"))
def _shadows(fields: dict, parameters: dict, slab_cm: float, size: int) -> jax.Array:
    def one(p: dict) -> jax.Array:
        x, z = projection.film_coordinates(p, size)
        covers = lesions.covers(fields, p)
        pictures = [projection.project(fields, p, covers[kind], slab_cm, _pixels(size)) for kind in KINDS]
        return jnp.stack([projection.sample(picture, x, z) for picture in pictures])

    return jax.lax.map(one, parameters)


def render_cases(cases: Sequence[Case], size: int = 64, batch: int = 64) -> np.ndarray:
    """Films of `cases`, uint8[N, size, size]: bright bone, dark air, head up, patient's right on the image's left.

    The same bits whatever `batch` is and wherever a case stands: `batch` only says how many are computed in one call.
    Raises ValueError for a size outside 16..512 or a batch below 1.
    """
    if not 16 <= size <= 512:
        raise ValueError(f"size is {size}; allowed: 16 to 512 pixels")
    if batch < 1:
        raise ValueError(f"batch is {batch}; allowed: 1 and more")
    grid, fields = _device_fields(is_fine(size))
    out = np.zeros((len(cases), size, size), np.uint8)
    noise = stream(0, "radiographs/detector")
    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        padded = [*part, *[part[-1]] * (batch - len(part))]
        keys = example_keys(noise, [case.id for case in padded])
        films = _films(fields, pack(padded, grid), keys, grid.slab_cm, size)
        out[start : start + len(part)] = np.asarray(films)[: len(part)]
    return out


def lesion_masks(cases: Sequence[Case], size: int = 64) -> np.ndarray:
    """Thickness in cm of each kind of lesion along the beam, f32[N, len(KINDS), size, size], on the films' pixels."""
    grid, fields = _device_fields(is_fine(size))
    return np.asarray(_shadows(fields, pack(cases, grid), grid.slab_cm, size))


def lesion_volumes(case: Case) -> dict[str, np.ndarray]:
    """Cover f32[16, 64, 80] of each kind of lesion on the coarse grid (`volume.load_grid`), before projection."""
    grid, fields = _device_fields(False)
    parameters = {name: jnp.asarray(values[0]) for name, values in pack([case], grid).items()}
    return {kind: np.asarray(cover) for kind, cover in lesions.covers(fields, parameters).items()}
