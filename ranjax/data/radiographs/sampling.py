"""Draws cases. Each is settled by (seed, split, index): not by the count, nor by its neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ranjax.data.radiographs.findings import (
    CLASSES,
    DEVICES,
    IN_DOMAIN,
    KINDS,
    LOBES,
    SEVERITIES,
    Acquisition,
    Body,
    Case,
    Finding,
    Technique,
)

_DRAWS = 128
_LATERAL = ("consolidation", "mass", "effusion", "pneumothorax", "atelectasis")
_CENTRAL = ("cardiomegaly", "oedema")
# Extent in cm by kind and severity: (low, high).
SIZES: dict[str, tuple[tuple[float, float], ...]] = {
    "consolidation": ((4.0, 6.0), (6.0, 9.0), (9.0, 13.0)),
    "mass": ((2.5, 3.0), (4.0, 5.0), (5.5, 8.0)),
    "effusion": ((4.5, 6.0), (7.5, 9.5), (11.0, 15.0)),
    "cardiomegaly": ((1.0, 1.5), (2.0, 2.5), (3.0, 4.0)),
    "pneumothorax": ((1.5, 2.5), (3.0, 5.0), (5.5, 8.0)),
    "oedema": ((4.5, 6.0), (5.5, 7.0), (6.5, 8.0)),
    "atelectasis": ((4.0, 6.5), (4.5, 7.0), (6.5, 9.0)),
}


class _Draws:
    """Uniform draws of one case, taken in order."""

    def __init__(self, values: np.ndarray) -> None:
        self._values: Iterator[float] = iter(values.tolist())

    def uniform(self, low: int | float = 0.0, high: int | float = 1.0) -> float:
        return low + (high - low) * next(self._values)

    def chance(self, share: float) -> bool:
        return next(self._values) < share

    def choice(self, options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
        shares = np.cumsum(weights if weights else np.ones(len(options)))
        return options[int(np.searchsorted(shares, next(self._values) * shares[-1], side="right"))]

    def bell(self, spread: float) -> float:
        """Return the sum of three uniforms, scaled to a standard deviation of `spread`: bell-shaped, bounded at 3
        spreads."""
        return 2.0 * spread * (self.uniform() + self.uniform() + self.uniform() - 1.5)


def _uniform(name: str, count: int) -> np.ndarray:
    """Return `count` draws from [0, 1) that `name` settles, f64: raw PCG64 words, the same with every numpy and
    machine."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    words = np.random.PCG64(seed).random_raw(count)
    return (words >> np.uint64(11)) * 2.0**-53


def sample_cases(
    seed: int, split: str, count: int, multiple: float = 0.2, acquisition: Acquisition = IN_DOMAIN
) -> list[Case]:
    """Sample `count` cases of `split` under `seed`; case i is the same whatever `count` is.

    `multiple` is the share with two or three findings. The others are balanced: each run of eight indices holds every
    class once, less those that drew several findings. Raises ValueError for a negative count or a share outside [0, 1].
    """
    if count < 0:
        raise ValueError(f"count is {count}; expected 0 or more")
    if not 0.0 <= multiple <= 1.0:
        raise ValueError(f"multiple is {multiple}; expected a share from 0 to 1")
    block = len(CLASSES)
    cases: list[Case] = []
    for index in range(count):
        if index % block == 0:
            order = np.argsort(_uniform(f"order/{split}/{seed}/{index}", block))
        draws = _Draws(_uniform(f"case/{split}/{seed}/{index}", _DRAWS))
        cases.append(_case(f"{split}-{seed}-{index}", CLASSES[order[index % block]], draws, multiple, acquisition))
    return cases


def _case(name: str, kind: str, draws: _Draws, multiple: float, acquisition: Acquisition) -> Case:
    several = draws.chance(multiple)
    three = draws.chance(0.25)
    sex = draws.choice(("female", "male"))
    age = int(draws.uniform(20, 90))
    technique = _technique(draws, acquisition)
    body = _body(draws, sex)
    if several:
        findings = _several(draws, 3 if three else 2)
    else:
        findings = () if kind == "normal" else (_finding(draws, kind, ""),)
    return Case(id=name, patient=f"patient-{name}", age=age, sex=sex, findings=findings, body=body, technique=technique)


def _several(draws: _Draws, count: int) -> tuple[Finding, ...]:
    """Return two or three findings that do not hide each other: lateral ones on opposite sides, and central ones."""
    lateral, central = list(_LATERAL), list(_CENTRAL)
    side = draws.choice(("right", "left"))
    chosen: list[Finding] = []
    for position in range(count):
        placed = sum(finding.kind in _LATERAL for finding in chosen)
        options = tuple((lateral if placed < 2 else []) + central) if position else tuple(lateral)
        kind = draws.choice(options)
        if kind in central:
            central.remove(kind)
            chosen.append(_finding(draws, kind, ""))
        else:
            lateral.remove(kind)
            chosen.append(_finding(draws, kind, side))
            side = "left" if side == "right" else "right"
    return tuple(sorted(chosen, key=lambda finding: KINDS.index(finding.kind)))


def _finding(draws: _Draws, kind: str, side: str) -> Finding:
    severity = draws.choice(SEVERITIES, (0.3, 0.4, 0.3))
    both = draws.chance(0.15)
    drawn_side = draws.choice(("right", "left"))
    if kind in _CENTRAL:
        side = "midline" if kind == "cardiomegaly" else "bilateral"
    elif not side:
        side = "bilateral" if kind == "effusion" and both else drawn_side
    lobe_draw, pattern_draw = draws.uniform(), draws.uniform()
    lobe = ""
    if kind in ("consolidation", "mass", "atelectasis"):
        options = LOBES[side]
        lobe = options[int(lobe_draw * len(options))]
    pattern = _pattern(kind, severity, lobe, pattern_draw)
    if pattern == "linear" and lobe == "upper":
        lobe = "lower"
    low, high = SIZES[kind][SEVERITIES.index(severity)]
    size = round(2.0 * draws.uniform(low, high)) / 2.0
    return Finding(kind, side, lobe, severity, size, pattern, tuple(draws.uniform() for _ in range(8)))


def _pattern(kind: str, severity: str, lobe: str, draw: float) -> str:
    if kind == "consolidation":
        return "patchy" if draw < 0.5 else "lobar"
    if kind == "mass":
        return "spiculated" if draw < 0.4 else "cavitary" if draw < 0.55 and severity == "severe" else "smooth"
    if kind == "pneumothorax":
        return "tension" if severity == "severe" and draw < 0.5 else "apical" if severity == "mild" else "simple"
    if kind == "oedema":
        return "interstitial" if severity == "mild" else "alveolar"
    if kind == "atelectasis":
        return "linear" if severity == "mild" else "lobar"
    return ""


def _technique(draws: _Draws, acquisition: Acquisition) -> Technique:
    shuttered = draws.chance(acquisition.shutter_share)
    shutters = [draws.uniform(*acquisition.shutter_mm) if draws.chance(0.6) else 0.0 for _ in range(4)]
    ranges = vars(acquisition)
    turns = {name: draws.uniform(*ranges[name]) for name in ("yaw_deg", "pitch_deg", "roll_deg")}
    shift = draws.uniform(*acquisition.shift_mm), draws.uniform(*acquisition.shift_mm)
    rest = {name: draws.uniform(*ranges[name]) for name in ("zoom", "exposure", "contrast", "noise", "blur_mm")}
    rim = (shutters[0], shutters[1], shutters[2], shutters[3]) if shuttered else (0.0, 0.0, 0.0, 0.0)
    return Technique(**turns, shift_mm=shift, **rest, shutters_mm=rim)


def _body(draws: _Draws, sex: str) -> Body:
    inspiration = draws.bell(9.0)
    bowed = draws.chance(0.15)
    bow = draws.uniform(9.0, 18.0) * (1 if draws.chance(0.5) else -1)
    equipped = draws.chance(0.25)
    device = draws.choice(DEVICES)
    breast = draws.uniform(0.5, 2.8)
    return Body(
        width=0.97 + draws.bell(0.05),
        height=1.04 + draws.bell(0.045),
        wall=1.0 + draws.bell(0.11),
        breast_cm=breast if sex == "female" else 0.0,
        heart_mm=draws.uniform(-11.0, -3.0),
        domes_mm=(draws.bell(5.0) - inspiration, draws.bell(5.0) - inspiration),
        vessels=draws.uniform(0.8, 1.6),
        bone=draws.uniform(1.2, 2.6),
        scoliosis_mm=bow if bowed else 0.0,
        bends=tuple(draws.uniform() for _ in range(6)),
        devices=(device,) if equipped else (),
    )
