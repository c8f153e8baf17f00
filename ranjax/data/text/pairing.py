"""Real reports for generated radiographs: a report of another patient with the same findings on the same sides.

The reports are Open-i's (`ranjax.data.text.openi`), read where they lie. A pair agrees in class, not person: what
the report says beyond its findings is not on the film. Every use says so, by `CARD`.
"""

from __future__ import annotations

import collections
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ranjax.core.files import digest
from ranjax.data.radiographs.findings import KINDS
from ranjax.data.text import openi, reports
from ranjax.data.text.deidentify import deidentify

CARD: Mapping[str, str] = {
    "reports": "real reports of other patients (Indiana University, Open-i), paired with films by finding and side: "
    "class-level pairs, in which the report says things that are not on the film",
    "reports licence": "CC BY-NC-ND 4.0, Demner-Fushman et al., JAMIA 2016; read from the user's copy",
}
# In this order the reports of one finding are dealt out, so that five are enough for every split to have one.
_TURNS = ("train", "test", "ood_test", "adapt", "validation", "train", "train", "train", "train", "train")
# The generator's "mass" is a mass or nodule.
_KINDS = {"nodule": "mass"}
_MIDDLE = ("cardiomegaly", "oedema")

Placed = tuple[tuple[str, str], ...]
"""Findings with their side, sorted; () is normal."""


def pair(cases: Sequence[Any], path: str, split: str, seed: int) -> dict[str, tuple[str, str]]:
    """Report and its id by case id; cases without a report of such findings are left out.

    Reports are divided among the splits, so none stands in two of them. Of the reports that fit best, a keyed hash of
    the case takes one: first those with the same findings and sides, then the same findings with a side left open,
    then those with further findings, then those of one of the case's findings alone. No report contradicts a side.
    """
    found = _by_findings(path, split, seed)
    chosen = {}
    for case in cases:
        placed = _placed((finding.kind, finding.side) for finding in case.findings)
        for fitting in _tries(placed, found):
            if fitting:
                report = fitting[_key(f"pair:{seed}:{case.id}") % len(fitting)]
                chosen[case.id] = (_text(report), report.id)
                break
    return chosen


def digest_of(path: str) -> str:
    """Return a hash of the reports' content, wherever they lie."""
    return digest([[r.id, dict(r.sections), r.mesh] for r in openi.read_reports(Path(path))])


def _tries(placed: Placed, found: Mapping[Placed, list[openi.Report]]) -> list[list[openi.Report]]:
    open_sides = [r for other, of in found.items() if _agree(placed, other) for r in of]
    among = [r for other, of in found.items() if placed and all(_has(other, finding) for finding in placed) for r in of]
    single = [r for finding in placed for r in found.get((finding,), [])]
    return [found.get(placed, []), open_sides, among, single]


def _has(placed: Placed, finding: tuple[str, str]) -> bool:
    """Return whether the finding is there, and on no side that contradicts it."""
    kind, side = finding
    sides = {s for k, s in placed if k == kind}
    return bool(sides) and all(s == side or not s or not side for s in sides)


def _agree(first: Placed, second: Placed) -> bool:
    """Return whether the kinds are the same, and no side contradicts the other's."""
    if [kind for kind, _ in first] != [kind for kind, _ in second]:
        return False
    return all(a == b or not a or not b for (_, a), (_, b) in zip(first, second))


def _placed(findings: Any) -> Placed:
    plain = {(_KINDS.get(kind, kind), "" if kind in _MIDDLE or side == "midline" else side) for kind, side in findings}
    return tuple(sorted(plain))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@functools.lru_cache(maxsize=8)
def _by_findings(path: str, split: str, seed: int) -> dict[Placed, list[openi.Report]]:
    """Return the reports that the split may use, by what they find."""
    dealt: collections.Counter[frozenset[str]] = collections.Counter()
    found: dict[Placed, list[openi.Report]] = {}
    for report in sorted(_all(path), key=lambda report: _key(f"report:{seed}:{report.id}")):
        kinds = frozenset(_KINDS.get(kind, kind) for kind in report.findings)
        if not (kinds == {"normal"} or kinds & set(KINDS)) or not _text(report):
            continue
        turn = _TURNS[dealt[kinds] % len(_TURNS)]
        dealt[kinds] += 1
        if turn == split:
            found.setdefault(_placed(report.placed) if kinds != {"normal"} else (), []).append(report)
    return found


@functools.lru_cache(maxsize=2)
def _all(path: str) -> list[openi.Report]:
    return openi.read_reports(Path(path))


def _text(report: openi.Report) -> str:
    body = reports.of_sections(report.sections, ("findings", "impression"))
    return deidentify(reports.without_repeats(body))[0] if any(c.isalpha() for c in body) else ""
