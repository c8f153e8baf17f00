"""Mends what an exchanged word leaves behind: "a" and "an", and the capital letter that begins a sentence."""

from __future__ import annotations

import re

# Spelt with a vowel, spoken with a consonant; and the reverse.
_SPOKEN_CONSONANT = re.compile(r"(?:one\b|once\b|uni(?!n)|us(?:e|u|a)|ut(?:i|e)|eu|ure(?:t|a)|u-)", re.IGNORECASE)
_SPOKEN_VOWEL = re.compile(r"hour|honest|heir", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Z]{2}|[A-Z]\b|[a-zA-Z]-")
_ARTICLE = re.compile(r"\b([Aa])n? (?=([\w-]+))")


def article(word: str) -> str:
    """Return "a" or "an", as it is spoken before `word`."""
    if _LETTERS.match(word):
        return "an" if word[0].lower() in "aefhilmnorsx" else "a"
    if _SPOKEN_CONSONANT.match(word):
        return "a"
    return "an" if word[:1].lower() in "aeiou" or _SPOKEN_VOWEL.match(word) else "a"


def mend_articles(text: str) -> str:
    """Return a text whose every "a" and "an" is that of the word after it."""
    return _ARTICLE.sub(lambda match: match.group(1) + article(match.group(2))[1:] + " ", text)


def in_case_of(text: str, model: str) -> str:
    """Return a text with the capitals of the one that it replaces: all, the first, or as it is."""
    letters = [letter for letter in model if letter.isalpha()]
    if len(letters) > 1 and all(letter.isupper() for letter in letters):
        return text.upper()
    return text[:1].upper() + text[1:] if letters and letters[0].isupper() else text
