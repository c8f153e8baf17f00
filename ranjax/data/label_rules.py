"""What the labels of an entry become: a multi-hot row, what stays unknown, and the report that they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from ranjax.data.table_cells import ABSENT, PRESENT, UNCERTAIN, UNMARKED

NORMAL = ("no finding", "no findings", "normal")
"""Classes, in lower case, that say of the whole film that nothing is found."""
EVERY = "every class"
"""What is unknown of an entry without any label."""


class Labels(NamedTuple):
    """Labels of one entry.

    hot: 1 for each class that counts as present. single: the one class, or -1 where there is not exactly one or
    another is unknown. doubtful: classes marked uncertain. unknown: classes of which nobody says whether they are
    there, see `EVERY`. outside: labels that are present and no class.
    """

    hot: Float32[np.ndarray, " classes"]
    single: int
    doubtful: tuple[str, ...]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]


def read(marks: Mapping[str, float], classes: Sequence[str], uncertain: str) -> Labels:
    """Return the labels of an entry.

    Args:
      marks: by label, see `Entry.labels`.
      classes: in label order.
      uncertain: the setting: "ignore" leaves an uncertain class unknown; "zero" and "one" decide it.
    """
    value = {"one": PRESENT}.get(uncertain, ABSENT)
    hot = np.array([(value if marks.get(c) == UNCERTAIN else marks.get(c)) == PRESENT for c in classes], np.float32)
    doubtful = tuple(name for name in classes if marks.get(name) == UNCERTAIN)
    unknown = tuple(name for name in classes if marks.get(name) == UNMARKED)
    if uncertain == "ignore":
        unknown = tuple(name for name in classes if name in (*unknown, *doubtful))
    if not is_labelled(marks):
        unknown = (EVERY,)
    on = np.flatnonzero(hot)
    single = int(on[0]) if len(on) == 1 and not unknown else -1
    outside = tuple(name for name, mark in marks.items() if mark == PRESENT and name not in classes)
    return Labels(hot, single, doubtful, unknown, outside)


def is_labelled(marks: Mapping[str, float]) -> bool:
    """Return whether any label is marked as present, absent or uncertain."""
    return any(mark != UNMARKED for mark in marks.values())


def written(marks: Mapping[str, float], order: Sequence[str], normal: str, uncertain: str) -> str:
    """Write a report that says what the labels say and no more, or "" where they say nothing.

    "Findings: edema. Possible pneumonia." Of a film with doubts alone: "Possible edema.". "No finding." only where the
    label that says so is present and nothing is in doubt; of a film of which only absent labels are known: "No edema.".

    Args:
      marks: by label, see `Entry.labels`.
      order: labels to speak of, in order.
      normal: the class that says "none of the others"; empty where there is none.
      uncertain: the setting; "one" writes uncertain labels as present.
    """
    present = [name for name in order if name != normal and marks.get(name) == PRESENT]
    doubtful = [name for name in order if name != normal and marks.get(name) == UNCERTAIN]
    if uncertain == "one":
        present, doubtful = [name for name in order if name in (*present, *doubtful)], []
    sentences = [f"Findings: {_listed(present)}."] if present else []
    sentences += [f"Possible {_listed(doubtful)}."] if doubtful else []
    if sentences:
        return " ".join(sentences)
    if normal and marks.get(normal) == PRESENT:
        return "No finding." if normal.lower() in NORMAL else f"{_listed([normal]).capitalize()}."
    absent = [name for name in order if name != normal and marks.get(name) == ABSENT]
    return f"No {_listed(absent, ' or ')}." if absent else ""


def _listed(names: Sequence[str], last: str = ", ") -> str:
    words = [name.replace("_", " ").lower() for name in names]
    return last.join(filter(None, (", ".join(words[:-1]), words[-1])))
