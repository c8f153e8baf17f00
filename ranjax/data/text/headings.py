"""Headings of radiology reports: where each stands in a text, and which section it opens.

A heading ends in a colon (or a dash, or its line). The field's own stand at the start of a line or of a sentence, in
any case; in upper case they stand anywhere. Other words are a heading only in upper case. Names of organs are headings
within the findings, and everything that is not known is kept as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "findings": (
        "findings", "finding", "findings and impression", "findings/impression", "report", "chest findings",
        "befund", "hallazgos", "résultats", "resultats", "achados", "reperti", "radiographic findings",
    ),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "opinion", "summary", "final impression",
        "interpretation", "assessment", "impression and recommendation", "impression and recommendations",
        "impression/recommendation", "impression/recommendations", "beurteilung", "impresión", "impresion",
        "conclusión", "conclusão", "conclusioni", "diagnostic impression", "overall impression",
    ),
    "indication": ("indication", "indications", "clinical information", "reason for exam", "reason for examination",
                   "clinical indication", "reason", "reason for study", "reason for this examination", "indikation",
                   "fragestellung", "indicación", "indicação", "clinical question", "clinical data"),
    "history": ("history", "clinical history", "patient history", "relevant history", "anamnese"),
    "comparison": ("comparison", "comparisons", "comparison study", "comparison studies", "reference exam",
                   "reference examination", "prior study", "prior studies", "vergleich", "comparación", "comparação",
                   "comparaison"),
    ""
    "technique": ("technique", "procedure", "exam", "examination", "type of examination", "study", "procedure comments",
                  "views", "view", "exam type", "technik", "técnica", "tecnica", "contrast", "radiation dose"),
    "recommendation": ("recommendation", "recommendations", "recommendation(s)", "empfehlung"),
    "notification": ("notification", "notifications", "communication", "wet read", "preliminary report", "addendum",
                     "final addendum", "signed by", "accession number", "end of impression", "dictated by",
                     ""
                     "electronically signed by", "attending", "attending physician", "referring physician", "physician",
                     "accession", "mrn", "patient", "patient name", "name", "date", "date of exam", "exam date", "dob",
                     "allergies", "medications", "order number", "department", "priority", "transcribed by"),
}  # fmt: skip
"""Sections by name, with the headings that open them."""

BODY = ("findings", "impression")
"""Sections that say what is on the film."""

_SECTION_OF = {heading: name for name, headings in SECTIONS.items() for heading in headings}
_KNOWN = "|".join(sorted((re.escape(heading).replace(r"\ ", " +") for heading in _SECTION_OF), key=len, reverse=True))
_ORGANS = (
    r"lungs?|airways?|heart|hearts|cardiac|cardiomediastin\w+|cardiovascular|mediastin\w+|hil(?:a|um|ar)|pleura\w*|"
    r"bones?|bony|osseous|skelet\w+|soft|chest|thorax|thoracic|abdom\w+|diaphragm\w*|trachea|aorta|vessels?|"
    r"vascular\w*|pulmonary|lines?|tubes?|devices?|hardware|spine|ribs?|volumes?|parenchyma|costophrenic|apices|"
    r"catheters?|others?|lung bases|support"
)
_ORGAN = re.compile(rf"\b(?:{_ORGANS})\b", re.IGNORECASE)
_FREE = r"[A-Z][A-Z0-9 ,/()&'-]{2,60}?"
_DECORATION = r"[ \t]*(?:[*#_>]+[ \t]*|\d{1,2}[.)][ \t]+)*"
_END = r"[ \t]*(?:[*_]+)?[ \t]*:[*_]*"
_LINE_END = rf"(?:{_END}|[ \t]*(?:[*_]+)?[ \t]*(?=\n|\Z)|[ \t]+[-–—](?=\s))"
# Inside a line these are headings in any case; "study:", "view:" and the like may be words of a sentence there.
_SURE = (
    "findings|impression|impressions|indications?|comparisons?|technique|conclusions?|recommendations?|"
    "clinical history|"
    "clinical information|reason for exam(?:ination)?|findings and impression|wet read|addendum"
)
_NO_HEADING_AFTER = (
    r"(?<!other )(?<!no )(?<!the )(?<!these )(?<!following )(?<!additional )(?<!any )(?<!my )(?<!our )(?<!main )"
)
_UPPER = _KNOWN.upper()
_ORGAN_WORDS = rf"(?:[A-Za-z]+[ ,/&-]+){{0,3}}(?:{_ORGANS})(?:[ ,/&]+[A-Za-z]+){{0,3}}"
_OPENS = re.compile(
    rf"^{_DECORATION}(?:(?P<known>(?i:{_KNOWN})){_LINE_END}|(?P<organ>(?i:{_ORGAN_WORDS})){_END}|"
    rf"(?P<free>{_FREE}){_END})"
    rf"|(?<=[.!?;])[ \t]+(?:(?P<inner_organ>(?i:{_ORGAN_WORDS})){_END}|(?P<inner_free>{_FREE}){_END})"
    rf"|(?<![\w/]){_NO_HEADING_AFTER}(?P<inner>(?i:{_SURE})|{_UPPER}){_END}",
    re.MULTILINE,
)
# Words of organs do not run on into the next heading: "clear lungs IMPRESSION: normal".
_RUNS_ON = re.compile(rf"(?:[a-z] +(?:{_UPPER})|\b(?i:{_SURE}))$")


class Heading(NamedTuple):
    ""

    """A heading in a text: where it starts, where its section's text starts, and the section ("" for words unknown)."""

    start: int
    end: int
    section: str
    words: str


def find(text: str) -> Iterator[Heading]:
    """Yield the headings of a text whose lines end in "\\n"; organs open "organ", unknown upper case opens ""."""
    place = 0
    while match := _OPENS.search(text, place):
        known, organ = match["known"] or match["inner"], match["organ"] or match["inner_organ"]
        words = known or organ or match["free"] or match["inner_free"]
        if not known and _RUNS_ON.search(words):
            place = match.start() + 1
            continue
        place = match.end()
        if known or re.sub(r"\s+", " ", words.lower()) in _SECTION_OF:
            section = _SECTION_OF[re.sub(r"\s+", " ", words.lower())]
        else:
            section = "organ" if organ or _ORGAN.search(words) else ""
        yield Heading(match.start(), match.end(), section, words)
