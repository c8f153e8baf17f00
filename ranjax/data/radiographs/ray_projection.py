"""Parallel-beam line integrals of the rotated chest.

A beam tilted by yaw and pitch crosses slab y of the volume at (x + y tan yaw, z + y tan pitch): the integral along it
is the sum of the slabs, each shifted as a whole. That is exact, and shifts are products with small interpolation
matrices instead of a gather over the volume. Magnification, roll and the warp of the anatomy act on the picture that
results.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ranjax.data.radiographs.lesions import Fields, Parameters

FILM_MM = 300.0
_CENTRE_Z = 186.0
# What the intermediate picture shows: columns in x and rows in z, mm.
_SPAN_X, _SPAN_Z = (-168.0, 168.0), (8.0, 340.0)


def _cubic(distance: jax.Array) -> jax.Array:
    """Return Catmull-Rom interpolation weights for a distance in cells."""
    d = jnp.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return jnp.where(d < 1.0, near, jnp.where(d < 2.0, far, 0.0))


def _shift_matrix(centres: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the interpolation f32[..., targets, centres] from evenly spaced `centres` to `targets`, the ends held."""
    count = centres.shape[0]
    place = (targets - centres[0]) / (centres[1] - centres[0])
    place = jnp.clip(place, 0.0, count - 1.0)
    weights = _cubic(place[..., None] - jnp.arange(count, dtype=jnp.float32).reshape((1,) * place.ndim + (count,)))
    return weights / weights.sum(-1, keepdims=True)


def project(
    fields: Fields, p: Parameters, volume: Float[Array, "depth height width"], slab_cm: float, pixels: int
) -> Float[Array, "{pixels} {pixels}"]:
    """Project to line integrals in cm of water, f32[pixels, pixels]: rows from foot to head (_SPAN_Z), columns
    (_SPAN_X)."""
    depth = fields["y"]
    columns = jnp.linspace(*_SPAN_X, pixels, dtype=jnp.float32)
    rows = jnp.linspace(*_SPAN_Z, pixels, dtype=jnp.float32)
    across = _shift_matrix(fields["x"], columns[None, :] + p["yaw"] * depth[:, None])
    along = _shift_matrix(fields["z"], rows[:, None] + p["pitch"] * depth[None, :])
    slabs = jnp.einsum("dzx,dcx->dzc", volume, across)
    path = slab_cm * jnp.sqrt(1.0 + p["yaw"] ** 2 + p["pitch"] ** 2)
    return path * along.reshape(pixels, -1) @ slabs.reshape(-1, pixels)


def film_coordinates(p: Parameters, size: int) -> tuple[Float[Array, "{size} {size}"], Float[Array, "{size} {size}"]]:
    """Return x and z in mm of the scanned chest for each pixel of the film, f32[size, size], row 0 at the head."""
    pixel = FILM_MM / size
    right = (jnp.arange(size, dtype=jnp.float32) + 0.5) * pixel - 0.5 * FILM_MM
    u, v = right[None, :], -right[:, None]
    cosine, sine = jnp.cos(p["roll"]), jnp.sin(p["roll"])
    x = (u * cosine - v * sine) / p["zoom"] + p["shift"][0]
    z = (u * sine + v * cosine) / p["zoom"] + p["shift"][1]
    return warp(p, x / p["width"], z / p["height"] + _CENTRE_Z)


def warp(
    p: Parameters, x: Float[Array, "..."], z: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Map a place (mm) in this patient to the same place in the scanned one."""
    tau = 6.2832
    bends = p["bends"]
    low = jnp.clip((220.0 - z) / 120.0, 0.0, 1.0)
    low = low * low * (3.0 - 2.0 * low)
    lateral = jax.nn.sigmoid(x / 12.0)
    # The domes move, the costophrenic angles keep their place for the most part.
    aside = jnp.clip((jnp.abs(x) - 45.0) / 85.0, 0.0, 1.0)
    arch = 1.0 - 0.7 * aside * aside * (3.0 - 2.0 * aside)
    dome = arch * (p["domes"][0] * (1.0 - lateral) + p["domes"][1] * lateral)
    spine = p["scoliosis"] * jnp.sin(tau * (z - 90.0) / 300.0) * jnp.exp(-((x / 110.0) ** 2))
    centre = p["shift_mediastinum"] * jnp.exp(-((x / 62.0) ** 2)) * jnp.exp(-(((z - 175.0) / 110.0) ** 2))
    sway_x = 5.0 * (bends[1] - 0.5) * jnp.sin(tau * (z / 230.0 + bends[0])) + 4.0 * (bends[3] - 0.5) * jnp.sin(
        tau * (x / 190.0 + bends[2])
    )
    sway_z = 7.0 * (bends[5] - 0.5) * jnp.sin(tau * (x / 210.0 + bends[4]))
    return x - spine - centre + sway_x, z - dome * low + sway_z


def sample(
    picture: Float[Array, "pixels pixels"], x: Float[Array, "size size"], z: Float[Array, "size size"]
) -> Float[Array, "size size"]:
    """Return the bilinear values of a projected `picture` (see `project`) at x and z, its edges held."""
    pixels = picture.shape[0]
    column = jnp.clip((x - _SPAN_X[0]) * ((pixels - 1) / (_SPAN_X[1] - _SPAN_X[0])), 0.0, pixels - 1.001)
    row = jnp.clip((z - _SPAN_Z[0]) * ((pixels - 1) / (_SPAN_Z[1] - _SPAN_Z[0])), 0.0, pixels - 1.001)
    left, below = column.astype(jnp.int32), row.astype(jnp.int32)
    fx, fz = column - left.astype(jnp.float32), row - below.astype(jnp.float32)
    flat, index = picture.reshape(-1), below * pixels + left
    lower = flat[index] * (1.0 - fx) + flat[index + 1] * fx
    upper = flat[index + pixels] * (1.0 - fx) + flat[index + pixels + 1] * fx
    return lower * (1.0 - fz) + upper * fz
