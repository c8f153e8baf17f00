"""From a case in words to the numbers that rendering takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ranjax.core.errors import DataError
from ranjax.data.radiographs.findings import DEVICES, SEVERITIES, Body, Case, Finding, Technique
from ranjax.data.radiographs.volume import LOBE_NAMES, Grid

_SIDES = ("right", "left")
_NEVER = -1000.0
_SCANNED_DOMES_MM = (-34.0, -26.0)

Parameters = dict[str, Any]
"""Numbers and arrays of a case by name, some of them by lesion."""


def pack(cases: Sequence[Case], grid: Grid) -> dict[str, np.ndarray]:
    """Return f32 arrays, one row a case, keyed as `lesions` and `render` read them. Raises DataError on unknown
    kinds."""
    rows = [case_parameters(case, grid) for case in cases]
    return {name: np.stack([np.asarray(row[name], np.float32) for row in rows]) for name in rows[0]}


def case_parameters(case: Case, grid: Grid) -> Parameters:
    """Return the numbers of one case (see `pack`)."""
    p = _body(case, grid) | _technique(case) | _healthy()
    for finding in case.findings:
        if finding.kind not in _PLACERS:
            raise DataError(f"case {case.id}: unknown finding {finding.kind!r}; expected one of {sorted(_PLACERS)}")
        _PLACERS[finding.kind](p, finding, grid)
    return p


def _numbers(stated: Body | Technique) -> Parameters:
    """Return the fields by their names without units."""
    return {re.sub("_(mm|cm|deg)$", "", name): value for name, value in vars(stated).items()}


def _body(case: Case, grid: Grid) -> Parameters:
    return _numbers(case.body) | {
        # The scan was taken at a shallower breath than radiographs are.
        "domes": np.array(case.body.domes_mm) + _SCANNED_DOMES_MM,
        "devices": np.array([name in case.body.devices for name in DEVICES]),
        "shift_mediastinum": 0.0,
        "base": np.array(grid.base_mm),
        "apex": np.array(grid.apex_mm),
        "hilum": np.array(grid.hilum_mm),
    }


def _technique(case: Case) -> Parameters:
    technique = case.technique
    return _numbers(technique) | {
        "yaw": math.tan(math.radians(technique.yaw_deg)),
        "pitch": math.tan(math.radians(technique.pitch_deg)),
        "roll": math.radians(technique.roll_deg),
    }


def _healthy() -> dict[str, object]:
    return {
        "cardiomegaly": 0.0,
        "consolidation": 0.0,
        "consolidation_centre": np.zeros(3),
        "consolidation_lobe": np.zeros(5),
        "consolidation_noise": np.zeros(3),
        "consolidation_radius": 1.0,
        "mass": 0.0,
        "mass_centre": np.zeros(3),
        "mass_radius": 1.0,
        "mass_spicules": 0.0,
        "mass_cavity": -50.0,
        "effusion_level": np.full(2, _NEVER),
        "effusion_rise": np.zeros(2),
        "pneumothorax_depth": np.zeros(2),
        "pneumothorax_taper": np.ones(2),
        "pneumothorax_collapse": np.zeros(2),
        "oedema": 0.0,
        "oedema_reach": 50.0,
        "oedema_haze": 0.0,
        "kerley": 0.0,
        "atelectasis": 0.0,
        "atelectasis_lobe": np.zeros(5),
        "atelectasis_side": 1.0,
        "atelectasis_planes": np.zeros((3, 3)),
    }


def lobe_index(finding: Finding) -> int:
    """Return the index in `LOBE_NAMES` of the finding's lobe."""
    return LOBE_NAMES.index(f"{finding.side}_{finding.lobe}_lobe")


def _lobe_share(finding: Finding) -> np.ndarray:
    return np.eye(5)[lobe_index(finding)]


def _site(finding: Finding, grid: Grid) -> np.ndarray:
    sites = grid.sites[lobe_index(finding)]
    return sites[int(finding.shape[0] * len(sites))]


def _grade(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _consolidation(p: dict, finding: Finding, grid: Grid) -> None:
    patchy = finding.pattern == "patchy"
    angle = 2 * math.pi * finding.shape[1]
    ragged = (16.0 if patchy else 6.0) * np.array([math.cos(angle), math.sin(angle), 0.35])
    p["consolidation"] = (0.7, 0.85, 1.0)[_grade(finding)]
    p["consolidation_centre"] = _site(finding, grid)
    p["consolidation_lobe"] = _lobe_share(finding)
    p["consolidation_noise"] = ragged
    p["consolidation_radius"] = 5.0 * finding.size_cm + (4.0 if patchy else 8.0)


def _mass(p: dict, finding: Finding, grid: Grid) -> None:
    p["mass"] = 1.0
    p["mass_centre"] = _site(finding, grid)
    p["mass_radius"] = 5.0 * finding.size_cm
    p["mass_spicules"] = 3.5 if finding.pattern == "spiculated" else 0.8
    p["mass_cavity"] = 2.6 * finding.size_cm if finding.pattern == "cavitary" else -50.0


def _effusion(p: dict, finding: Finding, grid: Grid) -> None:
    for side, name in enumerate(_SIDES):
        if finding.side in (name, "bilateral"):
            share = 0.8 + 0.2 * finding.shape[side] if finding.side == "bilateral" else 1.0
            p["effusion_level"][side] = grid.base_mm[side] + 10.0 * finding.size_cm * share
            p["effusion_rise"][side] = 34.0 + 18.0 * finding.shape[2]
    if finding.severity == "severe" and finding.side in _SIDES:
        p["shift_mediastinum"] += (1.0 if finding.side == "right" else -1.0) * 8.0 * finding.shape[3]


def _cardiomegaly(p: dict, finding: Finding, grid: Grid) -> None:
    # The enlarged heart is measured from the heart this body would have had at the middle of the normal range.
    p["cardiomegaly"] = 10.0 * finding.size_cm - 3.0 - p["heart"]


def _pneumothorax(p: dict, finding: Finding, grid: Grid) -> None:
    side = _SIDES.index(finding.side)
    p["pneumothorax_depth"][side] = 10.0 * finding.size_cm + 6.0
    p["pneumothorax_taper"][side] = 0.1 if finding.pattern == "apical" else 0.35 + 0.4 * finding.shape[0]
    p["pneumothorax_collapse"][side] = (0.03, 0.1, 0.3)[_grade(finding)]
    if finding.pattern == "tension":
        p["shift_mediastinum"] += (1.0 if finding.side == "right" else -1.0) * (14.0 + 8.0 * finding.shape[1])
        p["domes"][side] -= 14.0


def _oedema(p: dict, finding: Finding, grid: Grid) -> None:
    grade = _grade(finding)
    p["oedema"] = (0.16, 0.38, 0.7)[grade] * (0.9 + 0.2 * finding.shape[0])
    p["oedema_reach"] = 10.0 * finding.size_cm + 8.0
    p["oedema_haze"] = (0.05, 0.08, 0.12)[grade]
    p["kerley"] = (0.16, 0.14, 0.06)[grade]


def _atelectasis(p: dict, finding: Finding, grid: Grid) -> None:
    side = _SIDES.index(finding.side)
    outward = (-1.0, 1.0)[side]
    base, (_, hilum) = grid.base_mm[side], grid.hilum_mm[side]
    p["atelectasis_lobe"] = _lobe_share(finding)
    p["atelectasis_side"] = outward
    p["atelectasis"] = (0.6, 0.8, 1.0)[_grade(finding)]
    size = 10.0 * finding.size_cm
    if finding.pattern == "linear":
        slope = 0.7 * (finding.shape[0] - 0.4)
        # Above the dome of the diaphragm, where a plate is seen against air.
        height = base + (78.0 if side == 0 else 62.0) + 40.0 * finding.shape[1]
        thickness = 2.5 + 2.5 * finding.shape[2]
        middle = 75.0
        p["atelectasis_lobe"] = np.array([1, 1, 0, 0, 0]) if side else np.array([0, 0, 1, 1, 1])
        planes = [
            (-slope, 1.0, slope * middle - height + thickness),
            (slope, -1.0, height + thickness - slope * middle),
            (-1.0, 0.0, middle + 0.5 * size),
        ]
        p["domes"][side] += 5.0
    elif finding.lobe == "upper":
        # A wedge against apex and mediastinum, its lower border drawn up and outwards.
        slope = 0.6 + 0.3 * finding.shape[1]
        planes = [(-slope, 1.0, size + 25.0 - grid.apex_mm[side] + 30.0 * slope), (0.0, 0.0, 10.0), (0.0, 0.0, 10.0)]
        p["shift_mediastinum"] += outward * (5.0 + 6.0 * finding.shape[0])
        p["domes"][side] += 10.0
    elif finding.lobe == "middle":
        # A triangle on the right border of the heart, its tip outwards.
        middle, half = hilum - 26.0, 0.2 * size
        planes = [
            (-0.4, 1.0, half + 0.4 * 20.0 - middle),
            (-0.2, -1.0, half + 0.2 * 20.0 + middle),
            (-1.0, 0.0, size + 25.0),
        ]
        p["domes"][side] += 6.0
    else:
        # A triangle beside the spine that widens down to the diaphragm.
        planes = [
            (-1.0, -(size / 110.0), 12.0 + size / 110.0 * (hilum + 10.0)),
            (0.0, -1.0, hilum + 10.0),
            (0.0, 0.0, 10.0),
        ]
        p["shift_mediastinum"] += outward * (6.0 + 6.0 * finding.shape[0])
        p["domes"][side] += 14.0 + 8.0 * finding.shape[1]
    p["atelectasis_planes"] = np.array(planes)


_PLACERS = {
    "consolidation": _consolidation,
    "mass": _mass,
    "effusion": _effusion,
    "cardiomegaly": _cardiomegaly,
    "pneumothorax": _pneumothorax,
    "oedema": _oedema,
    "atelectasis": _atelectasis,
}
