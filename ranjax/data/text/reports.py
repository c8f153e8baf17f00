"""Radiology reports as text: their sections, sentences, language and length, and copies among them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from ranjax.data.text import headings
from ranjax.data.text.headings import BODY, SECTIONS

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
_ABSENT = re.compile(
    r"(?:no|without|missing|pending|awaiting) (?:\w+ )?(?:report|befund|result)s?"
    r"(?: (?:available|found|given|provided|issued|recorded|yet))?|"
    r"(?:(?:\w+ )?(?:report|befund|findings|impression|results?|text) )?(?:is |was )?(?:not|un|non)[ ]?"
    r"(?:available|applicable|provided|reported|recorded|given|done|dictated|issued|known|read)|"
    r"(?:report|befund|result)s?(?: is| was)? (?:pending|missing|to follow|withheld|removed|deleted|redacted)|"
    r"see (?:above|below|report|(?:prior|previous|other|separate|attached) report|(?:prior|previous) study)|"
    r"(?:(?:befund|informe|rapport|compte rendu) )?(?:nicht (?:verfügbar|vorhanden)|no disponible|non disponible)|"
    r"(?:none|not) (?:given|available|provided)|n a|nan|nil|none|null|empty|blank|missing|pending|to follow|tbd|"
    r"unknown|x+|test|lorem ipsum.*"
)
_COMMON = {language: frozenset(words.split()) for language, words in _WORDS_OF.items()}


def sections(report: str) -> dict[str, str]:
    """Return a report's sections by name (see `SECTIONS`), each as one line; text that no heading opens is under "".

    Headings are those of MIMIC-CXR's free form and of structured reports, in one line or many, see `headings.find`.
    Names of organs ("LUNGS: clear.") stay as text of the findings, or of the impression that they stand in. Another
    heading in upper case stays as text within findings and impression; after any other section it begins one under its
    own lower-case words. A section that comes twice is joined.
    """
    joined = {name: one_line(" ".join(texts)) for name, texts in _paragraphs(report).items()}
    return {name: text for name, text in joined.items() if re.search(r"\w", text)}


def _paragraphs(report: str) -> dict[str, list[str]]:
    """Return the texts of each section in order; a section before the findings is one paragraph, and no more."""
    found: dict[str, list[str]] = {}
    text, name, place = _lines(report), "", 0

    def close(end: int) -> None:
        parts = [part for part in re.split(r"\n[ \t]*\n", text[place:end]) if part.strip()]
        own = len(parts) if name in BODY or name not in SECTIONS else 1
        for section, texts in ((name, parts[:own]), ("", parts[own:])):
            if texts:
                found.setdefault(section, []).extend(texts)

    for heading in headings.find(text):
        section, end = heading.section, heading.end
        if section in ("", "organ"):
            if name in BODY or (section == "organ" and not name):
                # Text of the section that is open; before any heading, of what may be the findings.
                continue
            section = "findings" if section == "organ" else re.sub(r"\s+", " ", heading.words.lower())
            end = heading.start
        close(heading.start)
        name, place = section, end
    close(len(text))
    return found


def select(report: str, names: Sequence[str]) -> str:
    """Return the named sections of a report, joined, with what stands under headings that are not known.

    Where it has none of them, its longest paragraph: MIMIC-CXR's free-form reports hold their findings in such a
    paragraph, after indication and comparison; paragraphs that a known heading opens do not count. A report without any
    heading is taken whole. Sentences before the first heading count as findings where no heading opens these.
    """
    found = sections(report)
    texts = [found[name] for name in names if name in found]
    unknown = [text for name, text in found.items() if name and name not in SECTIONS]
    free = [one_line(part) for part in _paragraphs(report).get("", [])]
    free = [part for part in free if re.search(r"[a-z]", part)]
    if texts or unknown:
        loose = [part for part in free if len(part.split()) > 2 and re.search(r"[.!?]\W*$", part)]
        return " ".join([*(loose if "findings" in names and "findings" not in found else []), *texts, *unknown])
    return found.get("", "") if set(found) <= {""} else max(free, key=len, default="")


def of_sections(found: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the named ones of a publisher's own sections, joined as they are; all of them for no names."""
    kept = [one_line(text) for name, text in found.items() if not names or name in names]
    return " ".join(text for text in kept if text)


def _lines(report: str) -> str:
    """Return the text with lines that end in "\\n" alone, as any system writes them."""
    return re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", report)


def one_line(text: str) -> str:
    """Compose Unicode, drop control characters, and make blanks and lines single."""
    text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return re.sub(r"\s+", " ", text).strip()


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


def is_absent(text: str) -> bool:
    """Return whether a whole text says in words that there is no report, as "Report not available." does."""
    return bool(_ABSENT.fullmatch(normalized_words(text)))


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
