"""Precision and recall of the text rules by kind of sentence: the de-identifier's marks and the rule labeller's labels.

    python -m experiments.data.text_rules                 # the development half, with every error
    python -m experiments.data.text_rules --half held_out # the other half: figures alone

The sentences (`*_sentences.txt`) were written before the rules were last changed. A hash of each line decides its half;
rules are to be written while looking at the development half only. `tests/data/test_text_rules.py` keeps both above
the documented figures.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ranjax.data.text.deidentify import deidentify
from ranjax.data.text.labeller import FINDINGS, label

HALVES = ("development", "held_out")
_MARK = re.compile(r"\{([A-Z]+):([^}]*)\}")


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


def lines(name: str, half: str) -> Iterator[list[str]]:
    """Yield the lines of a half, cut at "|"."""
    for line in (Path(__file__).parent / f"{name}_sentences.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            odd = hashlib.blake2b(line.encode(), digest_size=1).digest()[0] % 2
            if HALVES[odd] == half:
                yield [part.strip() for part in line.split(" | ")]


def deidentify_cases(half: str) -> list[Case]:
    """Return the cases of the de-identifier; a decision is a mark at its place, or a sentence left whole."""
    cases = []
    for kind, text in lines("deidentify", half):
        given = _MARK.sub(lambda match: match[2], text)
        expected = _MARK.sub(lambda match: f"[{match[1]}]", text)
        cases.append(Case(kind, given, _marks(expected, given), _marks(deidentify(given)[0], given)))
    return cases


def _marks(text: str, given: str) -> collections.Counter[object]:
    """Return the marks of a text with the words before and behind each: a mark at another place is wrong."""
    if text == given:
        return collections.Counter([("left whole",)])
    parts = re.split(r"(\[[A-Z]+\])", text)
    return collections.Counter((parts[i], parts[i - 1], parts[i + 1]) for i in range(1, len(parts), 2))


def labeller_cases(half: str, judge: Callable[[str], dict[str, float]] = label) -> list[Case]:
    """Return the cases of the labeller; a decision is the value of one finding."""
    cases = []
    for kind, text, values in lines("labeller", half):
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
    """Print both tables, and for the development half every error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--half", choices=HALVES, default="development")
    half = parser.parse_args().half
    for name, cases in (("De-identifier", deidentify_cases(half)), ("Labeller", labeller_cases(half))):
        print(f"## {name}, {half.replace('_', ' ')} sentences\n\n{table(cases)}\n")
        for case in cases if half == "development" else ():
            if case.count.wrong or case.count.missed:
                print(f"{case.kind}: {case.text}\n  expected {dict(case.expected)}\n  found    {dict(case.found)}")


if __name__ == "__main__":
    main()
