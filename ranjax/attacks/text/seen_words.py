"""Words as a person sees them, where tokenizers cut: contractions, abbreviations with a stroke or points, "___".

One splitter for the attack, its protection and `ranjax verify`: what is one word here is replaced, kept and compared as
a whole. A hyphen separates words, as tokenizers have it; `constraints.Protection` looks at the parts of a compound.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

APOSTROPHES = "'\u2019\u2018\u201b\u02bc\u02b9\u2032\uff07`\u00b4"
_LETTER = r"[^\W\d_]"
JOINED = re.compile(
    rf"{_LETTER}+(?:[{APOSTROPHES}]{_LETTER}+)+"  # doesn't, patient's
    rf"|(?<!\w){_LETTER}{{1,2}}/{_LETTER}{{1,2}}(?!\w)"  # w/o, s/p, b/l
    rf"|(?<!\w)(?:{_LETTER}\.){{2,}}"  # l.u.l., r.t.
    r"|_{2,}"
)
"""What is one word to a reader, and several to most tokenizers."""


def plain(word: str) -> str:
    """Return a word as lists spell it: lower case, one kind of apostrophe, without accents and marks that are not
    seen (soft hyphens, joiners).
    """
    word = re.sub(f"[{APOSTROPHES}]", "'", word.strip().casefold())
    letters = unicodedata.normalize("NFKD", word).casefold()
    return "".join(c for c in letters if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")


def join(text: str, places: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Return the word of every token with those words joined that a reader sees as one; the numbering stays dense.

    Args:
      text: that was cut into tokens.
      places: word of every token as the tokenizer counts, None for special tokens.
      offsets: begin and end of every token in the text.
    """
    first: dict[int, int] = {}
    for match in JOINED.finditer(text):
        inside = sorted(
            {
                place
                for place, (start, end) in zip(places, offsets)
                if place is not None and start < match.end() and end > match.start()
            }
        )
        for place in inside[1:]:
            first[place] = first.get(inside[0], inside[0])
    if not first:
        return list(places)
    gone = sorted(first)
    kept = [None if place is None else first.get(place, place) for place in places]
    return [None if place is None else place - sum(g < place for g in gone) for place in kept]
