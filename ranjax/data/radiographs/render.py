"""Pictures of cases: uint8 films, and where on them each lesion lies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from ranjax.core.keys import example_keys, stream
from ranjax.data.radiographs import film, lesions
from ranjax.data.radiographs import ray_projection as projection
from ranjax.data.radiographs.findings import KINDS, Case
from ranjax.data.radiographs.render_parameters import pack
from ranjax.data.radiographs.volume import Grid, load_grid

_LARGEST_COARSE = 96
_CHUNK = 16


@lru_cache(maxsize=2)
def grid_fields(fine: bool) -> tuple[Grid, dict[str, jax.Array]]:
    """Return the coarse or the fine grid, and its fields on the default device."""
    grid = load_grid(fine)
    return grid, {name: jax.device_put(field) for name, field in grid.fields.items()}


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


def render_cases(cases: Sequence[Case], size: int = 64, batch: int = 64) -> UInt8[np.ndarray, "cases {size} {size}"]:
    """Render films of `cases`, uint8[N, size, size]: bright bone, dark air, head up, patient's right on the image's
    left.

    The same bits whatever `batch` is and wherever a case stands: one compiled program renders case after case, and
    `batch` only bounds how many are under way at once. Raises ValueError for a size outside 16..512, a batch below 1.
    """
    if not 16 <= size <= 512:
        raise ValueError(f"size is {size}; expected 16 to 512 pixels")
    if batch < 1:
        raise ValueError(f"batch is {batch}; expected 1 or more")
    grid, fields = grid_fields(size > _LARGEST_COARSE)
    noise = stream(0, "radiographs/detector")

    def dispatch(part: list[Case]) -> jax.Array:
        keys = example_keys(noise, [case.id for case in part])
        return _films(fields, pack(part, grid), keys, grid.slab_cm, size)

    return _in_chunks(dispatch, cases, (size, size), np.uint8, -(-batch // _CHUNK))


def lesion_masks(cases: Sequence[Case], size: int = 64) -> Float32[np.ndarray, "cases kinds {size} {size}"]:
    """Return the thickness in cm of each kind of lesion along the beam, f32[N, len(KINDS), size, size], on the films'
    pixels."""
    grid, fields = grid_fields(size > _LARGEST_COARSE)

    def dispatch(part: list[Case]) -> jax.Array:
        return _shadows(fields, pack(part, grid), grid.slab_cm, size)

    return _in_chunks(dispatch, cases, (len(KINDS), size, size), np.float32, 1)


def _in_chunks(
    dispatch: Callable[[list[Case]], jax.Array], cases: Sequence[Case], shape: tuple[int, ...], dtype: type, ahead: int
) -> np.ndarray:
    """Run `dispatch` on chunks of always the same length, with `ahead` of them under way.

    A chunk keeps one core busy; several under way keep the others so.
    """
    out: np.ndarray = np.zeros((len(cases), *shape), dtype)

    def collect(start: int, result: jax.Array) -> None:
        out[start : start + _CHUNK] = np.asarray(result)[: len(out) - start]

    running: deque[tuple[int, jax.Array]] = deque()
    for start in range(0, len(cases), _CHUNK):
        part = list(cases[start : start + _CHUNK])
        running.append((start, dispatch(part + part[-1:] * (_CHUNK - len(part)))))
        if len(running) > ahead:
            collect(*running.popleft())
    for start, result in running:
        collect(start, result)
    return out
