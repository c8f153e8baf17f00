"""From line integrals to grey levels: soft tissue and devices in the beam, detector, film curve, shutters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ranjax.data.radiographs.lesions import Parameters
from ranjax.data.radiographs.ray_projection import FILM_MM


def _smooth(picture: jax.Array, sigma_mm: jax.Array | float) -> jax.Array:
    """Return a square picture after a Gaussian along both axes, whose weights sum to 1 at the edges, too."""
    size = picture.shape[0]
    cells = jnp.arange(size, dtype=jnp.float32) * (FILM_MM / size)
    weights = jnp.exp(-0.5 * ((cells[:, None] - cells[None, :]) / jnp.maximum(sigma_mm, 0.3)) ** 2)
    matrix = weights / weights.sum(1, keepdims=True)
    return matrix @ picture @ matrix.T


def _line(
    x: jax.Array, z: jax.Array, points: tuple[tuple[int | float, int | float], ...], width_mm: float
) -> jax.Array:
    """Return the cover of a polyline of the given width, f32 like x."""
    corners = jnp.asarray(points, jnp.float32)
    (ax, az), (bx, bz) = (ends.T[:, :, None, None] for ends in (corners[:-1], corners[1:]))
    along = ((x[None] - ax) * (bx - ax) + (z[None] - az) * (bz - az)) / ((bx - ax) ** 2 + (bz - az) ** 2)
    along = jnp.clip(along, 0.0, 1.0)
    square = (x[None] - ax - along * (bx - ax)) ** 2 + (z[None] - az - along * (bz - az)) ** 2
    return jnp.clip(1.0 + (0.5 * width_mm - jnp.sqrt(square.min(0))) / 1.5, 0.0, 1.0)


def devices(p: Parameters, x: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """Return the cm of water that devices add at x, z (mm): pacemaker, central line, sternotomy wires, endotracheal
    tube."""
    return jax.lax.cond(p["devices"].max() > 0.0, _devices, lambda _p, x, _z: jnp.zeros_like(x), p, x, z)


def _devices(p: Parameters, x: jax.Array, z: jax.Array) -> jax.Array:
    box = jnp.clip(
        (16.0 - jnp.maximum(jnp.abs(x - 92.0) / 1.15, jnp.abs(z - 272.0)) - 0.15 * jnp.abs(x - 92.0)) / 2.0, 0.0, 1.0
    )
    lead = _line(x, z, ((80, 262), (55, 282), (22, 278), (-8, 245), (-14, 190), (-4, 150), (26, 138), (52, 132)), 2.2)
    catheter = _line(x, z, ((-62, 318), (-45, 288), (-24, 270), (-20, 235), (-17, 198)), 2.6)
    heights = jnp.asarray((250.0, 226.0, 202.0, 178.0, 154.0), jnp.float32)[:, None, None]
    ring = jnp.sqrt(((x[None] - 2.0) / 1.5) ** 2 + (z[None] - heights) ** 2)
    wires = jnp.clip(1.0 - (jnp.abs(ring - 5.0) - 1.0) / 1.5, 0.0, 1.0).max(0)
    tube = _line(x, z, ((-6, 338), (-8, 290), (-8, 252)), 5.5)
    present = p["devices"]
    return (
        present[0] * (9.0 * box + 3.5 * lead)
        + present[1] * 3.5 * catheter
        + present[2] * 3.0 * wires
        + present[3] * 2.5 * tube
    )


def breasts(p: Parameters, x: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """Return the cm of water that breasts add: a half-round on each side, its lower edge sharper than its upper one."""
    total = jnp.zeros_like(x)
    for centre in (-82.0, 86.0):
        below = jnp.where(z < 122.0, 30.0, 52.0)
        square = ((x - centre) / 62.0) ** 2 + ((z - 122.0) / below) ** 2
        total = total + jnp.sqrt(jnp.clip(1.0 - square, 0.0, 1.0))
    return p["breast"] * total


def expose(
    p: Parameters,
    water_cm: Float[Array, "size size"],
    x: Float[Array, "size size"],
    z: Float[Array, "size size"],
    key: PRNGKeyArray,
) -> Float[Array, "size size"]:
    """Return grey levels f32[size, size] in [0, 1] of line integrals in cm of water; bone bright, air dark."""
    size = water_cm.shape[0]
    inside = jnp.clip(water_cm / 4.0, 0.0, 1.0)
    water_cm = water_cm + inside * breasts(p, x, z) + devices(p, x, z)
    transmitted = jnp.exp(-0.19 * water_cm)
    scatter = 0.012
    transmitted = _smooth(transmitted, p["blur"])
    density = -jnp.log(transmitted + scatter)
    # Photon statistics: fewer quanta behind dense tissue; larger pixels collect more of them.
    spread = p["noise"] * (5.0 / (FILM_MM / size)) ** 0.5 * jnp.exp(0.095 * (jnp.clip(water_cm, 0.0, 22.0) - 10.0))
    # Multi-scale processing of digital radiography: detail is raised, the broad range compressed.
    density = density + 0.45 * (density - _smooth(density, 12.0)) - 0.25 * _smooth(density, 60.0)
    grey = 0.5 + p["contrast"] * (density - 1.5 - 0.15 * p["exposure"]) / 3.0
    grey = grey + spread * jax.random.normal(key, grey.shape, jnp.float32)
    # The shoulders of the film curve.
    grey = jnp.where(grey < 0.6, grey, 0.6 + 0.4 * jnp.tanh((grey - 0.6) * 2.5))
    return jnp.clip(grey, 0.0, 1.0) * shutters(p, size)


def shutters(p: Parameters, size: int) -> Float[Array, "{size} {size}"]:
    """Return f32[size, size], 1 inside the collimated field and 0.03 under the shutters."""
    pixel = FILM_MM / size
    place = (jnp.arange(size, dtype=jnp.float32) + 0.5) * pixel
    left, right, top, bottom = p["shutters"]

    def between(near: jax.Array, far: jax.Array) -> jax.Array:
        before, after = (place - near) / pixel, (FILM_MM - far - place) / pixel
        return jnp.clip(before + 0.5, 0.0, 1.0) * jnp.clip(after + 0.5, 0.0, 1.0)

    return 0.03 + 0.97 * between(top, bottom)[:, None] * between(left, right)[None, :]
