"""What a cell of a table says: nothing, a text, or a mark of a class, in the spellings that programs write.

Spreadsheets, databases and data frames write one value in many ways. A spelling that is not known here is an error
of its cell, never a guess.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping

from ranjax.core.errors import DataError

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0
UNMARKED = -2.0
"""The mark of a class whose cell is empty: its publisher does not say what that means."""

_MISSING = r"""
#n/a #na #null! #ref! #value! #div/0! #num! #name? -1.#ind -1.#qnan 1.#ind 1.#qnan -nan nan nat <na> n/a n.a. na null
<null> (null) none nil \n undefined missing (blank) (empty) -- ---
"""
MISSING = frozenset(("", "#n/a n/a", *_MISSING.split()))
"""Texts, in lower case, that stand for an empty cell: those of pandas and pyarrow, of spreadsheets' errors, of SQL."""

_PRESENT = "true t yes y x on ja j wahr oui vrai si sí sì vero verdadero sim verdadeiro positive pos present ✓ ✔ ☑"
_ABSENT = "false f no n off nein falsch non faux falso não nao negative neg absent ☐"
_UNCERTAIN = "u uncertain unsure equivocal indeterminate possible possibly ?"
NAMES_NONE = frozenset(
    ("possible", "possibly", "uncertain", "unsure", "equivocal", "indeterminate", "maybe", "probable", "probably",
     "doubtful", "unclear", "unknown", "undetermined", "unlabeled", "unlabelled", "not sure", "not known", "tbd")
)  # fmt: skip
"""Texts of a label's column, in lower case, that name no class: nobody says for certain what the film shows."""
_DOUBTED = re.compile(
    r"[\W_]*|\?.*|.*\?\)?|[+-]?\d+[.,]\d*[1-9]\d*|"
    r"(?:possible|possibly|poss|probable|probably|prob|suspected|suspicious for|suspicion of|susp|questionable|query|"
    r"likely|maybe|presumed|r/o|rule out|cannot exclude|can't exclude|equivocal|uncertain|doubtful|unsure|v\.a|"
    r"verdacht auf|sospecha de|suspicion de)\b.+|"
    r".*\((?:possible|probable|suspected|uncertain|equivocal|likely|unclear)\)",
    re.DOTALL,
)
_TRUTH: Mapping[str, float] = {
    word: value
    for words, value in ((_PRESENT, PRESENT), (_ABSENT, ABSENT), (_UNCERTAIN, UNCERTAIN))
    for word in words.split()
} | {"\x00": ABSENT, "\x01": PRESENT}
# "1", "1.0", "1.000", "1,0" of a decimal comma, and "1E+00"; "1,000" may be a thousand and is no mark.
_NUMBER = re.compile(r"([+-]?)([01])(?:[.]0*|,0{1,2})?(?:e[+-]?0+)?", re.IGNORECASE)
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d{1,3}", re.IGNORECASE)
_EXACT = 2.0**53
"""Above it a float holds whole numbers no more one by one."""
# "#SPILL!", "#WERT!", "#¡VALOR!", "#NV": a spreadsheet's word for a value that it could not work out.
_ERROR = re.compile(r"#[\w/¡]{2,16}[!?]|#n/?[adv]|#getting_data", re.IGNORECASE)
_FORMULA = re.compile(r"=\s*[A-Za-z_.]+\(.*\)")
# "05-Mar", "Mar-05", "2024-03-05 00:00:00": what spreadsheets make of "3-5" and "5/3", of which several become one.
_DATED = re.compile(
    r"(?:\d{1,2}-)?(?:Jan|Feb|Mar|Mrz|Mär|Apr|May|Mai|Jun|Jul|Aug|Sep|Oct|Okt|Nov|Dec|Dez)-\d{2}(?:\d{2})?|"
    r"\d{1,2}-(?:Jan|Feb|Mar|Mrz|Mär|Apr|May|Mai|Jun|Jul|Aug|Sep|Oct|Okt|Nov|Dec|Dez)|"
    r"\d{4}-\d{2}-\d{2}[ T]00:00:00"
)
_CARRIAGE = re.compile(r"_x000[dD]_(?:\r?\n)?")
_NOBODY = re.compile(
    r"anon(?:ymous|ymized|ymised|ym|ymisiert|ymous patient)?|unknown(?: (?:patient|name|id))?|no (?:patient|name|id)|"
    r"not (?:known|available)|removed|deleted|redacted|withheld|hidden|unbekannt|inconnu|desconocido|-1|-9+|[?]+|[*]+",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[,.' \u00a0\u202f]\d{3})+")


def names_none(label: str) -> bool:
    """Return whether a label names no class: it says that nobody is certain ("unknown", "possible edema", "edema?"), is
    a measure or a probability ("0.93"), or holds no letter and no digit.
    """
    text = " ".join(label.casefold().split()).rstrip(".")
    return text in NAMES_NONE or bool(_DOUBTED.fullmatch(text))


def is_number(label: str) -> bool:
    """Return whether a label is a number, as those of a table that numbers its classes."""
    return bool(re.fullmatch(r"[+-]?\d+(?:[.,]\d*)?", label))


def is_missing(value: object) -> bool:
    """Return whether a cell is empty: None, NaN, one of `MISSING` in any case, or a spreadsheet's error."""
    if isinstance(value, str):
        text = value.strip().casefold()
        return text in MISSING or text.rstrip(".") in MISSING or bool(_ERROR.fullmatch(text))
    return value is None or (isinstance(value, float) and math.isnan(value))


def words(value: object) -> str:
    """Return the text of a cell without surrounding blanks; whole numbers without a decimal point; "" where empty.

    Raises:
      DataError: a list, a mapping or a truth value, which are no text; a formula; a number that is not finite.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        if _FORMULA.fullmatch(value.strip()):
            raise DataError(f"holds {value.strip()[:40]!r}, a formula and not its value")
        # As spreadsheets' files write the end of a line.
        return _CARRIAGE.sub("\n", value).strip()
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = {bool: "a truth value", list: "a list", dict: "a mapping"}.get(type(value), f"a {type(value).__name__}")
        raise DataError(f"holds {kind}, not a text")
    if not math.isfinite(value):
        raise DataError(f"holds {value}, no number")
    return str(int(value)) if value == int(value) else str(value)


def name(value: object) -> str:
    """Return a text in one line, for ids, patients, splits and labels.

    Raises:
      DataError: as `words`, or a number that was rounded, as 1.23E+11 or a float above 2^53, or made a date, as 05-Mar:
        many ids become one so.
    """
    if isinstance(value, float) and _EXACT <= abs(value) < math.inf:
        raise DataError(f"holds {value!r}, a number that was rounded where it was stored as a float")
    text = " ".join(words(value).split())
    if _ROUNDED.fullmatch(text):
        raise DataError(f"holds {text!r}, a number that a spreadsheet has rounded")
    if _DATED.fullmatch(text):
        raise DataError(f"holds {text!r}, a date that a spreadsheet may have made of a number")
    return text


def patient(value: object) -> str:
    """Return who a cell names, "" for nobody.

    Raises:
      DataError: as `name`, or a word that stands for everybody who is not named, as "unknown", "anonymous" or -999.
    """
    text = name(value)
    if _NOBODY.fullmatch(text):
        raise DataError(f"holds {text!r}, which names nobody")
    return text


def written_list(value: object) -> list[str] | None:
    """Return the texts of a list that a data frame wrote as text, as "['edema', 'mass']"; None for any other text.

    Raises:
      DataError: a list without commas, as NumPy writes it, or of something else than texts.
    """
    text = words(value)
    if not re.fullmatch(r"\[(?:\s*['\"].*|\s*)\]", text, re.DOTALL):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise DataError(f"holds {text[:40]!r}, a list that cannot be read") from error
    if re.search(r"['\"]\s+['\"]", text) or not all(isinstance(part, str) for part in found):
        raise DataError(f"holds {text[:40]!r}, a list that cannot be read: its texts stand without commas")
    return found


def mark(value: object) -> float | None:
    """Return what a cell says of a class: `PRESENT`, `ABSENT` or `UNCERTAIN`; None for an empty one.

    Read are 1, 0 and -1 as numbers of any spelling, and truth values as spreadsheets and databases write them.

    Raises:
      DataError: any other value, a probability among them.
    """
    if isinstance(value, bool):
        return PRESENT if value else ABSENT
    if isinstance(value, str) and value in ("\x00", "\x01"):
        return _TRUTH[value]
    text = words(value)
    if not text:
        return None
    if found := _NUMBER.fullmatch(text):
        return ABSENT if found.group(2) == "0" else UNCERTAIN if found.group(1) == "-" else PRESENT
    known = _TRUTH.get(text.casefold())
    if known is None:
        raise DataError(
            f"holds {text[:40]!r}, which says neither present (1, true, yes), absent (0) nor uncertain (-1)"
        )
    return known


def check_spellings(found: Iterable[tuple[str, str]], what: str, by_case: bool = True) -> None:
    """Refuse values that look like one value in several spellings: "7", "7.0", "007"; "1234" and "1,234".

    Args:
      found: values and where each stands first, as "row 3".
      what: names the values in the error, as "patients".
      by_case: values may differ by case alone.

    Raises:
      DataError: two of them; both are named with their places.
    """
    first: dict[str, tuple[str, str]] = {}
    for value, place in found:
        other, there = first.setdefault(_plain_number(value if by_case else value.casefold()), (value, place))
        if other != value:
            both = f"{other!r} ({there}) and {value!r} ({place})"
            raise DataError(f"The {what} {both} look like one in two spellings: write it one way.")


def _plain_number(text: str) -> str:
    """Return a number without leading zeros, decimals of zero and marks of thousands; any other text as it is."""
    if _GROUPED.fullmatch(text):
        text = re.sub(r"[,.' \u00a0\u202f]", "", text)
    if found := re.fullmatch(r"([+-]?)0*(\d+)(?:[.,]0{1,2})?", text):
        return "".join(found.groups())
    return text
