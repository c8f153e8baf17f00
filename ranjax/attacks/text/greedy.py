"""A greedy search over whole texts on the host: words in the order of their importance, the worst form of each.

For any score of texts, black box or not, so that one compiled forward pass serves every kind of change (the order and
the acceptance are BERT-Attack's, Li et al. 2020, arXiv 2004.09984). One pass gives the curve over words changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from ranjax.core.errors import ConfigError

Score = Callable[[Sequence[str], Int[np.ndarray, " texts"]], Float[np.ndarray, " texts"]]
"""``(texts, which text each is a form of) -> f[N]``, to be raised."""
Spans = Sequence[tuple[int, int]]
Forms = Callable[[int, int, str], Sequence[str]]
"""``(number of the text, number of the word, the word) -> what may stand in its place``."""
Order = Callable[[int], Sequence[int]]
"""``number of the text -> its words, the first to be changed first``."""


@dataclass
class _Text:
    words: list[str]
    gaps: list[str]
    """Before, between and after the words."""
    changed: int = 0
    order: list[int] = field(default_factory=list)

    def written(self, place: int = -1, form: str | None = None) -> str:
        words = [*self.words]
        if place >= 0:
            words[place] = form or ""
        return self.gaps[0] + "".join(word + gap for word, gap in zip(words, self.gaps[1:], strict=True))


def cut(text: str, spans: Spans) -> tuple[list[str], list[str]]:
    """Return the words of a text, and what stands before, between and after them."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    return pieces[1::2], pieces[0::2]


def attack(
    texts: Sequence[str],
    spans: Sequence[Spans],
    may_change: Callable[[str], bool],
    forms: Forms,
    score: Score,
    budgets: Sequence[int],
    *,
    order: Order | None = None,
    visits: int = 2,
) -> Mapping[int, list[str]]:
    """Return the attacked texts by how many of their words may be changed.

    A word's importance is the rise of the score when it is left out; ties go to the earlier word. Words are visited
    once each; the form of the highest score is taken if that rises. What `may_change` forbids stays as it is.

    Args:
      texts, spans: begin and end of each word.
      may_change: of a word.
      forms: what may stand in the place of a word.
      score: of texts.
      budgets: rising numbers of words.
      order: of the words, in the place of their importance.
      visits: words looked at for each that may be changed.

    Raises:
      ConfigError: budgets that do not rise from 1.
    """
    if not budgets or any(b <= a for a, b in zip((0, *budgets), budgets)):
        raise ConfigError("budgets", tuple(budgets), "rising numbers of words, at least 1")
    held = [_Text(*cut(text, own)) for text, own in zip(texts, spans, strict=True)]
    best = _scored(score, list(texts), np.arange(len(texts)))
    _rank(held, best, may_change, score, order)
    found: dict[int, list[str]] = {}
    for budget in budgets:
        for _ in range(visits * budget):
            tried: list[tuple[int, int, str]] = []
            for number, text in enumerate(held):
                if text.changed < budget and text.order:
                    place = text.order.pop(0)
                    tried += [(number, place, form) for form in forms(number, place, text.words[place])]
            if not tried and not any(text.changed < budget and text.order for text in held):
                break
            if tried:
                _take_best(held, best, tried, score)
        found[budget] = [text.written() for text in held]
    return found


def _scored(score: Score, texts: Sequence[str], owner: np.ndarray) -> np.ndarray:
    return np.asarray(score(texts, owner.astype(np.int32)), np.float64)


def _rank(
    held: Sequence[_Text],
    best: np.ndarray,
    may_change: Callable[[str], bool],
    score: Score,
    order: Order | None,
) -> None:
    open_ = [[i for i, word in enumerate(text.words) if may_change(word)] for text in held]
    if order is not None:
        for number, text in enumerate(held):
            allowed = set(open_[number])
            text.order = [place for place in order(number) if place in allowed]
        return
    places = [(number, place) for number, own in enumerate(open_) for place in own]
    if not places:
        return
    without = [held[number].written(place, "") for number, place in places]
    owner = np.asarray([number for number, _ in places])
    rise = _scored(score, without, owner) - best[owner]
    for index in np.lexsort((np.arange(len(places)), -rise)):
        held[places[index][0]].order.append(places[index][1])


def _take_best(held: Sequence[_Text], best: np.ndarray, tried: Sequence[tuple[int, int, str]], score: Score) -> None:
    owner = np.asarray([number for number, _, _ in tried])
    found = _scored(score, [held[number].written(place, form) for number, place, form in tried], owner)
    for number in np.unique(owner):
        rows = np.flatnonzero(owner == number)
        top = rows[found[rows].argmax()]
        if found[top] > best[number]:
            _, place, form = tried[top]
            held[number].words[place], held[number].changed, best[number] = form, held[number].changed + 1, found[top]
