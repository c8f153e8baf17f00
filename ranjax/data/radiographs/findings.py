"""What a synthetic radiograph shows: findings, the body they sit in, and the technique it was taken with.

Everything here is plain data. A `Case` determines its picture, its report and its labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

KINDS = ("consolidation", "mass", "effusion", "cardiomegaly", "pneumothorax", "oedema", "atelectasis")
CLASSES: tuple[str, ...] = ("normal", *KINDS)
SIDES = ("right", "left", "bilateral", "midline")
SEVERITIES = ("mild", "moderate", "severe")
LOBES = {"right": ("upper", "middle", "lower"), "left": ("upper", "lower")}
DEVICES = ("pacemaker", "central line", "sternotomy wires", "endotracheal tube")


@dataclass(frozen=True)
class Finding:
    """One finding.

    kind: one of `KINDS`. side: the patient's "right" or "left", "bilateral" or "midline". lobe: "upper", "middle",
    "lower", or "" where the finding belongs to no lobe. severity: one of `SEVERITIES`. size_cm: its extent in steps of
    0.5 cm (mass and consolidation: diameter; effusion: height of the fluid; pneumothorax: depth of the rim;
    cardiomegaly: widening of the heart; oedema: reach of the haze from the hilum; atelectasis: length or width of the
    opacity). pattern: the form it takes, see `sampling`. shape: eight draws from [0, 1) that settle position and
    texture.
    """

    kind: str
    side: str
    lobe: str
    severity: str
    size_cm: float
    pattern: str
    shape: tuple[float, ...]


@dataclass(frozen=True)
class Body:
    """Anatomy of one simulated patient, as departures from the scanned one.

    width, height: scale of the thorax. wall: factor on the attenuation of the soft tissue. breast_cm: extra tissue
    over the lower chest. heart_mm: shift of the heart's border (negative: a smaller heart than the scanned one).
    domes_mm: height of the right and left hemidiaphragm (positive: higher, less air). vessels: contrast of the lung
    vessels. bone: density of the bones. scoliosis_mm: bow of the spine, positive to the patient's left. bends: phases
    and sizes of a small smooth warp. devices: some of `DEVICES`.
    """

    width: float
    height: float
    wall: float
    breast_cm: float
    heart_mm: float
    domes_mm: tuple[float, float]
    vessels: float
    bone: float
    scoliosis_mm: float
    bends: tuple[float, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Technique:
    """How one exposure was taken.

    yaw_deg: rotation about the long axis, positive: the patient turned to the left. pitch_deg: tilt, positive: tube
    pointing to the feet (lordotic is negative). roll_deg: rotation in the plane of the film. shift_mm: offset of the
    centre, to the patient's left and up. zoom: magnification. exposure: brightness step, positive is darker
    (overpenetrated). contrast: slope of the film curve. noise: standard deviation of the detector noise behind 10 cm of
    water, in grey levels of [0, 1] for a pixel of 5 mm. blur_mm: standard deviation of the detector's point spread.
    shutters_mm: width of the collimated rim at left, right, top and bottom of the film.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    shift_mm: tuple[float, float]
    zoom: float
    exposure: float
    contrast: float
    noise: float
    blur_mm: float
    shutters_mm: tuple[float, float, float, float]


@dataclass(frozen=True)
class Case:
    """One examination: `id` ("split-seed-index") lasts and seeds the detector noise; `findings` is empty if normal."""

    id: str
    patient: str
    age: int
    sex: str
    findings: tuple[Finding, ...]
    body: Body
    technique: Technique


@dataclass(frozen=True)
class Acquisition:
    """Ranges that `Technique` is drawn from, uniformly, each (low, high) in the units of `Technique`.

    `shutter_share` is the share of films with a visible collimated rim, `shutter_mm` the range of its widths.
    """

    name: str
    yaw_deg: tuple[float, float] = (-5.0, 5.0)
    pitch_deg: tuple[float, float] = (-5.0, 5.0)
    roll_deg: tuple[float, float] = (-4.0, 4.0)
    shift_mm: tuple[float, float] = (-9.0, 9.0)
    zoom: tuple[float, float] = (0.95, 1.09)
    exposure: tuple[float, float] = (-1.0, 1.0)
    contrast: tuple[float, float] = (0.92, 1.12)
    noise: tuple[float, float] = (0.003, 0.009)
    blur_mm: tuple[float, float] = (0.8, 1.8)
    shutter_mm: tuple[float, float] = (4.0, 18.0)
    shutter_share: float = 0.25


# Films of many rooms: patients stand as they can, so that no template of pixels finds a lesion.
IN_DOMAIN = Acquisition(
    "in-domain",
    yaw_deg=(-10.0, 10.0),
    pitch_deg=(-8.0, 8.0),
    roll_deg=(-12.0, 12.0),
    shift_mm=(-30.0, 30.0),
    zoom=(0.85, 1.15),
)
# A bedside machine: turned and tilted patients, a grainy and soft detector, another film curve, tight shutters.
OUT_OF_DOMAIN = Acquisition(
    "out-of-domain",
    yaw_deg=(-11.0, 11.0),
    pitch_deg=(-12.0, -3.0),
    roll_deg=(-8.0, 8.0),
    shift_mm=(-16.0, 16.0),
    zoom=(0.84, 0.98),
    exposure=(-2.0, 2.0),
    contrast=(0.68, 0.88),
    noise=(0.011, 0.022),
    blur_mm=(2.0, 3.4),
    shutter_mm=(8.0, 30.0),
    shutter_share=0.7,
)


def label(case: Case) -> int:
    """Return the index in `CLASSES` of the only finding, 0 for a normal film, -1 for several findings."""
    if len(case.findings) > 1:
        return -1
    return CLASSES.index(case.findings[0].kind) if case.findings else 0


def labels(case: Case) -> Float32[np.ndarray, " classes"]:
    """Return multi-hot f32[len(CLASSES)]; "normal" is set where there is no finding."""
    present = {finding.kind for finding in case.findings} or {"normal"}
    return np.array([name in present for name in CLASSES], np.float32)
