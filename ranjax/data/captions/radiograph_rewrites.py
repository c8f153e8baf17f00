"""Rewrites reports of the bundled radiographs by their own grammar, so that they no longer fit their findings.

Words of side, place and severity are exchanged where they stand, in findings and impression alike. Another condition,
its absence or presence is written by the generator's own phrases; denials that would contradict the new text deny what
the case has instead. Each result is a report of the grammar, and false for the exact findings.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ranjax.data.captions import radiograph_reading as reading
from ranjax.data.captions.agreement import in_case_of, mend_articles
from ranjax.data.captions.radiograph_reading import Facts, Reading, Report
from ranjax.data.captions.rewrite import Change, Rewrite, shuffled, varied
from ranjax.data.radiographs import grammar, phrases, sampling
from ranjax.data.radiographs.findings import KINDS, LOBES, SEVERITIES, Finding

LATERAL = ("consolidation", "mass", "effusion", "pneumothorax", "atelectasis")
IN_A_LOBE = ("consolidation", "mass", "atelectasis")
_WORDINGS = 2
"""Wordings of each other condition that are offered."""


class _Stated(NamedTuple):
    """A report, and all findings that it states."""

    report: Report
    findings: tuple[Finding, ...]


def rewrites(report: str, facts: Facts | None, rng: random.Random, changes: int, count: int) -> list[Rewrite] | None:
    """Return at most `count` false forms of a report, of at most `changes` exchanges each.

    None: the report is not of the grammar.

    Args:
      report: as the generator wrote it.
      facts: the exact findings of the case; None: those that the report states.
      rng: decides wordings and order.
      changes, count: bounds.
    """
    read = reading.read(report)
    if read is None:
        return None
    stated = _Stated(read, _findings(read, facts))
    truth = facts if facts is not None else [_fact(finding) for finding in stated.findings]
    forms = [(form, (change,)) for form, change in _changed(stated, rng) if _is_false(form.report, read, truth)]
    found = varied([Rewrite(form.report.text(), made) for form, made in forms], count, rng)
    if changes == 1 or not forms:
        return found
    # One form in four holds several exchanges.
    several: list[Rewrite] = []
    for number in range(max(1, count // 4)):
        form, made = forms[int(rng.random() * len(forms))]
        for _ in range(1 + number % (changes - 1)):
            options = ((new, change) for new, change in _changed(form, rng, first=True) if _is_new(change, made))
            if (step := next(options, None)) is not None:
                form, made = step[0], (*made, step[1])
        if len(made) > 1 and _is_false(form.report, read, truth):
            several.append(Rewrite(form.report.text(), made))
    return varied([*found[: count - len(several)], *several], count, rng)


def _is_new(change: Change, before: tuple[Change, ...]) -> bool:
    # What one exchange set, another does not set again.
    return all(change.what != made.what and change.before != made.after for made in before)


def _is_false(report: Report, original: Report, truth: Facts) -> bool:
    written = reading.read(report.text())
    return written is not None and report != original and bool(reading.false_sentences(written, truth))


def _fact(finding: Finding) -> dict[str, object]:
    return {name: getattr(finding, name) for name in ("kind", "side", "lobe", "severity", "size_cm")}


def _findings(report: Report, facts: Facts | None) -> tuple[Finding, ...]:
    """The findings of a report, from the record or, where there is none, as far as its sentences tell them."""
    if facts is not None:
        return tuple(reading.finding_of(fact) for fact in facts)
    by_kind: dict[str, list[Reading]] = {}
    for _, readings in report.readings():
        for one in readings[:1]:
            if one.role in ("finding", "impression"):
                by_kind.setdefault(one.kinds[0], []).append(one)
    return tuple(_finding_of(kind, readings) for kind, readings in by_kind.items())


def _finding_of(kind: str, readings: Sequence[Reading]) -> Finding:
    def first(slot: str) -> str:
        return next((one.text(slot) for one in readings if one.text(slot)), "")

    side = {"cardiomegaly": "midline", "oedema": "bilateral"}.get(kind, first("side") or "bilateral")
    lobe = first("lobe") or next((name for name, value in phrases.PLACES.items() if _names(value, first("place"))), "")
    possible = set(SEVERITIES)
    for one in readings:
        for scale in reading.SCALES:
            possible &= reading.severities(scale, one.text(scale)) if one.text(scale) else possible
    severity = next(name for name in (*SEVERITIES[1:2], *SEVERITIES) if name in possible or not possible)
    size = grammar.NUMBERS.index(first("cm")) + 1.0 if first("cm") else _size(kind, severity)
    return Finding(kind, side, lobe, severity, size, "", ())


def _names(value: str, place: str) -> bool:
    return bool(place) and place in reading.alternatives(value)


def _size(kind: str, severity: str) -> float:
    low, high = sampling.SIZES[kind][SEVERITIES.index(severity)]
    return round(low + high) / 2


def _changed(stated: _Stated, rng: random.Random, first: bool = False) -> Iterator[tuple[_Stated, Change]]:
    """Yield what one exchange makes of a report, in a drawn order; with `first`, one of each kind of exchange."""
    makers = [_other_side, _other_place, _other_severity, _other_condition, _absent]
    pairs = [(finding, make) for finding in stated.findings for make in makers]
    for _, number in sorted((rng.random(), number) for number in range(len(pairs))):
        finding, make = pairs[number]
        yield from itertools.islice(make(stated, finding, rng), 1 if first else None)
    if not stated.findings:
        yield from _present(stated, rng)


# Words exchanged where they stand.

_Slots = dict[str, Callable[[str], str]]
"""By the name of a slot, the text that takes the place of the one there."""


def _other_side(stated: _Stated, finding: Finding, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    if finding.side in LOBES:
        side = "left" if finding.side == "right" else "right"
        lobe = finding.lobe if not finding.lobe or finding.lobe in LOBES[side] else "lower"
        slots: _Slots = {"side": lambda text: side, "other": lambda text: finding.side}
        slots |= _places(lobe) if lobe != finding.lobe else {}
        yield from _exchanged(stated, finding, replace(finding, side=side, lobe=lobe), slots, "side")


def _other_place(stated: _Stated, finding: Finding, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    if finding.kind in IN_A_LOBE and finding.side in LOBES:
        for lobe in LOBES[finding.side]:
            if lobe != finding.lobe:
                yield from _exchanged(stated, finding, replace(finding, lobe=lobe), _places(lobe), "place")


def _other_severity(stated: _Stated, finding: Finding, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    for severity in SEVERITIES:
        if severity != finding.severity:
            slots: _Slots = {scale: _on_scale(scale, severity) for scale in reading.SCALES}
            yield from _exchanged(stated, finding, replace(finding, severity=severity), slots, "severity")


def _places(lobe: str) -> _Slots:
    def place(text: str) -> str:
        listed = next(value for value in phrases.PLACES.values() if _names(value, text.lower()))
        return _counterpart(text, listed, phrases.PLACES[lobe])

    return {"lobe": lambda text: lobe, "place": place}


def _on_scale(scale: str, severity: str) -> Callable[[str], str]:
    def word(text: str) -> str:
        listed = next(value for value in reading.slot_values(scale) if text.lower() in reading.alternatives(value))
        return _counterpart(text, listed, reading.scale(scale, severity))

    return word


def _counterpart(text: str, listed: str, other: str) -> str:
    """The text at the same place of another list of alternatives."""
    options = reading.alternatives(other)
    return options[reading.alternatives(listed).index(text.lower()) % len(options)]


def _exchanged(
    stated: _Stated, before: Finding, after: Finding, slots: _Slots, what: str
) -> Iterator[tuple[_Stated, Change]]:
    """Yield the report with the slots of one finding's sentences filled anew, where that changes what it says."""
    words: dict[tuple[str, str], None] = {}

    def of_section(sentences: tuple[str, ...], impression: bool) -> tuple[str, ...]:
        return tuple(_filled(sentence, impression, before.kind, slots, words) for sentence in sentences)

    report = Report(of_section(stated.report.findings, False), of_section(stated.report.impression, True))
    if words:
        findings = tuple(after if finding == before else finding for finding in stated.findings)
        change = Change(what, *(", ".join(listed) for listed in zip(*words)))
        yield _Stated(report, findings), change


def _filled(sentence: str, impression: bool, kind: str, slots: _Slots, words: dict[tuple[str, str], None]) -> str:
    own = [one for one in reading.read_sentence(sentence, impression) if one.kinds == (kind,)]
    own = [one for one in own if one.role in ("finding", "impression")]
    if not own:
        return sentence
    places = [(place, slots[slot]) for slot in own[0].slots if slot in slots for place in own[0].slots[slot]]
    for (start, end, text), fill in sorted(places, key=lambda item: -item[0][0]):
        new = in_case_of(fill(text), text)
        if new.lower() != text.lower():
            words[text.lower(), new.lower()] = None
        sentence = sentence[:start] + new + sentence[end:]
    return mend_articles(sentence)


# Sentences written anew.


def _other_condition(stated: _Stated, finding: Finding, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    for kind in shuffled([kind for kind in KINDS if all(kind != other.kind for other in stated.findings)], rng):
        for _ in range(_WORDINGS):
            new = _drawn(kind, finding.side, finding.lobe, finding.severity, rng)
            yield _Stated(*_written(stated, finding, new, rng)), Change("condition", finding.kind, kind)


def _absent(stated: _Stated, finding: Finding, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    yield _Stated(*_written(stated, finding, None, rng)), Change("presence", finding.kind, f"no {finding.kind}")


def _present(stated: _Stated, rng: random.Random) -> Iterator[tuple[_Stated, Change]]:
    for kind in shuffled(KINDS, rng):
        for _ in range(_WORDINGS):
            new = _drawn(kind, "", "", SEVERITIES[int(rng.random() * 3)], rng)
            yield _Stated(*_written(stated, None, new, rng)), Change("presence", "normal", kind)


def _drawn(kind: str, side: str, lobe: str, severity: str, rng: random.Random) -> Finding:
    """A finding of a kind, with the side, place and severity of another as far as the kind has them."""
    if kind not in LATERAL:
        side = "midline" if kind == "cardiomegaly" else "bilateral"
    elif side not in LOBES:
        side = "right" if rng.random() < 0.5 else "left"
    if kind not in IN_A_LOBE:
        lobe = ""
    elif lobe not in LOBES[side]:
        lobe = LOBES[side][int(rng.random() * len(LOBES[side]))]
    pattern = sampling._pattern(kind, severity, lobe, rng.random())
    lobe = "lower" if pattern == "linear" and lobe == "upper" else lobe
    return Finding(kind, side, lobe, severity, _size(kind, severity), pattern, ())


def _written(
    stated: _Stated, old: Finding | None, new: Finding | None, rng: random.Random
) -> tuple[Report, tuple[Finding, ...]]:
    """A report whose sentences on one finding, or that all is normal, speak of another; None: of none."""
    findings = tuple(f for f in (*(f for f in stated.findings if f != old), new) if f is not None)
    present = {finding.kind for finding in findings}
    gone = {"finding": old.kind, "impression": old.kind} if old else {"normal": ""}
    sections: list[tuple[str, ...]] = []
    for impression, sentences in enumerate(stated.report):
        kept: list[str] = []
        for sentence in sentences:
            readings = reading.read_sentence(sentence, bool(impression))
            one = readings[0]
            if one.role in gone and one.kinds[:1] == ((gone[one.role],) if old else ()):
                kept += _instead(new, bool(impression), bool(findings), rng)
            elif one.role == "denial" and present & set(one.kinds):
                kept += _denial(old, present, kept, rng)
            else:
                kept.append(sentence)
        sections.append(tuple(kept))
    return Report(*sections), findings


def _instead(new: Finding | None, impression: bool, ill: bool, rng: random.Random) -> list[str]:
    if new is not None:
        return [(grammar._conclude if impression else grammar._describe)(new, rng)]
    normal = phrases.IMPRESSIONS["normal"] if impression else phrases.NORMAL_FINDINGS
    return [] if ill else [grammar.expand(normal[int(rng.random() * len(normal))], {}, rng)]


def _denial(old: Finding | None, present: set[str], said: Sequence[str], rng: random.Random) -> list[str]:
    """A denial of the finding that is gone, where there was one, in the place of one that no longer holds."""
    options = [phrase for kinds, phrase in phrases.NEGATIVES if old and old.kind in kinds and not present & set(kinds)]
    if not options:
        return []
    sentence = grammar.expand(options[int(rng.random() * len(options))], {}, rng)
    return [] if sentence in said else [sentence]
