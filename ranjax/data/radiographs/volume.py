"""The scanned chest as arrays on a grid that projections and lesions share.

Grid axes are depth (back to front), height (foot to head) and width (patient's right to left), so that a slab is one
[height, width] picture. Coordinates are mm: x to the patient's left from the midline, y to the front, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from scipy import ndimage

from ranjax.core.errors import DataError

LOBE_NAMES = ("left_upper_lobe", "left_lower_lobe", "right_upper_lobe", "right_middle_lobe", "right_lower_lobe")
_ASSET = "lidc_idri_0001.npz"
# Columns and slices of the stored volume that a film can show, and the column of spine and sternum.
_COLUMNS, _ROWS, _SLICES = slice(4, 124), slice(14, 114), slice(3, 67)
_MIDLINE = 60.5
_LUNG_WATER = 0.13


@dataclass(frozen=True)
class Grid:
    """Everything rendering needs to know of the patient.

    fields (float32): soft[D, Z, X] attenuation relative to water without dense bone, bone[D, Z, X] the excess of dense
    bone, lobes[5, D, Z, X] share of each lobe (order of `LOBE_NAMES`), heart[D, Z, X] mm to the heart, or inside it
    minus the mm to the lung, noise[3, D, Z, X] smooth unit noise, wall[2, Z, X] distance in mm from the
    lateral and apical chest wall in the coronal plane (right lung, left lung), and x[X], y[D], z[Z] in mm.
    sites[5][n, 3]: places (x, y, z) deep inside each lobe. base_mm, apex_mm, hilum_mm: landmarks of right, left lung.
    """

    fields: dict[str, np.ndarray]
    sites: tuple[np.ndarray, ...]
    base_mm: tuple[float, float]
    apex_mm: tuple[float, float]
    hilum_mm: tuple[tuple[float, float], tuple[float, float]]
    slab_cm: float


def load_scan() -> tuple[np.ndarray, np.ndarray, dict[str, int], np.ndarray]:
    """Return the shipped scan: Hounsfield units f32[128, 128, 67], labels u8 alike, label codes by name, voxel size
    in mm."""
    path = resources.files("ranjax.data.radiographs") / "assets" / _ASSET
    if not path.is_file():
        raise DataError(f"{_ASSET} is missing from the installed package (ranjax/data/radiographs/assets)")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        hu = stored["volume"].astype(np.float32) * int(stored["hu_step"]) + int(stored["hu_floor"])
        codes = {str(name): code for code, name in enumerate(stored["label_names"], start=1)}
        return hu, stored["labels"], codes, stored["spacing_mm"].astype(np.float64)


@lru_cache(maxsize=2)
def load_grid(fine: bool = False) -> Grid:
    """Return the grid for small films (16 x 64 x 80), or with `fine` the one for large films (32 x 64 x 120)."""
    hu, labels, codes, spacing = load_scan()
    crop = (_COLUMNS, _ROWS, _SLICES)
    hu, labels = hu[crop], labels[crop]
    shape = (120, 32, 64) if fine else (80, 16, 64)
    centres = [(np.arange(n) + 0.5) * (old / n) - 0.5 for n, old in zip(shape, hu.shape)]
    x = (centres[0] + _COLUMNS.start - _MIDLINE) * spacing[0]
    y = (centres[1] - 0.5 * (hu.shape[1] - 1)) * spacing[1]
    z = (centres[2] + _SLICES.start) * spacing[2]

    def reduce(volume: np.ndarray) -> np.ndarray:
        return _resample(_resample(volume, shape[0], 0), shape[1], 1).transpose(1, 2, 0)

    dense = np.where((labels == codes["bone"]) & (hu > 60), (hu - 60) / 1000, 0.0)
    lobes = [labels == codes[name] for name in LOBE_NAMES]
    sides = (lobes[2] | lobes[3] | lobes[4], lobes[0] | lobes[1])
    fields = {
        "soft": reduce(np.maximum(1.0 + hu / 1000, 0.0) - dense),
        "bone": reduce(dense),
        "lobes": np.stack([reduce(lobe) for lobe in lobes]),
        "heart": reduce(_heart_distance(labels == codes["heart"], np.any(lobes, axis=0), spacing)),
        "noise": np.stack([reduce(noise) for noise in _noise(hu.shape, spacing)]),
        "wall": np.stack([_wall_distance(side, spacing) for side in sides]),
    }
    fields["wall"] = _resample(fields["wall"], shape[0], 1).transpose(0, 2, 1)
    fields |= {"x": x, "y": y, "z": z}
    landmarks = [_landmarks(side, spacing) for side in sides]
    return Grid(
        fields={name: np.ascontiguousarray(field, np.float32) for name, field in fields.items()},
        sites=tuple(_sites(name, lobe, np.any(lobes, axis=0), spacing) for name, lobe in zip(LOBE_NAMES, lobes)),
        base_mm=(landmarks[0][0], landmarks[1][0]),
        apex_mm=(landmarks[0][1], landmarks[1][1]),
        hilum_mm=(landmarks[0][2], landmarks[1][2]),
        slab_cm=hu.shape[1] * spacing[1] / shape[1] / 10,
    )


def _resample(volume: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Return the area means along `axis`, from n cells to `count`."""
    n = volume.shape[axis]
    edges = np.linspace(0, n, count + 1)
    cells = np.arange(n)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0, None) * (count / n)
    return np.moveaxis(np.tensordot(weights, np.asarray(volume, np.float64), axes=(1, axis)), 0, axis)


def _heart_distance(heart: np.ndarray, lung: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the mm to the heart outside it, minus the mm to the lung inside it; height counts more, as hearts widen
    sideways.

    Inside, only the border with the lung counts: a smaller heart gives way to lung, not to spine or aorta.
    """
    step = spacing * [1.0, 1.0, 1.5]
    outside = ndimage.distance_transform_edt(~heart, sampling=step)
    inside = ndimage.distance_transform_edt(~lung, sampling=step)
    return np.clip(np.where(heart, -inside, outside), -60.0, 60.0)


def _noise(shape: tuple[int, ...], spacing: np.ndarray) -> list[np.ndarray]:
    """Return three smooth Gaussian fields of unit variance, with correlation lengths of 14, 14 and 7 mm."""
    rng = np.random.Generator(np.random.PCG64(20_000))
    fields = []
    for length in (14.0, 14.0, 7.0):
        field = ndimage.gaussian_filter(rng.standard_normal(shape), length / spacing, mode="wrap")
        fields.append((field - field.mean()) / field.std())
    return fields


def _wall_distance(lung: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the mm [X, Z] from the lateral and apical outline of a lung's shadow; mediastinum and diaphragm do not
    count."""
    shadow = np.asarray(lung.any(axis=1))
    right = _middle(shadow) < _MIDLINE - _COLUMNS.start
    lateral_first = shadow if right else shadow[::-1]
    inside = np.maximum.accumulate(lateral_first, axis=0)
    inside = np.maximum.accumulate(inside[:, ::-1], axis=1)[:, ::-1]
    distance = ndimage.distance_transform_edt(np.pad(inside, ((0, 0), (0, 1))), sampling=spacing[[0, 2]])[:, :-1]
    return distance if right else distance[::-1]


def _middle(shadow: np.ndarray) -> float:
    return float(np.argwhere(shadow)[:, 0].mean())


def _landmarks(lung: np.ndarray, spacing: np.ndarray) -> tuple[float, float, tuple[float, float]]:
    """Return the lowest and highest z of a lung, and (x, z) of its hilum: 38 mm off the midline at 58 % of its
    height.
    """
    cells = np.argwhere(lung)
    low, high = ((cells[:, 2].min(), cells[:, 2].max() + 1) + np.array(_SLICES.start)) * spacing[2]
    side = -1.0 if _middle(np.asarray(lung.any(axis=1))) < _MIDLINE - _COLUMNS.start else 1.0
    return float(low), float(high), (38.0 * side, float(low + 0.58 * (high - low)))


def _sites(name: str, lobe: np.ndarray, lung: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return places f64[256, 3] in the deeper half of a lobe, where heart and diaphragm hide little, in voxel order.

    Lower lobes reach up behind the hilum and upper ones down in front of it: those parts, which a frontal film cannot
    tell from the neighbour, are left out.
    """
    depth = ndimage.distance_transform_edt(lobe, sampling=spacing)
    open_view = lung.sum(axis=1)
    open_view = open_view >= 0.75 * np.quantile(open_view[open_view > 0], 0.95)
    visible = np.where(open_view[:, None, :] & lobe, depth, 0.0)
    deep = np.argwhere(visible >= np.quantile(visible[visible > 0], 0.5))
    if "lower" in name:
        deep = deep[deep[:, 2] <= np.quantile(deep[:, 2], 0.6)]
    elif "upper" in name:
        deep = deep[deep[:, 2] >= np.quantile(deep[:, 2], 0.3)]
    chosen = deep[np.linspace(0, len(deep) - 1, 256).round().astype(int)]
    origin = np.array([_COLUMNS.start - _MIDLINE, -0.5 * (lobe.shape[1] - 1), _SLICES.start])
    return (chosen + origin) * spacing
