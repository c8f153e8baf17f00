"""Writes reports from the exact findings of a case, and the prompts for zero-shot classification in the same words.

A report holds a findings and an impression part, between `SHORTEST` and `LONGEST` words. Its wording is settled by the
case's id, its content by the case.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from ranjax.data.radiographs.findings import CLASSES, LOBES, SEVERITIES, Case, Finding
from ranjax.data.radiographs.phrases import (
    FINDINGS,
    IMPRESSIONS,
    NEGATIVES,
    NORMAL_FINDINGS,
    NORMAL_TERMS,
    PLACES,
    REMARKS,
    SEVERITY,
    TERMS,
)

SHORTEST, LONGEST = 20, 45
_T = TypeVar("_T")
LABEL_WORDS: tuple[str, ...] = tuple(sorted({word for words in TERMS.values() for word in words} | set(NORMAL_TERMS)))
NUMBERS: tuple[str, ...] = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
)
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(phrase: str, slots: dict[str, str], rng: random.Random) -> str:
    """Fill the slots of `phrase` and make each choice; a slot in capitals starts with a capital."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return slots[name.lower()] if name.islower() else "^" + slots[name.lower()]

    phrase = _SLOT.sub(fill, phrase)
    while _CHOICE.search(phrase):
        phrase = _CHOICE.sub(lambda match: _pick(match.group(1).split("|"), rng), phrase)
    phrase = re.sub(r"\b([Aa]) (?=[aeiou])(?!one\b)", r"\1n ", phrase.replace("^", ""))
    return phrase[:1].upper() + phrase[1:]


def _pick(options: Sequence[_T], rng: random.Random) -> _T:
    return options[int(rng.random() * len(options))]


def _words(text: str) -> int:
    return len(re.findall(r"[a-z]+", text.lower()))


def _slots(finding: Finding) -> dict[str, str]:
    number = min(max(int(finding.size_cm + 0.5), 1), len(NUMBERS))
    return {
        **SEVERITY[finding.severity],
        "degreely": {"mild": "(mildly|slightly)", "moderate": "moderately", "severe": "(severely|markedly|grossly)"}[
            finding.severity
        ],
        "side": finding.side,
        "other": "left" if finding.side == "right" else "right",
        "lobe": finding.lobe,
        "place": PLACES[finding.lobe],
        "cm": NUMBERS[number - 1],
        "nodule": "(nodule|pulmonary nodule)" if finding.size_cm <= 3.0 else "(mass|pulmonary mass|mass lesion)",
    }


def _describe(finding: Finding, rng: random.Random) -> str:
    pattern = "bilateral" if finding.kind == "effusion" and finding.side == "bilateral" else finding.pattern
    return expand(_pick(FINDINGS[finding.kind, pattern], rng), _slots(finding), rng)


def _conclude(finding: Finding, rng: random.Random) -> str:
    kind = "effusion bilateral" if finding.kind == "effusion" and finding.side == "bilateral" else finding.kind
    return expand(_pick(IMPRESSIONS[kind], rng), _slots(finding), rng)


def remarks(case: Case) -> list[str]:
    """Return the names (keys of `wording.REMARKS`) of what else shows on the film, the most conspicuous first."""
    body, technique = case.body, case.technique
    breath = sum(body.domes_mm) / 2
    present = {
        **dict.fromkeys(body.devices, True),
        "scoliosis left": body.scoliosis_mm > 0,
        "scoliosis right": body.scoliosis_mm < 0,
        "collimated": max(technique.shutters_mm) > 9.0,
        "dark": technique.exposure > 0.6,
        "bright": technique.exposure < -0.6,
        "low volumes": breath > 9.0,
        "high volumes": breath < -9.0,
        "rotated left": technique.yaw_deg > 3.0,
        "rotated right": technique.yaw_deg < -3.0,
        "tilted": abs(technique.roll_deg) > 3.2,
        "breasts": body.breast_cm > 1.8,
        "broad": body.width > 1.02,
        "narrow": body.width < 0.92,
        "grainy": technique.noise > 0.0078,
        "small heart": body.heart_mm < -9.5 and not any(f.kind == "cardiomegaly" for f in case.findings),
    }
    return [name for name, shows in present.items() if shows]


def write_report(case: Case) -> str:
    """Write "Findings: ... Impression: ..." for `case`, between `SHORTEST` and `LONGEST` words, determined by the
    case."""
    rng = random.Random(hashlib.blake2b(case.id.encode(), digest_size=8).digest())
    core, impression = _draft(case, rng)
    # Several findings may leave no words for the longest wordings: redraw, and keep the shortest.
    for _ in range(200):
        if _words(" ".join(core + impression)) <= LONGEST - 2:
            break
        other = _draft(case, rng)
        if _words(" ".join(other[0] + other[1])) < _words(" ".join(core + impression)):
            core, impression = other
    left = LONGEST - 2 - _words(" ".join(core + impression))
    opening, left = _optional([expand(_pick(REMARKS[name], rng), {}, rng) for name in remarks(case)[:2]], left)
    denials = _negatives(case, rng, len(CLASSES))
    wanted = 1 + int(3 * rng.random())
    denied, left = _optional(denials[:wanted], left)
    for sentence in denials[wanted:]:
        if LONGEST - left < SHORTEST:
            denied.append(sentence)
            left -= _words(sentence)
    return f"Findings: {'. '.join(opening + core + denied)}. Impression: {'. '.join(impression)}."


def _draft(case: Case, rng: random.Random) -> tuple[list[str], list[str]]:
    if not case.findings:
        return [expand(_pick(NORMAL_FINDINGS, rng), {}, rng)], [expand(_pick(IMPRESSIONS["normal"], rng), {}, rng)]
    return [_describe(finding, rng) for finding in case.findings], [
        _conclude(finding, rng) for finding in case.findings
    ]


def _optional(sentences: list[str], left: int) -> tuple[list[str], int]:
    """Return those sentences, in order, that fit into `left` words, and how many words are left then."""
    kept = []
    for sentence in sentences:
        if _words(sentence) <= left:
            kept.append(sentence)
            left -= _words(sentence)
    return kept, left


def _negatives(case: Case, rng: random.Random, count: int) -> list[str]:
    """Return up to `count` denials, each of kinds that are absent and not yet denied."""
    present = {finding.kind for finding in case.findings}
    options = [(kinds, phrase) for kinds, phrase in NEGATIVES if not present & set(kinds)]
    said: set[str] = set()
    sentences: list[str] = []
    while options and len(sentences) < count:
        kinds, phrase = _pick(options, rng)
        said |= set(kinds)
        sentences.append(expand(phrase, {}, rng))
        options = [(kinds, phrase) for kinds, phrase in options if not said & set(kinds)]
    return sentences


@lru_cache
def write_prompts(kind: str) -> tuple[str, ...]:
    """Write zero-shot prompts for a class of `CLASSES`: small reports over its sides, lobes and severities, no
    chance words.

    Raises ValueError for a kind outside `CLASSES`.
    """
    if kind not in CLASSES:
        raise ValueError(f"kind is {kind!r}; expected one of {CLASSES}")
    rng = random.Random(hashlib.blake2b(f"prompts/{kind}".encode(), digest_size=8).digest())
    prompts: dict[str, None] = {}
    if kind == "normal":
        while len(prompts) < 12:
            parts = [expand(_pick(options, rng), {}, rng) for options in (NORMAL_FINDINGS, IMPRESSIONS["normal"])]
            prompts[f"Findings: {parts[0]}. Impression: {parts[1]}."] = None
    for finding in _variants(kind):
        prompts[f"Findings: {_describe(finding, rng)}. Impression: {_conclude(finding, rng)}."] = None
    return tuple(prompts)


def _variants(kind: str) -> list[Finding]:
    """Return one finding for each side, lobe and severity that `kind` comes in."""
    if kind == "normal":
        return []
    lobes = [("right", lobe) for lobe in LOBES["right"]] + [("left", lobe) for lobe in LOBES["left"]]
    places = {
        "effusion": [("right", ""), ("left", ""), ("bilateral", "")],
        "pneumothorax": [("right", ""), ("left", "")],
        "cardiomegaly": [("midline", "")],
        "oedema": [("bilateral", "")],
    }.get(kind, lobes)
    patterns = {
        "consolidation": ("patchy", "lobar", "lobar"),
        "mass": ("smooth", "spiculated", "smooth"),
        "pneumothorax": ("apical", "simple", "tension"),
        "oedema": ("interstitial", "alveolar", "alveolar"),
        "atelectasis": ("linear", "lobar", "lobar"),
    }.get(kind, ("", "", ""))
    sizes = {"mass": (2.5, 4.0, 6.0), "pneumothorax": (2.0, 4.0, 7.0), "effusion": (4.0, 8.0, 13.0)}.get(
        kind, (5.0, 7.0, 9.0)
    )
    repeats = 6 if len(places) == 1 else 2 if len(places) < 4 else 1
    return [
        Finding(kind, side, lobe, severity, size, pattern, ())
        for _ in range(repeats)
        for side, lobe in places
        for severity, pattern, size in zip(SEVERITIES, patterns, sizes)
        if not (pattern == "linear" and lobe == "upper")
    ]


PROMPTS: dict[str, tuple[str, ...]] = {kind: write_prompts(kind) for kind in CLASSES}
