"""What a reader would measure on a generated film, taken from the volume so that it is exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.data.radiographs.findings import Case
from ranjax.data.radiographs.lesions import covers, heart_cover
from ranjax.data.radiographs.render import grid_fields
from ranjax.data.radiographs.render_parameters import case_parameters, pack

_heart_cover = jax.jit(heart_cover)
_covers = jax.jit(covers)
# Thinner rims (pericardial fat) cast no border that a reader would measure.
_THICKNESS_CM = 4.5


def cardiothoracic_ratio(case: Case) -> float:
    """Greatest width of the heart over the greatest inner width of the chest, seen from the front without tilt.

    Up to about 0.5 is normal (Danzer 1919).
    """
    grid, fields = grid_fields(False)
    parameters = case_parameters(case, grid)
    gained, lost = _heart_cover(fields, np.float32(parameters["heart"] + parameters["cardiomegaly"]))
    heart = (np.asarray(fields["heart"]) < 0) & (np.asarray(lost) < 0.5) | (np.asarray(gained) > 0.5)
    lungs = np.asarray(fields["lobes"]).sum(0) > 0.5
    return _width(heart, _THICKNESS_CM / grid.slab_cm) / _width(lungs, 1.0)


def lesion_volumes(case: Case) -> dict[str, np.ndarray]:
    """Cover f32[16, 64, 80] of each kind of lesion on the coarse grid (`volume.load_grid`), before projection."""
    grid, fields = grid_fields(False)
    parameters = {name: jnp.asarray(values[0]) for name, values in pack([case], grid).items()}
    return {kind: np.asarray(cover) for kind, cover in _covers(fields, parameters).items()}


def _width(mask: np.ndarray, slabs: float) -> float:
    columns = np.flatnonzero((mask.sum(axis=0) >= slabs).any(axis=0))
    return float(columns.max() - columns.min() + 1)
