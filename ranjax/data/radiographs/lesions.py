"""Lesions as changes of the attenuation field, before anything is projected.

Attenuation is relative to water: 1 + HU / 1000. Each lesion is a cover in [0, 1] on the grid; where it covers a voxel,
the voxel's attenuation moves to the lesion's own. All functions are for one case (``jax.vmap`` for a batch); an absent
lesion has amplitude 0.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Fields = dict[str, jax.Array]
Parameters = dict[str, jax.Array]
Volume = Float[Array, "depth height width"]

_LUNG, _TISSUE, _FLUID, _AIR = 0.13, 1.04, 1.01, 0.0
# Flecked with calcium, so that a nodule of three voxels is seen.
_TUMOUR = 1.2


def _step(distance: jax.Array, softness_mm: float) -> jax.Array:
    """Return 0 for negative, 1 for positive distances, linear over `softness_mm`: an edge without an exponential."""
    return jnp.clip(0.5 + distance / softness_mm, 0.0, 1.0)


def _position(fields: Fields) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x, y, z in mm, each with two axes of one."""
    return fields["x"][None, None, :], fields["y"][:, None, None], fields["z"][None, :, None]


def lung_sides(fields: Fields) -> tuple[Volume, Volume]:
    """Return the share of the right and of the left lung in each voxel, f32[D, Z, X]."""
    lobes = fields["lobes"]
    return lobes[2] + lobes[3] + lobes[4], lobes[0] + lobes[1]


def heart_cover(fields: Fields, shift_mm: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the voxels that the heart gains (cover of lung by heart) and loses when its border moves out by
    `shift_mm`.

    The left and lower border moves by all of it, the right one by 45 %.
    """
    x, _, z = _position(fields)
    share = (0.45 + 0.55 * _step(x - 5.0, 50.0)) * _step(190.0 - z, 60.0)
    reach = shift_mm * share
    right, left = lung_sides(fields)
    inside = _step(reach - fields["heart"], 6.0)
    was_inside = _step(-fields["heart"], 6.0)
    gained = inside * (right + left)
    return gained, jnp.clip(was_inside - inside, 0.0, 1.0)


def consolidation_cover(fields: Fields, p: Parameters) -> Volume:
    """Cover with airspace opacity inside one lobe: a ball with a ragged edge, thinned by darker bronchi."""
    x, y, z = _position(fields)
    cx, cy, cz = p["consolidation_centre"]
    distance = jnp.sqrt((x - cx) ** 2 + (0.7 * (y - cy)) ** 2 + (z - cz) ** 2)
    lobe = jnp.tensordot(p["consolidation_lobe"], fields["lobes"], axes=1)
    ragged = jnp.tensordot(p["consolidation_noise"], fields["noise"], axes=1)
    ball = _step(p["consolidation_radius"] - distance + ragged, 16.0)
    bronchi = 1.0 - 0.6 * jnp.clip(1.0 - jnp.abs(fields["noise"][2] - 0.3) / 0.25, 0.0, 1.0)
    return p["consolidation"] * lobe * ball * bronchi


def mass_cover(fields: Fields, p: Parameters) -> Volume:
    """Cover with a ball of soft tissue, with spicules or a cavity where the parameters have them."""
    x, y, z = _position(fields)
    cx, cy, cz = p["mass_centre"]
    distance = jnp.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
    edge = p["mass_radius"] - distance + p["mass_spicules"] * fields["noise"][2]
    cavity = _step(p["mass_cavity"] - distance, 6.0)
    right, left = lung_sides(fields)
    return p["mass"] * _step(edge, 5.0) * (1.0 - cavity) * (right + left)


def oedema_cover(fields: Fields, p: Parameters) -> Volume:
    """Cover with perihilar haze in both lungs, with short horizontal lines at the lateral bases."""
    x, y, z = _position(fields)
    covers = []
    for side, lung in enumerate(lung_sides(fields)):
        hx, hz = p["hilum"][side]
        square = ((x - hx) / p["oedema_reach"]) ** 2 + ((z - hz + 12.0) / (1.25 * p["oedema_reach"])) ** 2
        wing = jnp.clip(1.0 - square, 0.0, 1.0) * (1.0 + 0.45 * fields["noise"][0])
        wall = fields["wall"][side][None]
        lines = (
            jnp.clip(jnp.sin(z * 0.55), 0.0, 1.0)
            * _step(28.0 - wall, 8.0)
            * _step(p["hilum"][side][1] - 25.0 - z, 12.0)
        )
        covers.append(lung * jnp.clip(p["oedema"] * wing + p["oedema_haze"] + p["kerley"] * lines, 0.0, 1.0))
    return covers[0] + covers[1]


def atelectasis_cover(fields: Fields, p: Parameters) -> Volume:
    """Cover with airless lung: the part of a lobe between three planes that run front to back."""
    x, _, z = _position(fields)
    lobe = jnp.tensordot(p["atelectasis_lobe"], fields["lobes"], axes=1)
    lateral = x * p["atelectasis_side"]
    cover = jnp.ones_like(z)
    for a, b, c in p["atelectasis_planes"]:
        cover = cover * _step(a * lateral + b * z + c, 6.0)
    return p["atelectasis"] * lobe * cover


def effusion_cover(fields: Fields, p: Parameters) -> Volume:
    """Cover with free fluid: up to a level that climbs along the chest wall (the meniscus), to the side and to the
    back."""
    _, y, z = _position(fields)
    behind = jnp.clip(-y / 110.0, 0.0, 1.0)
    covers = []
    for side, lung in enumerate(lung_sides(fields)):
        climb = jnp.exp(-fields["wall"][side] / 24.0)[None]
        level = p["effusion_level"][side] + p["effusion_rise"][side] * (climb + 0.35 * behind)
        covers.append(lung * _step(level - z, 7.0))
    return covers[0] + covers[1]


def pneumothorax_cover(fields: Fields, p: Parameters) -> tuple[Volume, Volume, Volume]:
    """Cover with free air outside the retracted lung, the visceral pleura as a thin line, and the lung left."""
    _, _, z = _position(fields)
    air = line = collapsed = jnp.zeros_like(fields["soft"])
    for side, lung in enumerate(lung_sides(fields)):
        wall = fields["wall"][side][None]
        # The rim is deepest at the apex: air rises.
        height = jnp.clip((z - p["base"][side]) / (p["apex"][side] - p["base"][side]), 0.0, 1.0)
        depth = p["pneumothorax_depth"][side] * (
            p["pneumothorax_taper"][side] + (1.0 - p["pneumothorax_taper"][side]) * height
        )
        present = _step(p["pneumothorax_depth"][side] - 1.0, 1.0)
        air = air + present * lung * _step(depth - wall, 4.0)
        line = line + present * lung * jnp.clip(1.0 - jnp.abs(wall - depth - 2.0) / 3.5, 0.0, 1.0)
        collapsed = collapsed + present * lung * p["pneumothorax_collapse"][side] * _step(wall - depth, 4.0)
    return air, line, collapsed


def covers(fields: Fields, p: Parameters) -> dict[str, Volume]:
    """Return the cover of every kind of lesion, f32[D, Z, X] in [0, 1]; cardiomegaly: what the heart gains over the
    body's own.
    """
    own, _ = heart_cover(fields, p["heart"])
    enlarged, _ = heart_cover(fields, p["heart"] + p["cardiomegaly"])
    return {
        "consolidation": consolidation_cover(fields, p),
        "mass": mass_cover(fields, p),
        "effusion": effusion_cover(fields, p),
        "cardiomegaly": jnp.clip(enlarged - own, 0.0, 1.0),
        "pneumothorax": pneumothorax_cover(fields, p)[0],
        "oedema": oedema_cover(fields, p),
        "atelectasis": atelectasis_cover(fields, p),
    }


def attenuation(fields: Fields, p: Parameters) -> Volume:
    """Return the attenuation relative to water, f32[D, Z, X], of the body with its lesions."""

    def blend(under: jax.Array, cover: jax.Array, own: float) -> jax.Array:
        return under + cover * (own - under)

    right, left = lung_sides(fields)
    lung = right + left
    gained, lost = heart_cover(fields, p["heart"] + p["cardiomegaly"])
    soft = fields["soft"]
    vessels = (p["vessels"] + 0.8 * p["oedema_haze"]) * (soft - _LUNG)
    soft = soft + lung * (_LUNG + vessels - soft)
    soft = blend(soft, lost, _LUNG)
    soft = blend(soft, gained, _TISSUE)

    def aerate(under: jax.Array) -> jax.Array:
        air, line, collapsed = pneumothorax_cover(fields, p)
        under = blend(under, collapsed, _TISSUE)
        return blend(blend(under, air, _AIR), 0.4 * line, 0.6)

    # Under `jax.lax.map` an absent lesion costs nothing: its branch is not taken.
    layers: tuple[tuple[jax.Array, Callable[[jax.Array], jax.Array]], ...] = (
        (p["oedema"] > 0.0, lambda under: blend(under, oedema_cover(fields, p), 0.75)),
        (p["consolidation"] > 0.0, lambda under: blend(under, consolidation_cover(fields, p), 0.95)),
        (p["mass"] > 0.0, lambda under: blend(under, mass_cover(fields, p), _TUMOUR)),
        (p["atelectasis"] > 0.0, lambda under: blend(under, atelectasis_cover(fields, p), 0.95)),
        (p["pneumothorax_depth"].max() > 0.0, aerate),
        (p["effusion_rise"].max() > 0.0, lambda under: blend(under, effusion_cover(fields, p), _FLUID)),
    )
    for present, layer in layers:
        soft = jax.lax.cond(present, layer, lambda under: under, soft)
    return p["wall"] * soft + p["bone"] * fields["bone"]
