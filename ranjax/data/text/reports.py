"""Radiology reports as text: their sections, sentences, language and length, and copies among them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "findings": ("findings", "finding", "findings and impression", "findings/impression", "report", "chest findings"),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "opinion", "summary", "final impression",
        "interpretation", "assessment",
    ),
    "indication": ("indication", "indications", "clinical information", "reason for exam", "reason for examination",
                   "clinical indication", "reason"),
    "history": ("history", "clinical history", "patient history"),
    "comparison": ("comparison", "comparisons", "comparison study", "comparison studies"),
    "technique": ("technique", "procedure", "exam", "examination", "type of examination", "study", "procedure comments",
                  "views", "view"),
    "recommendation": ("recommendation", "recommendations", "recommendation(s)"),
    "notification": ("notification", "notifications", "communication", "wet read", "preliminary report", "addendum",
                     "final addendum", "signed by", "accession number", "end of impression"),
}  # fmt: skip
"""Sections by name, with the headings that open them."""

_HEADING_OF = {heading: name for name, headings in SECTIONS.items() for heading in headings}
# A heading stands at the start of a line and ends in a colon; without a colon only where it is the whole line.
_HEADINGS = "|".join(sorted(map(re.escape, _HEADING_OF), key=len, reverse=True))
_OPENS = re.compile(
    rf"^[ \t]*(?:({_HEADINGS})[ \t]*:|({_HEADINGS})[ \t]*$|[A-Z][A-Z /()]{{2,40}}:)", re.IGNORECASE | re.MULTILINE
)
_UNNAMED = re.compile(r"^[ \t]*[A-Z][A-Z /()]{2,40}:", re.MULTILINE)
# After these a full stop ends no sentence.
_ABBREVIATIONS = ("dr", "mr", "mrs", "ms", "pt", "vs", "approx", "e.g", "i.e", "etc", "fig", "no", "st", "a.m", "p.m")
_ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9\"'(\[_])")

_WORDS_OF = {
    "en": "the of is and no are with there in to was for or evidence normal left right lung lungs heart chest not seen",
    "es": "de la el en no y con se los las del sin por una un que derecho izquierdo torax sign hallazg patolog",
    "de": "der die das und kein keine mit ist nicht eine ein im des bei zu rechts links beidseits befund lunge herz",
    "fr": "le la les de des et pas sans est un une du au dans avec droit gauche poumon coeur aucun normal normale",
    "pt": "de da do em com sem e os as no na um uma direito esquerdo pulmonar torax coracao area normal nao",
    "it": "il la di e del della con senza non in un una destro sinistro polmonare cuore torace dei nei",
}
_COMMON = {language: frozenset(words.split()) for language, words in _WORDS_OF.items()}


def sections(report: str) -> dict[str, str]:
    """Return a report's sections by name (see `SECTIONS`), each as one line; text that no heading opens is under "".

    Headings are those of MIMIC-CXR's free form and of structured reports ("FINDINGS:", "IMPRESSION" alone in a line).
    An upper-case heading that is not known closes the section before it and is dropped with its text. A section
    that comes twice is joined.
    """
    found: dict[str, list[str]] = {}
    name: str | None = ""
    place = 0
    for match in _OPENS.finditer(report):
        heading = match.group(1) or match.group(2)
        if heading is None and not _UNNAMED.match(match.group(0)):
            # "Lungs: clear." is a line of findings: only upper case makes an unknown word a heading.
            continue
        if name is not None:
            found.setdefault(name, []).append(report[place : match.start()])
        name = _HEADING_OF[heading.lower()] if heading else None
        place = match.end()
    if name is not None:
        found.setdefault(name, []).append(report[place:])
    joined = {name: one_line(" ".join(texts)) for name, texts in found.items()}
    return {name: text for name, text in joined.items() if text}


def select(report: str, names: Sequence[str]) -> str:
    """Return the named sections of a report, joined; where it has none of them, its longest paragraph.

    MIMIC-CXR's free-form reports hold their findings in such a paragraph, after indication and comparison; paragraphs
    that a heading opens do not count. A report without any heading is taken whole.
    """
    found = sections(report)
    texts = [found[name] for name in names if name in found]
    if texts:
        return " ".join(texts)
    if set(found) <= {""}:
        return found.get("", "")
    free = re.split(r"\n[ \t]*\n", report)
    bodies = [one_line(part) for part in free if not _OPENS.match(part.lstrip("\n"))]
    return max((body for body in bodies if re.search(r"[a-z]", body)), key=len, default="")


def one_line(text: str) -> str:
    """Compose Unicode, drop control characters, and make blanks and lines single."""
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"\s+", " ", "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")).strip()


def sentences(text: str) -> list[str]:
    """Split into sentences; numbered points ("1. No effusion. 2. ...") lose their numbers, decimals stay whole."""
    text = re.sub(r"(?:(?<=^)|(?<=[.;:]\s))\(?\d{1,2}[.)]\s+(?=[A-Za-z])", "", one_line(text))
    parts: list[str] = []
    for part in _ENDS.split(text):
        if parts and parts[-1].rstrip(".").rsplit(" ", 1)[-1].lower() in _ABBREVIATIONS and parts[-1].endswith("."):
            parts[-1] += f" {part}"
        elif part.strip():
            parts.append(part.strip())
    return parts


def without_repeats(text: str) -> str:
    """Return a report whose sentences each stand once: findings and impression often say the same."""
    seen: set[str] = set()
    kept = []
    for sentence in sentences(text):
        if (key := normalized_words(sentence)) not in seen:
            seen.add(key)
            kept.append(sentence)
    return " ".join(kept)


def normalized_words(text: str) -> str:
    """Return a text's words alone, lower case: two reports of the same words say the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def language(text: str) -> str:
    """Return the language whose common words are most frequent in `text`: "en", "es", "de", "fr", "pt", "it"; "" if
    unsure.

    A word list, no model: right for sentences, unsure ("") below four words or where two languages tie.
    """
    words = re.findall(r"[^\W\d_]+", _plain(text))
    if any("\u3000" <= letter <= "\u9fff" for letter in text):
        return "zh"
    if len(words) < 4:
        return ""
    counts = sorted(((sum(word in common for word in words), name) for name, common in _COMMON.items()), reverse=True)
    (best, name), (second, _) = counts[0], counts[1]
    return name if best > second and best >= 0.1 * len(words) else ""


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def cut(text: str, fits: Callable[[str], bool]) -> str:
    """Return as many whole sentences from the start as fit; at least the first.

    A first sentence that is too long alone stays, and is cut by the tokenizer, which keeps its end token.
    """
    parts = sentences(text)
    kept = parts[:1]
    for sentence in parts[1:]:
        if not fits(" ".join([*kept, sentence])):
            break
        kept.append(sentence)
    return " ".join(kept)
