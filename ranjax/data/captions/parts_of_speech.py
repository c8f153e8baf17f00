"""Parts of speech of words as far as lists and endings tell, and whether two captions have the same ones."""

from __future__ import annotations

import functools
import re

from ranjax.core.files import read_toml

_STORED = read_toml("ranjax.data.captions", "parts_of_speech.toml")
_LISTED = {word: kind for kind, words in reversed(_STORED["words"].items()) for word in words}
_ENDINGS = tuple((ending, kind) for kind, endings in _STORED["endings"].items() for ending in endings)
_WORDS = re.compile(r"[^\W_]+")


@functools.lru_cache(maxsize=1 << 16)
def part_of_speech(word: str) -> str:
    """Return the part of speech of a word, e.g. "noun"; "" where neither a list nor its ending tells."""
    lower = word.lower()
    if lower in _LISTED:
        return _LISTED[lower]
    if any(letter.isdigit() for letter in lower):
        return "number"
    return next((kind for ending, kind in _ENDINGS if lower.endswith(ending) and len(lower) > len(ending) + 1), "")


def same_parts_of_speech(before: str, after: str) -> bool:
    """Return whether two captions have as many words, each of the same part of speech where both are known."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    pairs = ((part_of_speech(a), part_of_speech(b)) for a, b in zip(old, new))
    return len(old) == len(new) and all(a == b or not a or not b for a, b in pairs)
