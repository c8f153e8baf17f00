"""Precision and recall of the text rules by kind of sentence: the de-identifier's marks and the rule labeller's labels.

    python -m experiments.data.text_rules                 # sentences that rules were written with, and every error
    python -m experiments.data.text_rules --of held_out   # sentences written after the rules: figures alone
    python -m experiments.data.text_rules --of held_out_inside   # of the labeller's one kind whose rules changed since

`*_sentences.txt` is for writing rules. `*_held_out.txt` was written when the rules were done, and no rule was changed
for it. `tests/data/test_text_rules.py` keeps both above the documented figures.
"""

from __future__ import annotations

import argparse
import collections
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ranjax.data.text.deidentify import deidentify
from ranjax.data.text.labeller import FINDINGS, label

SETS = {"development": "sentences", "held_out": "held_out", "held_out_inside": "held_out_inside"}
_EXPECTED = re.compile(r"\{([A-Z]+):([^}]*)\}")
_FOUND = re.compile(r"\[([A-Z]+)\]")


class Count(NamedTuple):
    """Decisions of one kind of sentence: right ones, wrong ones, and those that were missed."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


class Case(NamedTuple):
    """A sentence of a kind with what the rules should decide and what they did: counted decisions."""

    kind: str
    text: str
    expected: collections.Counter[object]
    found: collections.Counter[object]

    @property
    def count(self) -> Count:
        right = sum((self.expected & self.found).values())
        return Count(right, sum(self.found.values()) - right, sum(self.expected.values()) - right)


def lines(name: str, which: str) -> Iterator[list[str]]:
    """Yield the lines of a set of sentences, cut at "|"."""
    for line in (Path(__file__).parent / f"{name}_{SETS[which]}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            yield [part.strip() for part in line.split(" | ")]


def deidentify_cases(which: str) -> list[Case]:
    """Return the cases of the de-identifier; a decision is a mark at its place, or a sentence left whole."""
    cases = []
    for kind, line in lines("deidentify", which):
        text, expected = _read(line)
        # A mark at its place counts as the expected one, whichever of the words in round brackets it takes along.
        named = max(
            ([next((mark.least for mark in expected if mark.is_met_by(*one)), one) for one in marks]
             for marks in _marked(text, deidentify(text)[0])),
            key=lambda marks: sum(mark.least in marks for mark in expected),
        )  # fmt: skip
        whole = [("left whole", 0, 0)]
        cases.append(
            Case(
                kind,
                text,
                collections.Counter([mark.least for mark in expected] or whole),
                collections.Counter(named or whole),
            )
        )
    return cases


class Mark(NamedTuple):
    """A mark with the places in the text that it must cover, and those that it may cover at most."""

    name: str
    least: tuple[str, int, int]
    most: tuple[int, int]

    def is_met_by(self, name: str, start: int, end: int) -> bool:
        (_, first, last), (begin, close) = self.least, self.most
        return name == self.name and begin <= start <= first and last <= end <= close


def _read(line: str) -> tuple[str, list[Mark]]:
    """Return a sentence without its braces, and the marks that it should get."""
    text, marks, place = "", [], 0
    for match in _EXPECTED.finditer(line):
        text += line[place : match.start()]
        before, core, after = _bracketed(match[2])
        start = len(text)
        first = start + len(before)
        last = first + len(core)
        text += before + core + after
        marks.append(Mark(match[1], (match[1], first, last), (start, len(text))))
        place = match.end()
    return text + line[place:], marks


def _bracketed(words: str) -> tuple[str, str, str]:
    """Return the words in round brackets in front, those between, and those in round brackets behind."""
    match = re.fullmatch(r"(?:\(([^)]*[^)\d][^)]*)\)(?=.*[^)]))?(.*?)(?:\(([^)]*)\))?", words)
    assert match
    return match[1] or "", match[2], match[3] or ""


def _marked(text: str, found: str) -> Iterator[list[tuple[str, int, int]]]:
    """Yield the marks of a text that the rules have gone over, with the places of the words that they replaced.

    Where the words between two marks stand in the text more than once, there are several ways to read the places.
    """
    names, between = _FOUND.findall(found), re.split(r"\[[A-Z]+\]", found)

    def places(number: int, start: int) -> Iterator[list[int]]:
        # The begin of words number, number + 1, ... between the marks.
        words = between[number]
        for place in [start] if number == 0 else range(start + 1, len(text) - len(words) + 1):
            if text.startswith(words, place):
                if number + 1 < len(between):
                    yield from ([place, *rest] for rest in places(number + 1, place + len(words)))
                elif place + len(words) == len(text):
                    yield [place]

    for begins in places(0, 0):
        ends = [begin + len(words) for begin, words in zip(begins, between)]
        yield list(zip(names, ends[:-1], begins[1:]))


def labeller_cases(which: str, judge: Callable[[str], dict[str, float]] = label) -> list[Case]:
    """Return the cases of the labeller; a decision is the value of one finding."""
    cases = []
    for kind, text, values in lines("labeller", which):
        named = [] if values == "none" else [value.split("=") for value in values.split("; ")]
        expected = collections.Counter((name, float(value)) for name, value in named)
        found = collections.Counter(item for item in judge(text).items() if item[0] in FINDINGS)
        cases.append(Case(kind, text, expected, found))
    return cases


def by_kind(cases: list[Case]) -> dict[str, Count]:
    """Return the counts by kind, with "all" at the end."""
    kinds = dict.fromkeys(case.kind for case in cases)
    counts = {kind: Count(*map(sum, zip(*(case.count for case in cases if case.kind == kind)))) for kind in kinds}
    return {**counts, "all": Count(*map(sum, zip(*counts.values())))}


def table(cases: list[Case]) -> str:
    """Return the figures as a table in Markdown."""
    rows = ["| kind | sentences | precision | recall |", "|---|---|---|---|"]
    for kind, count in by_kind(cases).items():
        number = len(cases) if kind == "all" else sum(case.kind == kind for case in cases)
        rows.append(f"| {kind.replace('_', ' ')} | {number} | {count.precision:.2f} | {count.recall:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Print both tables, and every error among the sentences that are there to be looked at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--of", choices=SETS, default="development")
    which = parser.parse_args().of
    every = {"Labeller": labeller_cases(which)}
    if which != "held_out_inside":
        every = {"De-identifier": deidentify_cases(which), **every}
    for name, cases in every.items():
        print(f"## {name}, {which.replace('_', ' ')}\n\n{table(cases)}\n")
        for case in cases if which == "development" else ():
            if case.count.wrong or case.count.missed:
                print(f"{case.kind}: {case.text}\n  expected {dict(case.expected)}\n  found    {dict(case.found)}")


if __name__ == "__main__":
    main()
