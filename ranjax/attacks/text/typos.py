"""Misspelt forms of a word, one edit each, as a typist makes them (DeepWordBug, Gao et al. 2018, arXiv 1801.04354).

Two letters swapped, one left out, one doubled, or a neighbour's key; first and last letter stay, so that a reader still
reads the word (TextBugger, Li et al. 2019, arXiv 1812.05271). Which words may be misspelt is the caller's to say.
"""

from __future__ import annotations

import hashlib

SHORTEST = 4
"""Letters of a word that is misspelt."""
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ADJACENT = {
    letter: "".join(row[max(0, i - 1) : i] + row[i + 1 : i + 2]) for row in _ROWS for i, letter in enumerate(row)
}


def typos(word: str, count: int = 8, seed: str = "") -> tuple[str, ...]:
    """Return at most `count` different misspelt forms of a word; () of one with fewer than four letters, or digits.

    Args:
      word: letters alone; of another one nothing is changed.
      count: forms, drawn by a hash of word and seed where there are more.
      seed: e.g. the id of the text.
    """
    if len(word) < SHORTEST or not word.isalpha():
        return ()
    found: dict[str, None] = {}
    for i in range(1, len(word) - 1):
        head, letter, tail = word[:i], word[i], word[i + 1 :]
        if i < len(word) - 2:
            found[head + tail[0] + letter + tail[1:]] = None
        found[head + tail] = None
        found[head + 2 * letter + tail] = None
        for near in _ADJACENT.get(letter.lower(), ""):
            found[head + (near.upper() if letter.isupper() else near) + tail] = None
    found.pop(word, None)
    key = f"{seed}:{word}".encode()
    return tuple(sorted(found, key=lambda form: hashlib.blake2b(form.encode(), key=key[:64]).digest())[:count])
