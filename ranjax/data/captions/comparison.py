"""What a noisy pair's record says of its caption: regime, exchanges, and whether it says something else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ranjax.data.captions import radiograph_reading as reading
from ranjax.data.captions.radiograph_reading import Facts
from ranjax.data.captions.rewrite import Change
from ranjax.data.text import labeller

_BEGINS = re.compile(r"(?:^|[.:;!?]\s+)[a-z]")
_WORDS = re.compile(r"\w+(?:['’-]\w+)*")


def caption_record(
    meaning: str, before: str, after: str, changes: Sequence[Change], facts: Facts | None, left: str = ""
) -> dict[str, object]:
    """Return what is recorded of a caption, as plain JSON.

    Args:
      meaning: "contradict", "keep", or "" where captions are no part of the noise.
      before, after: the caption.
      changes: the exchanges that made one of the other.
      facts: the exact findings of the case, where they are known.
      left: why the caption stayed as it was.

    Returns:
      "meaning", "exchanges" as [what, before, after], "labels_changed" by the rule labeller with the labels that differ
      as "labels" {name: [before, after]}, "false" by the exact findings (None: not known), and "left".
    """
    labels = changed_labels(before, after)
    return {
        "meaning": meaning,
        "exchanges": [list(change) for change in changes],
        "labels_changed": bool(labels),
        "labels": labels,
        "false": is_false(after, facts),
        "left": left,
    }


def changed_labels(before: str, after: str) -> dict[str, list[float | None]]:
    """Return the findings whose rule label differs between two captions: before and after, None where not mentioned."""
    if before == after:
        return {}
    old, new = (labeller.label(_begun(text)) for text in (before, after))
    names = sorted({*old, *new})
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def _begun(text: str) -> str:
    """Begin every sentence with a capital: in lower case it is hidden where one ends, and how far a negation goes."""
    return _BEGINS.sub(lambda match: match.group().upper(), text)


def is_false(caption: str, facts: Facts | None) -> bool | None:
    """Return whether a caption contradicts the exact findings; None where these, or its grammar, are not known."""
    read = None if facts is None else reading.read(caption)
    return None if read is None or facts is None else bool(reading.false_sentences(read, facts))


def exchanged_words(before: str, after: str) -> list[Change]:
    """Return the runs of words that differ between two captions, in order; case and punctuation do not count."""
    old, new = _WORDS.findall(before.lower()), _WORDS.findall(after.lower())
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [Change("words", " ".join(old[a:b]), " ".join(new[c:d])) for tag, a, b, c, d in blocks if tag != "equal"]
