"""Reads back what a report of the bundled radiographs states, by the very phrases that its generator writes from.

Every phrase of `data.radiographs` becomes a pattern, so that a sentence gives the finding, side, lobe, severity and
size that it was written for; with the exact findings of the case a report is then known to be true or false.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ranjax.data.radiographs import grammar, phrases
from ranjax.data.radiographs.findings import KINDS, SEVERITIES, Finding

ROLES = ("finding", "impression", "normal", "denial", "remark")
_Phrase = tuple[str, tuple[str, ...], str, re.Pattern[str]]
Facts = Sequence[Mapping[str, object]]
"""Findings of a case as its record holds them: kind, side, lobe, severity, size_cm."""


class Reading(NamedTuple):
    """What one sentence says, as one phrase of the grammar.

    Attributes:
      role: one of `ROLES`.
      kinds: the finding that it states, or those that it denies; of a remark its name.
      slots: by name ("side", "place", "size", ...), begin and end in the sentence and the text there.
      pattern: of a finding, the form that its phrase is for.
    """

    role: str
    kinds: tuple[str, ...]
    slots: Mapping[str, tuple[tuple[int, int, str], ...]]
    pattern: str = ""

    def text(self, slot: str) -> str:
        """Return the text in a slot, lower case; "" where the phrase has no such slot."""
        found = self.slots.get(slot, ())
        return found[0][2].lower() if found else ""


class Report(NamedTuple):
    """A report of the grammar: its sentences by section, each with all of its readings."""

    findings: tuple[str, ...]
    impression: tuple[str, ...]

    def text(self) -> str:
        """Return the report as the generator writes it."""
        return f"Findings: {'. '.join(self.findings)}. Impression: {'. '.join(self.impression)}."

    def readings(self) -> Iterator[tuple[str, tuple[Reading, ...]]]:
        """Yield every sentence with its readings."""
        for sentence in self.findings:
            yield sentence, read_sentence(sentence, impression=False)
        for sentence in self.impression:
            yield sentence, read_sentence(sentence, impression=True)


_WHOLE = re.compile(r"Findings: (.*)\. Impression: (.*)\.", re.IGNORECASE | re.DOTALL)
_LEXEMES = re.compile(r"\{(\w+)\}|([()|])|([^{}()|]+)")
_ARTICLE = re.compile(r"\b([Aa]) ")


def read(report: str) -> Report | None:
    """Return a report of the grammar in its sentences; None where one of them is no phrase of it."""
    whole = _WHOLE.fullmatch(report.strip())
    if whole is None:
        return None
    found = Report(*(tuple(part.split(". ")) for part in whole.groups()))
    return found if all(readings for _, readings in found.readings()) else None


@functools.lru_cache(maxsize=1 << 16)
def read_sentence(sentence: str, impression: bool) -> tuple[Reading, ...]:
    """Return all readings of a sentence of either section; none: it is no phrase of the grammar."""
    found = []
    for role, kinds, pattern, expression in _phrases()[impression]:
        match = expression.fullmatch(sentence)
        if match:
            slots: dict[str, list[tuple[int, int, str]]] = {}
            for name, text in match.groupdict().items():
                if text is not None:
                    slots.setdefault(name.rstrip("0123456789"), []).append((*match.span(name), text))
            found.append(Reading(role, kinds, {name: tuple(places) for name, places in slots.items()}, pattern))
    return tuple(found)


@functools.cache
def _phrases() -> tuple[list[_Phrase], list[_Phrase]]:
    """The phrases of the findings, and those of the impression: role, kinds, pattern and expression."""
    findings: list[_Phrase] = [
        ("finding", (kind,), pattern, _expression(phrase))
        for (kind, pattern), listed in phrases.FINDINGS.items()
        for phrase in listed
    ]
    findings += [("normal", (), "", _expression(phrase)) for phrase in phrases.NORMAL_FINDINGS]
    findings += [("denial", tuple(kinds), "", _expression(phrase)) for kinds, phrase in phrases.NEGATIVES]
    findings += [
        ("remark", (name,), "", _expression(phrase)) for name, listed in phrases.REMARKS.items() for phrase in listed
    ]
    impressions: list[_Phrase] = [
        ("normal", (), "", _expression(phrase))
        if name == "normal"
        else ("impression", (name.split()[0],), name.partition(" ")[2], _expression(phrase))
        for name, listed in phrases.IMPRESSIONS.items()
        for phrase in listed
    ]
    return findings, impressions


def _expression(phrase: str) -> re.Pattern[str]:
    """Return the pattern of all texts that `grammar.expand` makes of a phrase."""
    count = iter(range(100))

    def part(match: re.Match[str]) -> str:
        slot, sign, text = match.groups()
        if slot:
            return f"(?P<{slot.lower()}{next(count)}>{'|'.join(map(_choices, slot_values(slot.lower())))})"
        return {"(": "(?:", ")": ")", "|": "|"}[sign] if sign else _literal(text)

    return re.compile(_LEXEMES.sub(part, phrase), re.IGNORECASE)


def _literal(text: str) -> str:
    # The generator makes "a" to "an" where a vowel follows, which may stand in a slot.
    return "an? ".join(re.escape(piece) for piece in _ARTICLE.sub("\0", text).split("\0"))


def _choices(text: str) -> str:
    return "".join(
        {"(": "(?:", ")": ")", "|": "|"}.get(piece) or re.escape(piece) for piece in re.split(r"([()|])", text)
    )


@functools.cache
def slot_values(slot: str) -> tuple[str, ...]:
    """Return what the generator puts into a slot over all findings, choices as it writes them, longest first."""
    every = [
        Finding(kind, side, lobe, severity, size, "", ())
        for kind in KINDS
        for side in ("right", "left", "bilateral", "midline")
        for lobe in ("upper", "middle", "lower", "")
        for severity in SEVERITIES
        for size in (*range(1, len(grammar.NUMBERS) + 1),)
    ]
    # The generator's own table: its file is part of the name of prepared sets, so that it is read here, not changed.
    values = {grammar._slots(finding)[slot] for finding in every} - {""}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def severities(slot: str, text: str) -> frozenset[str]:
    """Return the severities that a word in a slot of `SCALES` may stand for."""
    return frozenset(severity for severity in SEVERITIES if text.lower() in alternatives(scale(slot, severity)))


@functools.cache
def scale(slot: str, severity: str) -> str:
    """Return what the generator puts into a slot of `SCALES` for a severity, choices as it writes them."""
    return grammar._slots(Finding("mass", "left", "", severity, 1.0, "", ()))[slot]


@functools.cache
def alternatives(value: str) -> tuple[str, ...]:
    """Return the texts that the value of a slot may become, e.g. of "(small|little|tiny)"."""
    return tuple(value.strip("()").split("|"))


SCALES = ("size", "degree", "degreely", "density")
"""Slots whose words state a severity."""


def agrees(reading: Reading, facts: Facts) -> bool:
    """Return whether one reading of a sentence holds for a case with these findings, all that it has.

    Remarks on body and technique are no findings, and hold. So does the form of a finding, which records do not keep.
    """
    present = {fact["kind"] for fact in facts}
    if reading.role == "normal":
        return not present
    if reading.role == "denial":
        return not present & set(reading.kinds)
    if reading.role == "remark":
        return True
    return any(_is(reading, fact) for fact in facts if fact["kind"] == reading.kinds[0])


def _is(reading: Reading, fact: Mapping[str, object]) -> bool:
    side, lobe = reading.text("side"), reading.text("lobe")
    if (side and side != fact["side"]) or (lobe and lobe != fact["lobe"]):
        return False
    if reading.pattern == "bilateral" and fact["side"] != "bilateral":
        return False
    place = reading.text("place")
    if place and place not in alternatives(phrases.PLACES[str(fact["lobe"])]):
        return False
    number = reading.text("cm")
    if number and number != grammar._slots(finding_of(fact))["cm"]:
        return False
    words = ((slot, reading.text(slot)) for slot in SCALES)
    return all(fact["severity"] in severities(slot, word) for slot, word in words if word)


def finding_of(fact: Mapping[str, object]) -> Finding:
    """Return the finding of a record; records do not keep its form."""
    kind, side, lobe, severity = (str(fact[name]) for name in ("kind", "side", "lobe", "severity"))
    size = fact["size_cm"]
    assert isinstance(size, (int, float))
    return Finding(kind, side, lobe, severity, float(size), "", ())


def false_sentences(report: Report, facts: Facts) -> list[str]:
    """Return the sentences of a report that do not hold, in any reading, for a case with exactly these findings."""
    return [text for text, readings in report.readings() if not any(agrees(reading, facts) for reading in readings)]
