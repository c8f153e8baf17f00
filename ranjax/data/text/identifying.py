"""Patterns of what could name a person in a report: a regular expression each, and what a match must not be beside.

A date needs a plausible day, month and year; ribs, levels, segments and sizes in rows of numbers look like one and are
told by the words beside them. A pattern never takes a blank before or after what it marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_ENGLISH_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
# Spanish, German, French, Portuguese, Italian.
_OTHER_MONTHS = (
    "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre"
    "|januar|jänner|februar|märz|juni|juli|oktober|dezember"
    "|janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre"
    "|janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro"
    "|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre"
)
_MONTH = rf"(?i:{_ENGLISH_MONTHS}|{_OTHER_MONTHS})\b\.?"
_ORDINAL = r"(?:st|nd|rd|th|º|\.)?"
# Words beside which numbers count or measure something.
_COUNTED = (
    "ribs?|segments?|levels?|vertebrae?|vertebral bod(?:y|ies)|discs?|disks?|spaces?|interspaces?|images?|"
    "slices?|series"
    "|views?|grades?|stages?|versions?|doses?|sizes?|ratios?|scales?|nodules?|measur(?:es|ing|ed)|lobes?|zones?|leads?"
    "|frames?|fields?|ecog|type|score|costae?|costillas?|rippen?|côtes?|segmentos?|segmente?"
)
_COUNTED_BEFORE = re.compile(rf"\b(?:{_COUNTED})\W+(?:(?:of|are|is|at|from|no\.?|number|and|the)\W+)*$", re.IGNORECASE)
_COUNTED_AFTER = re.compile(
    r"\s*-?\s*(?:mm|cm|m|ml|cc|mg|g|kg|hu|kv|hz|french|fr|f|x|%|per cent|percent|mmhg|cmh2o|th|st|nd|rd|"
    rf"s\d|months?|weeks?|days?|hours?|years?|times|units?|{_COUNTED})\b|\s*%|\s*×",
    re.IGNORECASE,
)
_SHARE_AFTER = re.compile(
    r"\s*(?:of\b|to\b|lungs?\b|(?:hemi)?thora|lobes?\b|opaque|films?\b|full\b|way\b)", re.IGNORECASE
)
_RATIO_BEFORE = re.compile(
    r"\b(?:ratios?|dilut\w+|tit(?:er|re)s?|scales?|magnification|mixed|mixture|concentration|"
    r"proportions?)\b[^.]{0,25}$",
    re.IGNORECASE,
)
_CLOCK_BEFORE = re.compile(
    r"(?:\b(?:at|around|about|by|until|till|since|before|after|time|um|à|às|alle|las)|\[DATE\]|@)\W*$", re.IGNORECASE
)
_DATE_BEFORE = re.compile(
    r"\b(?:dated?|on|since|as of|until|(?:compar\w+|comparison)(?: (?:is|was|made))?(?: (?:to|with))?|"
    r"(?:study|film|radiographs?|exam(?:ination)?|ct|x-ray|cxr|prior|scan)(?: (?:of|from|on|dated))?|vom|am|du|"
    r"del)\W+$",
    re.IGNORECASE,
)
_SAID = (
    "signed|dictated|reviewed|read|interpreted|transcribed|approved|verified|attested|reported|finalized|performed"
    "|authenticated|edited|confirmed|entered"
)
_NUMBERED = "mrn|medical record(?: number)?|accession(?: number)?|patient id|ssn|pager|patient number"
# What begins a sentence of a report is no name, least of all a negation; nor does a name go on after a full stop, but
# for an initial's.
_WORDS = (
    "No|Not|None|The|There|This|In|Is|And|With|Without|Findings?|FINDINGS?|Impression|IMPRESSION|Normal|Clear|Heart"
    "|Lungs?|Left|Right|NO|THE|NORMAL|HEART|LUNGS?|LEFT|RIGHT"
)
_PARTICLE = r"(?:(?:van|von|de|der|den|la|le|du|di|da|dos|al|bin)\s+){0,2}"
_NAME = rf"(?!(?:{_WORDS})\b)(?:[A-Z]\.|{_PARTICLE}[A-Z][\w'’-]+)"
# "MR" and "MS" are magnetic resonance and multiple sclerosis, unless a full stop follows.
_TITLE = r"(?:(?:Dr|DR|Drs|DRS|Mr|Mrs|MRS|Ms|Miss|MISS|Prof|PROF|Doctor|DOCTOR|Professor)\b\.?|MR\.|MS\.)"
_ROLE = "(?:patient(?:'s)? )?name|(?:referring |attending )?physician|radiologist|attending|resident|technologist"


class Pattern(NamedTuple):
    """A mark, the expression of what it stands for (a group `kept` in front stays), and a check of what is around."""

    mark: str
    expression: re.Pattern[str]
    accepts: Callable[[re.Match[str]], bool] = lambda match: True


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 60) : match.start()]


def _after(match: re.Match[str]) -> str:
    return match.string[match.end() : match.end() + 30]


def _counts(match: re.Match[str]) -> bool:
    """Return whether the words beside numbers say that they count or measure."""
    return bool(_COUNTED_BEFORE.search(_before(match)) or _COUNTED_AFTER.match(_after(match)))


def _is_date(match: re.Match[str]) -> bool:
    """Return whether three numbers are a day, a month and a year, in the order of any country."""
    separator, parts = match["separator"], [match[name] for name in ("first", "second", "third")]
    year = parts[0] if len(parts[0]) == 4 else parts[2]
    one, other = (int(part) for part in (parts[1:] if len(parts[0]) == 4 else parts[:2]))
    if not (1 <= min(one, other) <= 12 and max(one, other) <= 31 and one * other):
        return False
    if len(year) == 4:
        return 1850 <= int(year) <= 2199
    padded = all(len(part) == 2 for part in parts)
    if len(year) != 2 or _counts(match) or (separator == "." and not (padded or _DATE_BEFORE.search(_before(match)))):
        return False
    counted_up = int(year) - other == other - one == 1
    return not counted_up or bool(_DATE_BEFORE.search(_before(match)))


def _is_day(match: re.Match[str]) -> bool:
    """Return whether two numbers behind a word such as "dated" are a month and a day."""
    one, other = int(match["first"]), int(match["second"])
    plausible = 1 <= min(one, other) <= 12 and max(one, other) <= 31
    about = _DATE_BEFORE.search(_before(match)) and not _SHARE_AFTER.match(_after(match))
    return bool(plausible and about) and not _counts(match)


def _is_month_and_day(match: re.Match[str]) -> bool:
    """Return whether a month's name and a number are a date: "May 3 lesions ..." is none."""
    if match["month"][:3].lower() == "may" and not _DATE_BEFORE.search(_before(match)):
        return False
    return match["month"][0].isupper() and not _COUNTED_AFTER.match(_after(match))


def _is_time(match: re.Match[str]) -> bool:
    if match["suffix"]:
        return True
    clock = bool(_CLOCK_BEFORE.search(_before(match)))
    if _RATIO_BEFORE.search(_before(match)):
        return False
    return clock or match["hour"] != "1"


def _is_phone(match: re.Match[str]) -> bool:
    return not _COUNTED_AFTER.match(_after(match))


def _patterns() -> Iterator[Pattern]:
    def add(mark: str, expression: str, accepts: Callable[[re.Match[str]], bool] = lambda match: True) -> Pattern:
        return Pattern(f"[{mark}]", re.compile(expression), accepts)

    yield add("MAIL", r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
    yield add("LINK", r"\b(?:https?://|www\.)[^\s<>\"]*[^\s<>\".,;:!?)\]]")
    # One separator throughout: "2.5-3.5 cm" is a measure.
    three = r"(?P<first>\d{4}|\d{1,2})(?P<separator>[-/.])(?P<second>\d{1,2})(?P=separator)(?P<third>\d{4}|\d{1,2})"
    yield add("DATE", rf"(?<![\w.])(?<![\d]-)(?<!\d/){three}(?![\w]|[-/.]\d)", _is_date)
    yield add("DATE", rf"\b(?:{_MONTH})\s+\d{{1,2}}{_ORDINAL},?\s+(?:\d{{4}}|'\d{{2}})\b")
    yield add(
        "DATE",
        rf"\b\d{{1,2}}{_ORDINAL}(?:[\s-]+(?:of|de|di)\b)?[\s-]+{_MONTH},?(?:\s+de\b)?[\s-]+\d{{2,4}}\b(?!\s*(?:mm|"
        rf"cm))",
    )
    yield add("DATE", rf"\b{_MONTH},?(?:\s+(?:of|de))?\s+(?:19|20)\d{{2}}\b")
    yield add(
        "DATE", rf"\b(?P<month>{_MONTH})\s+(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?\b(?![:.]\d)", _is_month_and_day
    )
    yield add("DATE", rf"\b(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)\s+(?:of\s+)?(?i:{_ENGLISH_MONTHS})\b")
    yield add("DATE", r"(?<![\w./-])(?P<first>\d{1,2})/(?P<second>\d{1,2})(?![\w]|[-/.]\d)", _is_day)
    suffix = r"(?P<suffix>\s*(?:[AaPp]\.\s?[Mm]\.|[AaPp]\.?[Mm]\b|(?:hrs?|h|Uhr)\b))?"
    yield add("TIME", rf"(?<![\w:.])(?P<hour>[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![:\d]|\.\d){suffix}", _is_time)
    yield add(
        "PHONE",
        r"(?<![\w+])(?:\+\d{1,3}[ .-]?)?(?:\([2-9]\d{2}\)|[2-9]\d{2}[ .-])[ .-]?\d{3}[ .-]?\d{4}(?!\d)",
        _is_phone,
    )
    yield add("PHONE", r"(?<!\w)\+\d{1,3}(?:[ .-]?\(?\d{2,5}\)?){2,4}(?!\d)")
    yield add("ID", rf"\b(?i:{_NUMBERED})\b\W{{0,3}}[\w-]*\d[\w-]*")
    yield add("ID", r"\b\d{3}-\d{2}-\d{4}\b")
    yield add("ID", r"\b\d{6,}\b")
    yield add("NAME", rf"\b{_TITLE}\s+{_NAME}(?:\s*{_NAME}){{0,2}}")
    yield add("NAME", rf"(?i:\b(?:{_SAID}) by)[\s:]+{_NAME}(?:[ ,]*{_NAME}){{0,3}}")
    yield add("NAME", rf"(?P<kept>\b(?i:{_ROLE})\s*:\s*){_NAME}(?:[ ,]*{_NAME}){{0,3}}")
    old = r"(?:9\d|1[0-2]\d)"
    yield add(
        "AGE",
        rf"\b{old}(?=[\s-]*(?:y\.?\s?/?o\.?(?!\w)|(?:years?|yrs?)[\s-]old|(?:years?|yrs?) of age|jährig|ans\b|"
        rf"años\b))",
    )
    yield add("AGE", rf"(?P<kept>(?i:\bage[d:]?)\s*(?:of|is|:)?\s*){old}\b(?!\s*(?:%|cm|mm))")


PATTERNS: tuple[Pattern, ...] = tuple(_patterns())
"""In the order in which they are tried; a text that one has marked is not looked at by the next."""


def mark(text: str) -> tuple[str, int]:
    """Return the text with marks such as [DATE] in place of what the patterns find, and how many were set."""
    count = 0

    for pattern in PATTERNS:

        def replaced(match: re.Match[str], pattern: Pattern = pattern) -> str:
            nonlocal count
            if not pattern.accepts(match):
                return match[0]
            count += 1
            return (match["kept"] if "kept" in pattern.expression.groupindex else "") + pattern.mark

        text = pattern.expression.sub(replaced, text)
    return text, count
