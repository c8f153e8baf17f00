"""Protect words from an attack, so that an attacked report still states the same finding.

The bundled lists (`ranjax/attacks/text/lists/*.txt`) are plain text, one entry a line, ``#`` starting a comment; any
of them can be read (`read_list`), replaced by the path of one's own, or switched off. An entry that ends in ``*`` is
the beginning of words. Negations, sides and numbers are those of English, Spanish, German, French, Portuguese and
Italian.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from ranjax.attacks.text.seen_words import APOSTROPHES, plain
from ranjax.core.errors import DataError, nearest

# Kinds of protected words with a list of their own, all on by default.
KINDS = ("negation", "laterality", "stop_words", "numbers", "units")

OFF = "off"  # in the place of a list: its words are not protected

_SPECIAL = re.compile(r"\[.*\]|<.*>|x{3,}|_+")  # [CLS], <|endoftext|>, and de-identified "XXXX" and "___"
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_JOINTS = re.compile(r"[\W_]+")
_POINTS = re.compile(r"[./]")
# Gauche and droit, esquerdo and direito, and chambers of the heart, which are words of their own in small letters;
# left and right in Chinese, which stand anywhere in a run of letters; and places on a clock's face.
_ANYWHERE = re.compile(rf"(?<!\w)(?:[DGE]|[LR]A)(?!\w|[{APOSTROPHES}])|[左右]|\d\s*(?:[oO][’' ]?clock|Uhr\b)")
# "l", "r", the "t" and "s" that contractions are cut into, and the struck o that stands for none.
_ONE_LETTER = re.compile(r"[a-zø]")


def read_list(source: str | Path) -> tuple[str, ...]:
    """Return the entries of a list in lower case, in order.

    Args:
      source: name of a bundled list ("negation", "radiology_synonyms", ...) or the path of a text file.

    Raises:
      DataError: there is no such list or file, or it holds nothing.
    """
    folder = resources.files("ranjax.attacks.text") / "lists"
    bundled = {Path(entry.name).stem: entry for entry in folder.iterdir() if entry.name.endswith(".txt")}
    if str(source) in bundled:
        content = bundled[str(source)].read_text(encoding="utf-8")
    elif Path(source).is_file():
        try:
            content = Path(source).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"the word list {str(source)!r} is no text in UTF-8: {error.reason}") from error
    else:
        close = nearest(str(source), bundled)
        raise DataError(f"no word list {str(source)!r}: neither a file nor one of {sorted(bundled)}. {close}")
    lines = (line.split("#")[0].strip().lower() for line in content.splitlines())
    entries = tuple(line for line in lines if line)
    if not entries:
        raise DataError(f"the word list {str(source)!r} is empty")
    return entries


def read_groups(source: str | Path) -> tuple[tuple[str, ...], ...]:
    """Return groups of words from a list of lines ``[name:] word, word, ...``, e.g. "radiology_synonyms" or
    "word_classes".
    """
    groups = (line.split(":")[-1].split(",") for line in read_list(source))
    return tuple(tuple(word.strip() for word in group if word.strip()) for group in groups)


@dataclass(frozen=True)
class Protection:
    """A predicate, True for a word that is protected, i.e. neither replaced nor inserted. Case, accents and the kind of
    apostrophe do not matter.

    Words of punctuation alone, of one Latin letter, and special or de-identified tokens ("[CLS]", "XXXX", "___") always
    are. A compound ("left-sided", "non-specific", "doesn't", "3-mm") is protected if one of its parts is, stop words
    aside, and an abbreviation ("w.o.") if it is without its points.

    Attributes:
      whole: words that are protected as they stand.
      parts: words that protect any compound they are part of, too; "beidseit*" is all that begins so.
      digits: protect every word with a digit.
    """

    whole: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    digits: bool = True
    _seen: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, word: str) -> bool:
        if word not in self._seen:
            self._seen[word] = self._decide(plain(word))
        return self._seen[word]

    def _decide(self, word: str) -> bool:
        if _SPECIAL.fullmatch(word) or word in self.whole or word in self.parts:
            return True
        bare = _EDGES.sub("", word)
        if (
            not bare
            or _ONE_LETTER.fullmatch(bare)
            or bare in self.whole
            or (self.digits and any(c.isdigit() for c in bare))
        ):
            return True
        return _names(self.parts, bare)


def _names(listed: frozenset[str], bare: str) -> bool:
    """Return whether a word, one of its parts, or what it is without points, is on a list."""
    seen = {bare, _POINTS.sub("", bare), *_JOINTS.split(bare)} - {""}
    return not seen.isdisjoint(listed) or any(word.startswith(_stems(listed)) for word in seen)


@functools.lru_cache(maxsize=64)
def _stems(listed: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(entry[:-1] for entry in listed if entry.endswith("*")))


def protection(
    labels: Iterable[str] = (),
    *,
    kinds: Iterable[str] = KINDS,
    lists: dict[str, str | Path] | None = None,
    extra: Iterable[str] = (),
) -> Protection:
    """Return the usual protection: negations, laterality, stop words, numbers, units, and the label words of the task.

    Args:
      labels: names of the task's classes; every word of each, and its plural, is protected ("Pleural Effusion":
        pleural, effusion, effusions), unless it is a stop word.
      kinds: which of `KINDS` are on; without "numbers", words with digits are free too.
      lists: path of a file to stand in for a bundled list, by kind; "off" switches the kind off.
      extra: more words to protect.

    Raises:
      DataError: an unknown kind, or a list that cannot be read.
    """
    labels, kinds, extra = ((x,) if isinstance(x, str) else tuple(x) for x in (labels, kinds, extra))
    lists = dict(lists or {})
    for kind in (*kinds, *lists):
        if kind not in KINDS:
            there_are = f"there are {list(KINDS)}. {nearest(kind, KINDS)}"
            raise DataError(f"unknown kind of protected words {kind!r}; {there_are}")
    kinds = tuple(kind for kind in kinds if lists.get(kind) != OFF)
    words = {kind: frozenset(read_list(lists.get(kind, kind))) for kind in kinds}
    if "laterality" in words and "laterality" not in lists:
        words["sides"] = frozenset(read_list("sides"))
    stop_words = words.pop("stop_words", frozenset())
    parts = {word for listed in words.values() for word in listed} | {word.strip().lower() for word in extra}
    common = frozenset(read_list("stop_words"))
    for label in labels:
        for word in re.findall(r"[^\W_]+", label.lower()):
            if word not in common:
                parts |= {word, word + "s", word + "es"}
    return Protection(frozenset(map(plain, stop_words)), frozenset(map(plain, parts)), "numbers" in kinds)


def names_side(text: str) -> bool:
    """Return whether a text names a side of the body in any spelling, so that it does not fit a mirror image.

    The words are the bundled list "sides", whole or as parts of compounds and of abbreviations with points or strokes.
    """
    sides, seen = _sides(), plain(text)
    # Of French and Italian "l'", "d'" the letter is an article.
    seen = re.sub(r"\b[ld]'(?=[^\W\d_])", "", seen)
    words = re.findall(r"[^\W_](?:[./]?[^\W_])*", seen)
    return bool(_ANYWHERE.search(text)) or any(_names(sides, word) for word in words)


@functools.cache
def _sides() -> frozenset[str]:
    return frozenset(map(plain, read_list("sides")))
