"""From chosen words back to text: the attacked report with all other characters as they were."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ranjax.attacks.text.candidates import Lexicon
from ranjax.attacks.text.moves import decode
from ranjax.attacks.text.seen_words import JOINED

_WORDS = re.compile(rf"{JOINED.pattern}|\w+|[^\w\s]")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return begin and end of every word of a text, punctuation marks being words of their own."""
    return [match.span() for match in _WORDS.finditer(text)]


def restore(text: str, spans: Sequence[tuple[int, int]], choices: Int[np.ndarray, "length"], lexicon: Lexicon) -> str:
    """Return the text with its chosen words put in; all else is kept character for character.

    A new word takes the case of the one it replaces: all capitals, a capital first letter, or as it is in the lexicon.
    One that is put in stands after its word, and one that is left out takes the blank before it along.

    Args:
      text: the original text.
      spans: begin and end of the word of every slot, in order, as the tokenizer splits them (or `word_spans`).
      choices: i32[L], `TextAttack.choices` of this row.
      lexicon: the candidate words.

    Raises:
      ValueError: a chosen slot has no span.
    """
    choices = np.asarray(choices)
    slots = np.flatnonzero(choices >= 0)
    if len(slots) and slots[-1] >= len(spans):
        raise ValueError(f"slot {slots[-1]} was replaced, but the text has {len(spans)} words")
    out: list[str] = []
    last = 0
    for slot in slots.tolist():
        begin, end = spans[slot]
        move, entry = decode(int(choices[slot]), len(lexicon.words))
        if move == "delete":
            before = text[last:begin]
            out.append(before[:-1] if before.endswith(" ") else before)
        elif move == "insert":
            out += [text[last:end], " ", lexicon.words[entry]]
        else:
            out += [text[last:begin], _in_case(lexicon.words[entry], text[begin:end])]
        last = end
    return "".join(out) + text[last:]


def _in_case(word: str, model: str) -> str:
    letters = [c for c in model if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return word.upper()
    if letters and letters[0].isupper():
        return word[:1].upper() + word[1:]
    return word
