"""Patterns of what could name a person in a report: a regular expression each, and what a match must not be beside.

A date needs a plausible day, month and year; ribs, levels, segments and sizes in rows of numbers look like one and are
told by the words beside them. A pattern never takes a blank before or after what it marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ranjax.data.text.identifying_words import (
    BESIDE,
    CLOCK_BEFORE,
    COUNTED_AFTER,
    DATE_BEFORE,
    DEGREE,
    ENGLISH_MONTHS,
    FILED,
    FROM,
    FULL,
    MEASURED,
    MONTH,
    MORE,
    NAME,
    NEAR,
    NO_CLOCK_AFTER,
    NUMBER_WORD,
    NUMBERED,
    ORDINAL,
    PERSON,
    QUANTITY_BEFORE,
    RATIO_BEFORE,
    ROLE,
    SAID,
    SHARE_AFTER,
    STUDY_AFTER,
    STUDY_BEFORE,
    TITLE,
    TOKEN,
    TOLD,
)


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
    return _is_measured(match) or bool(BESIDE.search(_before(match)) or COUNTED_AFTER.match(_after(match)))


def _is_measured(match: re.Match[str]) -> bool:
    return bool(MEASURED.match(_after(match)))


def _is_date(match: re.Match[str]) -> bool:
    """Return whether three numbers are a day, a month and a year, in the order of any country."""
    separator, parts = match["separator"], [match[name] for name in ("first", "second", "third")]
    year = parts[0] if len(parts[0]) == 4 else parts[2]
    one, other = (int(part) for part in (parts[1:] if len(parts[0]) == 4 else parts[:2]))
    if not (1 <= min(one, other) <= 12 and max(one, other) <= 31 and one * other):
        return False
    if len(year) == 4:
        return 1850 <= int(year) <= 2199
    if len(year) != 2 or _is_measured(match):
        return False
    if DATE_BEFORE.search(_before(match)) or (separator == "/" and FROM.search(_before(match))):
        return True
    padded = all(len(part) == 2 for part in parts)
    counted = NEAR.search(_before(match)) or COUNTED_AFTER.match(_after(match))
    counted_up = int(year) - other == other - one == 1
    return not (counted or counted_up or (separator == "." and not padded))


def _is_day(match: re.Match[str]) -> bool:
    """Return whether two numbers beside a word such as "dated" or "study" are a month and a day."""
    one, other = int(match["first"]), int(match["second"])
    plausible = 1 <= min(one, other) <= 12 and max(one, other) <= 31
    told = STUDY_AFTER.match(_after(match)) or (
        DATE_BEFORE.search(_before(match)) and not STUDY_BEFORE.search(_before(match))
    )
    return bool(plausible and told) and not SHARE_AFTER.match(_after(match)) and not _counts(match)


def _is_month_and_year(match: re.Match[str]) -> bool:
    return not _counts(match)


def _is_compact(match: re.Match[str]) -> bool:
    """Return whether eight digits behind a word such as "dated" are a year, a month and a day."""
    return bool(DATE_BEFORE.search(_before(match)) or STUDY_AFTER.match(_after(match)))


def _is_month_and_day(match: re.Match[str]) -> bool:
    """Return whether a month's name and a number are a date: "May 3 lesions ..." is none."""
    told = bool(DATE_BEFORE.search(_before(match)))
    month = match["month"].lower().rstrip(".")
    if month == "may" and not told:
        return False
    written = match["month"][0].isupper() or (told and not re.fullmatch(ENGLISH_MONTHS, month))
    return written and not _counts(match)


def _is_time(match: re.Match[str]) -> bool:
    if match["suffix"]:
        return True
    if RATIO_BEFORE.search(_before(match)) or NO_CLOCK_AFTER.match(_after(match)):
        return False
    return bool(CLOCK_BEFORE.search(_before(match))) or match["hour"] != "1"


def _is_number_of_record(match: re.Match[str]) -> bool:
    return not (_is_measured(match) or QUANTITY_BEFORE.search(_before(match)))


def _has_digits(least: int) -> Callable[[re.Match[str]], bool]:
    return lambda match: sum(c.isdigit() for c in match["token"]) >= least


def _is_no_temperature(match: re.Match[str]) -> bool:
    return not re.search(r"\b(?:temp\w*|fever\w*|febrile|t(?:max)?)\W+(?:\w+\W+){0,2}$", _before(match), re.IGNORECASE)


def _patterns() -> Iterator[Pattern]:
    def add(mark: str, expression: str, accepts: Callable[[re.Match[str]], bool] = lambda match: True) -> Pattern:
        return Pattern(f"[{mark}]", re.compile(expression), accepts)

    yield add("MAIL", r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
    yield add("LINK", r"\b(?:(?:https?|ftp)://|www\.)[^\s<>\"]*[^\s<>\".,;:!?)\]]")
    yield add(
        "LINK",
        r"(?<![\w@.])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|info|eu|co\.uk|"
        r"ac\.uk)\b(?:[/:][^\s<>\"]*[^\s<>\".,;:!?)\]])?",
    )
    yield from _dates(add)
    yield from _times(add)
    yield from _numbers(add)
    yield from _names(add)
    old, unit = r"(?:9\d|1[0-2]\d)", r"(?:y(?:ea)?rs?|y)\.?"
    yield add(
        "AGE",
        rf"(?<![\w.]){old}(?=[\s-]*(?:y\.?\s?/?o\.?(?!\w)|{unit}[\s-]*old\b|{unit}\s+of\s+age|jährig|Jahre alt|ans\b|"
        r"años\b|anni\b|anos\b))",
    )
    yield add(
        "AGE",
        rf"(?<![\w.]){old}(?=[FM](?:\s+(?:with|w/|s/p|c/o|who|presents?|after|status)\b|,|\.))",
        _is_no_temperature,
    )
    yield add("AGE", rf"(?P<kept>\b(?i:wom[ae]n|m[ae]n|male|female|patient|lady|gentleman) of\s+){old}(?=\s+years\b)")
    yield add(
        "AGE",
        rf"(?P<kept>(?i:\b(?:age[ds]?|alter|edad|âge|età|idade)\b)\s*(?:of|is|:)?\s*){old}\b"
        r"(?!\s*(?:%|(?:cm|mm|minutes?|hours?|days?|weeks?|months?)\b))",
    )


Adds = Callable[..., Pattern]


def _dates(add: Adds) -> Iterator[Pattern]:
    # One separator throughout: "2.5-3.5 cm" is a measure.
    clock = r"(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?"
    three = r"(?P<first>\d{4}|\d{1,2})(?P<separator>[-–/.])(?P<second>\d{1,2})(?P=separator)(?P<third>\d{4}|\d{1,2})"
    yield add("DATE", rf"(?<![\w.])(?<![\d]-)(?<!\d/){three}{clock}(?![\w]|[-/.]\d)", _is_date)
    spaced = r"(?P<first>\d{1,2})\s*(?P<separator>[-–/.])\s+(?P<second>\d{1,2})\s*(?P=separator)\s+(?P<third>\d{4})"
    yield add("DATE", rf"(?<![\w./-]){spaced}(?![\w]|[-/.]\d)", _is_date)
    blank = r"(?P<first>\d{1,2})(?P<separator> )(?P<second>\d{1,2}) (?P<third>(?:19|20)\d{2})"
    yield add(
        "DATE",
        rf"(?<![\w./-])(?<!\d ){blank}(?![\w]|[-/.]\d| \d)",
        lambda match: _is_date(match) and not _counts(match),
    )
    yield add("DATE", rf"\b{MONTH}(?P<joint>[-/])\d{{1,2}}(?P=joint)(?:\d{{4}}|\d{{2}})(?![\w/-])")
    yield add("DATE", rf"\b(?:{MONTH})\s+\d{{1,2}}{ORDINAL},?\s+(?:\d{{4}}|['’]\d{{2}})\b")
    yield add(
        "DATE",
        rf"\b\d{{1,2}}{ORDINAL}(?:[\s-]+(?:of|de|di)\b)?[\s/-]+{MONTH},?(?:\s+de\b)?[\s/-]+['’]?\d{{2,4}}\b"
        r"(?!\s*(?:mm|cm))",
    )
    yield add("DATE", rf"\b\d{{1,2}}(?i:{ENGLISH_MONTHS})\d{{2,4}}\b")
    yield add("DATE", rf"\b{MONTH},?(?:\s+(?:of|de))?[\s/-]+(?:19|20)\d{{2}}\b")
    yield add("DATE", rf"\b{MONTH}(?:\s+['’]|-['’]?)\d{{2}}\b")
    yield add(
        "DATE", rf"\b(?P<month>{MONTH})\s+(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?\b(?![:.]\d)", _is_month_and_day
    )
    yield add("DATE", rf"\b(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)\s+(?:of\s+)?(?i:{ENGLISH_MONTHS})\b")
    yield add("DATE", rf"(?<![\w./-])(?:[12]\d|3[01]|0?[1-9])\.?\s+(?:de\s+)?(?P<month>{MONTH})", _is_month_and_day)
    yield add("DATE", r"(?<![\w./-])(?:0?[1-9]|1[0-2])[/-](?:19|20)\d{2}(?![\w/-]|\.\d)", _is_month_and_year)
    yield add("DATE", r"(?<![\w./-])(?:19|20)\d{2}[/-](?:0[1-9]|1[0-2])(?![\w/-]|\.\d)", _is_month_and_year)
    yield add("DATE", r"(?<![\w./-])(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\w/-]|\.\d)", _is_compact)
    yield add("DATE", r"(?<![\w./-])(?P<first>\d{1,2})/(?P<second>\d{1,2})(?![\w]|[-/.]\d)", _is_day)


def _times(add: Adds) -> Iterator[Pattern]:
    half = r"\s*(?:[AaPp]\.\s?[Mm]\.|[AaPp]\.?[Mm]\b)"
    suffix = rf"(?P<suffix>{half}|\s*(?:hrs?|h|Uhr)\b)?"
    yield add("TIME", rf"(?<![\w:.])(?P<hour>[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![:\d]|\.\d){suffix}", _is_time)
    yield add("TIME", rf"(?<![\w:./-])(?:1[0-2]|0?[1-9]){half}")
    yield add("TIME", r"(?<![\w:./-])(?:[01]\d|2[0-3])[0-5]\d\s*(?:(?i:hours|hrs?)\b|h\b|Uhr)")
    yield add("TIME", r"(?<![\w:./-])(?:[01]?\d|2[0-3])(?:[.:][0-5]\d)?\s*Uhr\b")
    yield add("TIME", r"(?<![\w:./-])(?:[01]?\d|2[0-3])\s?h\s?[0-5]\d\b")
    yield add("TIME", r"(?P<kept>\b(?i:at) )(?:[01]\d|2[0-3])[0-5]\d(?=\s+(?:on|today|by)\b)")


def _numbers(add: Adds) -> Iterator[Pattern]:
    more = r"(?:,?\s*(?i:ext\.?|extension|x)\s*\d{2,5}\b)?"
    yield add(
        "PHONE",
        r"(?<![\w+])(?:\+?\d{1,3}[ .-])?(?:\([2-9]\d{2}\)[ .-]?\d{3}[ .-]?\d{4}|"
        r"[2-9]\d{2}(?P<joint>[ .-])\d{3}(?:(?P=joint)|-)\d{4})(?!\d)" + more,
        lambda match: (
            not (_counts(match) or QUANTITY_BEFORE.search(_before(match)))
            and not re.search(rf"\b(?i:{NUMBERED}|{FILED})\W*(?i:{NUMBER_WORD})?\W*$", _before(match))
        ),
    )
    yield add("PHONE", r"(?<!\w)\+\d{1,3}(?:[ .-]?\(?\d{2,5}\)?){2,4}(?!\d)" + more)
    yield add(
        "PHONE",
        r"(?P<kept>\b(?i:tel(?:ephone|efono|éfono|efon|efone)?|tél(?:éphone)?|(?:tele)?phone(?: number)?|fon|fax|"
        r"cell|mobile|"
        r"handy|call(?: back)?|contact)\b(?: at)?[.:]?\s*)(?P<token>\+?\(?\d[\d ()./-]{4,}\d)\b" + more,
        _has_digits(6),
    )
    yield add("PHONE", r"\b(?:(?i:ext(?:ension)?\.?)\s?|x)\d{4,5}\b")
    between = rf"\W{{0,3}}(?:{NUMBER_WORD})?\W{{0,4}}"
    yield add("ID", rf"\b(?i:{NUMBERED})(?!\w)(?i:{between})(?P<token>{TOKEN}){MORE}")
    yield add(
        "ID", rf"\b(?i:{FILED})[ .-]*(?i:{NUMBER_WORD})\W{{0,3}}(?P<token>(?:[A-Z] )?{TOKEN}{MORE})", _has_digits(3)
    )
    yield add("ID", r"(?<![\d.])\d+(?:\.\d+){5,}(?!\d)")
    yield add("ID", r"\b\d{3}-\d{2}-\d{4}\b")
    yield add("ID", r"\b[A-Z]{1,3}-?\d{6,}\b")
    yield add("ID", r"(?<![\d.,])\b\d{6,}\b", _is_number_of_record)


def _names(add: Adds) -> Iterator[Pattern]:
    yield add(
        "NAME", rf"\b(?:{TITLE})+{NAME}(?:\s*{NAME}){{0,2}}(?:(?<=\w)\s+(?:and|und|et|y|e)\s+{NAME}(?=\s*\b[a-z]))?"
    )
    yield add("NAME", rf"(?i:\b(?:{SAID})(?:\s+electronically)? by)[\s:]+{NAME}(?:[ ,]*{NAME}){{0,3}}")
    yield add("NAME", rf"(?i:\b(?:electronically |e-)?signed(?: electronically)?\s*:)\s*{NAME}(?:[ ,]*{NAME}){{0,3}}")
    yield add("NAME", rf"(?P<kept>\b(?i:{ROLE})\s*:\s*){NAME}(?:[ ,^]*{NAME}){{0,3}}")
    yield add("NAME", rf"(?P<kept>\b(?i:patient|pt)\s*:\s*)(?:{FULL}|{NAME}\s*[,^]\s*{NAME})")
    yield add("NAME", rf"(?<!\w){NAME}(?:\s+{NAME}){{0,3}}(?:{DEGREE})+")
    yield add("NAME", rf"(?P<kept>\b(?i:{PERSON}|(?:patient|pt)(?:'s)? name)\s+)(?:{FULL})")
    yield add("NAME", rf"(?P<kept>\b(?i:{TOLD})(?: (?:to|with|by|results?|findings))*\s+)(?:{FULL})")


PATTERNS: tuple[Pattern, ...] = tuple(_patterns())
"""In the order in which they are tried; a text that one has marked is not looked at by the next."""


def mark(text: str) -> tuple[str, int]:
    """Return the text with marks such as [DATE] in place of what the patterns find, and how many were set."""
    count = 0
    for pattern in PATTERNS:
        parts, end = [], 0
        for match in filter(pattern.accepts, pattern.expression.finditer(text)):
            kept = match["kept"] if "kept" in pattern.expression.groupindex else ""
            parts += [text[end : match.start()], kept, pattern.mark]
            end = match.end()
            count += 1
        text = "".join(parts) + text[end:]
    return text, count
