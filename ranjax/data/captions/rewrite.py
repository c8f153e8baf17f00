"""What a rewritten caption is, and which of many are kept: a bounded number, of every kind of change."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ranjax.data.text.reports import normalized_words

CATEGORIES = ("condition", "presence", "side", "place", "severity", "size", "device", "observation")
"""What an exchange changes, in the words of the records and of the page."""


class Change(NamedTuple):
    """One exchange: what it changes, one of `CATEGORIES`, and the words before and after."""

    what: str
    before: str
    after: str


class Rewrite(NamedTuple):
    """A caption that says something else, and by which exchanges."""

    text: str
    changes: tuple[Change, ...]


def varied(rewrites: Iterable[Rewrite], count: int, rng: random.Random) -> list[Rewrite]:
    """Return at most `count` rewrites of different texts, one of each category in turn, several exchanges the last.

    The order within a category is drawn; the result depends on nothing but the arguments and the state of `rng`.
    """
    groups: dict[str, list[tuple[float, Rewrite]]] = {}
    for rewrite in rewrites:
        group = rewrite.changes[0].what if len(rewrite.changes) == 1 else "several"
        groups.setdefault(group, []).append((rng.random(), rewrite))
    order = [name for name in (*CATEGORIES, "several") if name in groups]
    drawn = [[rewrite for _, rewrite in sorted(groups[name], key=lambda item: item[0])] for name in order]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*drawn))
    return list({rewrite.text: rewrite for rewrite in turns if rewrite is not None}.values())[:count]


def count_identical(originals: Mapping[str, str], others: Mapping[str, str]) -> int:
    """Return how many of `others` have the words of the original of their id."""
    return sum(normalized_words(originals[name]) == normalized_words(text) for name, text in others.items())


def shuffled(items: Sequence[str], rng: random.Random) -> list[str]:
    """Return items in a drawn order."""
    return [item for _, item in sorted((rng.random(), item) for item in items)]
