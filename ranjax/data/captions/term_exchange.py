"""Rewrites any radiology report by exchanged terms, so that it is false by what the original states.

A term is exchanged wherever it stands in the report, articles are mended, and a negation may be dropped or set. What
the original does not state counts as not so: an exchange inside a negation must deny something that it states.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

from ranjax.data.captions import keyword_terms
from ranjax.data.captions.agreement import in_case_of, mend_articles
from ranjax.data.captions.rewrite import Change, Rewrite, varied
from ranjax.data.text import labeller
from ranjax.data.text.labeller import ABSENT, PRESENT

_WORDS = re.compile(r"\w+(?:[-'’]\w+)*|[.;:]")
_BOTH_SIDES = re.compile(r"\bbilateral|\bboth\b", re.IGNORECASE)
_DENIAL = re.compile(
    r"(?P<no>(?:There (?:is|are) )?no )(?:(?:evidence of|definite|significant|focal|acute) )*(?P<what>[\w -]+?)"
    r"(?P<seen> (?:is|are) (?:seen|identified|present|visualized))?",
    re.IGNORECASE,
)
_CLAIM = re.compile(r"(?P<there>There (?:is|are) )(?P<rest>(?:an? )?[\w -]+)", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.;:]+")


class Corpus:
    """The words of a corpus and which stands beside which, so that an exchange reads as the corpus does."""

    def __init__(self, texts: Iterable[str]):
        self.pairs: set[tuple[str, str]] = set()
        for text in texts:
            words = _words(text)
            self.pairs.update(zip(("", *words), (*words, "")))
        self.words = {word for pair in self.pairs for word in pair}

    def unseen(self, before: str, after: str) -> int:
        """Return how many pairs of neighbouring words a change brings that the corpus never has."""
        old, new = ({*zip(("", *words), (*words, ""))} for words in (_words(before), _words(after)))
        return len(new - old - self.pairs)

    def knows(self, before: str, after: str) -> bool:
        """Return whether every word that a change brings is in the corpus."""
        return {*_words(after)} - {*_words(before)} <= self.words


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def rewrites(
    caption: str, corpus: Corpus | None, rng: random.Random, changes: int, count: int
) -> tuple[list[Rewrite], str]:
    """Return at most `count` false forms of a caption, of at most `changes` exchanges, or why there are none.

    Those that bring words the corpus lacks are left out, and those whose neighbouring words it has come first.
    """
    firsts = [Rewrite(text, (change,)) for text, change in _changed(caption)]
    if not firsts:
        return [], "no exchangeable term"
    singles = [rewrite for rewrite in firsts if _is_false(caption, rewrite)]
    found = list(singles)
    if changes > 1 and singles:
        for number in range(max(1, count // 2)):
            one = singles[int(rng.random() * len(singles))]
            for _ in range(1 + number % (changes - 1)):
                options = [(text, c) for text, c in _changed(one.text) if all(_apart(c, made) for made in one.changes)]
                if options:
                    text, change = options[int(rng.random() * len(options))]
                    one = Rewrite(text, (*one.changes, change))
            if len(one.changes) > 1 and _is_false(caption, one):
                found.append(one)
    if not found:
        return [], "every exchange leaves it true"
    if corpus is None:
        return varied(found, count, rng), ""
    known = [rewrite for rewrite in found if corpus.knows(caption, rewrite.text)]
    # Of what reads worst, the worse half goes.
    ranked = sorted(corpus.unseen(caption, rewrite.text) for rewrite in known)
    best = [r for r in known if corpus.unseen(caption, r.text) <= ranked[len(ranked) // 2]] if known else []
    return varied(best, count, rng), "" if best else "every exchange brings words that the corpus lacks"


def _apart(change: Change, made: Change) -> bool:
    return change.what != made.what and not {*change.before.split()} & {*made.after.split()}


def _changed(caption: str) -> Iterator[tuple[str, Change]]:
    """Yield what one exchange makes of a caption."""
    seen: set[str] = set()
    for match in keyword_terms.pattern().finditer(caption):
        term = match.group().lower()
        if term in seen:
            continue
        seen.add(term)
        for exchange in keyword_terms.exchanges()[term]:
            if exchange.what == "side" and (_BOTH_SIDES.search(caption) or _stands(exchange.others[0], caption)):
                continue
            for other in exchange.others:
                # What the caption speaks of already, present or denied, would contradict itself.
                stands = other not in term and _stands(other, caption)
                if not stands and not (exchange.what == "condition" and _spoken_of(other, caption)):
                    yield _exchanged(caption, term, other), Change(exchange.what, term, other)
    for sentence in _SENTENCE.finditer(caption):
        yield from _presence(caption, sentence)


def _stands(term: str, caption: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", caption, re.IGNORECASE) is not None


def _spoken_of(condition: str, caption: str) -> bool:
    # The last word without its ending: "effusion" of "pleural effusions", "pneumothora" of both numbers.
    stem = condition.split()[-1]
    return stem[: max(5, len(stem) - 3)] in caption.lower()


def _exchanged(caption: str, term: str, other: str) -> str:
    place = re.compile(rf"(?<![\w-]){re.escape(term)}(?![\w-])", re.IGNORECASE)
    text = place.sub(lambda match: in_case_of(other, match.group()), caption)
    return mend_articles(text)


def _presence(caption: str, sentence: re.Match[str]) -> Iterator[tuple[str, Change]]:
    """Yield a caption with a denial in one sentence made a claim, or a claim made a denial."""
    text = sentence.group()
    start = sentence.start() + len(text) - len(text.lstrip())
    body = text.strip()
    if denial := _DENIAL.fullmatch(body):
        what = denial.group("what")
        if what.lower() in keyword_terms.conditions():
            article = "a " if what.lower() in keyword_terms.counted() else ""
            there = denial.group("no")[: -len("no ")]
            if not there and denial.group("seen"):
                article, there = article, ""
            claim = mend_articles(f"{there}{article}moderate {what}{denial.group('seen') or ''}")
            claim = in_case_of(claim, body)
            yield (
                _put(caption, start, body, claim),
                Change("presence", f"no {what.lower()}", f"moderate {what.lower()}"),
            )
    elif claim_made := _CLAIM.fullmatch(body):
        rest = re.sub(r"^an? ", "", claim_made.group("rest"))
        held = keyword_terms.pattern().search(rest)
        stated = [m.group().lower() for m in keyword_terms.pattern().finditer(rest)]
        named = [term for term in stated if term in keyword_terms.conditions()]
        if held and named and not rest.lower().startswith("no "):
            bare = re.sub(r"^(?:(?:mild|minimal|slight|small|tiny|moderate|severe|marked|large|massive) )+", "", rest)
            denied = f"{claim_made.group('there')}no {bare}"
            yield _put(caption, start, body, denied), Change("presence", named[0], f"no {named[0]}")


def _put(caption: str, start: int, body: str, new: str) -> str:
    return caption[:start] + new + caption[start + len(body) :]


def _is_false(caption: str, rewrite: Rewrite) -> bool:
    """Return whether a rewrite contradicts the original, by labels or by a term that excludes the old one."""
    if rewrite.text == caption:
        return False
    old, new = labeller.label(caption), labeller.label(rewrite.text)
    if contradicting(old, new):
        return True
    # Of these the rules know no labels: the new term excludes the old one, and the original does not have it.
    return all(change.what not in ("condition", "presence") for change in rewrite.changes) and not _in_denial(
        caption, rewrite.changes
    )


def contradicting(old: dict[str, float], new: dict[str, float]) -> list[str]:
    """Return the rule labels by which a caption contradicts what another one states.

    A finding counts that is new, or is denied where it was present; what the other one does not state is not so. That a
    chest is called normal counts where the other one is not.
    """
    return [
        name
        for name in {**old, **new}
        if (new.get(name) == PRESENT and old.get(name) != PRESENT)
        or (new.get(name) == ABSENT and old.get(name) == PRESENT)
    ]


def _in_denial(caption: str, changes: Iterable[Change]) -> bool:
    """Return whether exchanged terms stand behind negations alone: "no right effusion" may be as true as "no left"."""
    places = [
        match.start()
        for change in changes
        for match in re.finditer(rf"(?<![\w-]){re.escape(change.before)}(?![\w-])", caption, re.IGNORECASE)
    ]
    return bool(places) and all(_denied_at(caption, place) for place in places)


def _denied_at(caption: str, place: int) -> bool:
    start = max(caption.rfind(sign, 0, place) for sign in ".;:")
    return (
        re.search(r"\b(?:no|not|without|free of|negative for)\b", caption[start + 1 : place], re.IGNORECASE) is not None
    )
