"""The exchangeable terms of keyword_terms.toml: what stands for what, and on which condition of number."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ranjax.core.files import read_toml

_STORED = read_toml("ranjax.data.captions", "keyword_terms.toml")
SIDES = {"left": "right", "leftward": "rightward", "left-sided": "right-sided", "levoscoliosis": "dextroscoliosis"}


class Exchange(NamedTuple):
    """A term, and the terms that say something else in its place: of the same category and grammatical number."""

    what: str
    term: str
    others: tuple[str, ...]


@functools.cache
def exchanges() -> Mapping[str, tuple[Exchange, ...]]:
    """Return what may be exchanged, by the term in lower case."""
    found: dict[str, list[Exchange]] = {}
    for exchange in (*_sides(), *_conditions(), *_places(), *_severities(), *_devices(), *_observations()):
        if exchange.others:
            found.setdefault(exchange.term, []).append(exchange)
    return {term: tuple(listed) for term, listed in found.items()}


@functools.cache
def pattern() -> re.Pattern[str]:
    """Return the expression that finds every exchangeable term, the longest first, as whole words."""
    terms = sorted(exchanges(), key=lambda term: (-len(term), term))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, terms))})(?![\w-])", re.IGNORECASE)


@functools.cache
def counted() -> frozenset[str]:
    """Return the conditions in the singular that take an article."""
    return frozenset(pair[0] for pair in _terms("counted"))


@functools.cache
def conditions() -> frozenset[str]:
    """Return all conditions in all their forms."""
    return frozenset([*itertools.chain.from_iterable(_terms("counted")), *_terms("uncounted")])


@functools.cache
def finding_words() -> tuple[str, ...]:
    """Return the words by which reports state findings or normality: of conditions and of contrary sayings."""
    sayings = (text for pairs in _STORED["observations"].values() for pair in pairs for text in pair)
    return tuple(sorted({word for text in (*conditions(), *sayings) for word in text.split()}))


@functools.cache
def device_words() -> tuple[str, ...]:
    """Return the words by which reports name devices."""
    return tuple(sorted({word for group in _STORED["devices"].values() for term in group for word in term.split()}))


def _terms(number: str) -> Iterator[Any]:
    """Yield the conditions of all parts of the body: [singular, plural] of "counted", a text of "uncounted"."""
    for region in _STORED["conditions"].values():
        for terms in region[number].values():
            yield from terms


def _overlap(family: str, other: str) -> bool:
    return family == other or any(family in joined and other in joined for joined in _STORED["overlaps"].values())


def _sides() -> Iterator[Exchange]:
    for one, other in SIDES.items():
        yield Exchange("side", one, (other,))
        yield Exchange("side", other, (one,))


def _conditions() -> Iterator[Exchange]:
    for region in _STORED["conditions"].values():
        for number in ("counted", "uncounted"):
            rows = [(family, term) for family, terms in region[number].items() for term in terms]
            for family, term in rows:
                # Of each other family its first term.
                firsts = {name: terms[0] for name, terms in region[number].items() if not _overlap(family, name)}
                if number == "uncounted":
                    yield Exchange("condition", term, tuple(firsts.values()))
                else:
                    for form in (0, 1):
                        yield Exchange("condition", term[form], tuple(pair[form] for pair in firsts.values()))


def _places() -> Iterator[Exchange]:
    for groups in _STORED["places"].values():
        for group in groups:
            for term in group:
                yield Exchange("place", term, tuple(other for other in group if other != term))


def _severities() -> Iterator[Exchange]:
    for steps in _STORED["severities"].values():
        for number, words in enumerate(steps):
            others = tuple(step[0] for other, step in enumerate(steps) if other != number)
            yield from (Exchange("severity", word, others) for word in words)


def _devices() -> Iterator[Exchange]:
    for group in _STORED["devices"].values():
        for term in group:
            yield Exchange("device", term, tuple(other for other in group if other != term))


def _observations() -> Iterator[Exchange]:
    for pairs in _STORED["observations"].values():
        for one, other in pairs:
            yield Exchange("observation", one, (other,))
            yield Exchange("observation", other, (one,))
