"""What could name a person in a report is replaced by a mark, and patient ids by keyed hashes.

A pass of patterns for text that its publisher has de-identified before, as a second look: it finds titles with names,
dates, telephone and record numbers, addresses of mail and web, ages over 89. It does not find a bare name in running
text; identified reports need a tool made and validated for that.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ranjax.errors import ConfigError

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec"
_NUMBERED = "mrn|medical record(?: number)?|accession(?: number)?|patient id|ssn|pager"
_SAID = "signed|dictated|reviewed|read|interpreted"
PATTERNS: tuple[tuple[str, str], ...] = (
    ("[MAIL]", r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    ("[LINK]", r"\bhttps?://\S+|\bwww\.\S+"),
    ("[DATE]", r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"),
    ("[DATE]", rf"\b(?i:{_MONTHS})[a-z]*\.?\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}\b"),
    ("[DATE]", rf"\b\d{{1,2}}\s+(?i:{_MONTHS})[a-z]*\.?,?\s+\d{{2,4}}\b"),
    ("[TIME]", r"\b\d{1,2}:\d{2}(?::\d{2})?\s*(?:[AaPp]\.?[Mm]\b\.?)?"),
    ("[PHONE]", r"(?<!\d)(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]?\d{4}(?!\d)"),
    ("[ID]", rf"\b(?i:{_NUMBERED})\b\W{{0,3}}[\w-]*\d[\w-]*"),
    ("[ID]", r"\b\d{3}-\d{2}-\d{4}\b"),
    ("[ID]", r"\b\d{6,}\b"),
    ("[NAME]", r"\b(?:Dr|Drs|Mr|Mrs|Ms|Miss|Prof|Doctor)\b\.?\s+(?:[A-Z][\w'-]*\.?\s?){1,3}(?<!\s)"),
    ("[NAME]", rf"(?i:\b(?:{_SAID}) by)\W+(?:[A-Z][\w'-]*[ ,.]*){{1,4}}"),
    ("[AGE]", r"\b(?:9\d|1[0-2]\d)(?=[\s-]*(?:y\.?o\.?\b|years?[\s-]old|year[\s-]old))"),
)  # fmt: skip
_COMPILED = tuple((mark, re.compile(pattern)) for mark, pattern in PATTERNS)
KEY_BYTES = 16


def deidentify(text: str) -> tuple[str, int]:
    """The text with marks such as [DATE] in place of what the patterns find, and how many were set."""
    count = 0
    for mark, pattern in _COMPILED:
        text, found = pattern.subn(mark, text)
        count += found
    return text, count


def read_key(path: str) -> bytes:
    """The secret for `pseudonym`, from a file that stays outside of the prepared set.

    Raises:
      ConfigError: no such file, or fewer than 16 bytes, which could be guessed.
    """
    file = Path(path).expanduser()
    key = file.read_bytes().strip() if file.is_file() else b""
    if len(key) < KEY_BYTES:
        raise ConfigError("patient_key", path, f"a file with at least {KEY_BYTES} secret bytes")
    return hashlib.blake2b(key).digest()


def pseudonym(identity: str, key: bytes) -> str:
    """32 hexadecimal digits that only the holder of `key` can compute: keyed BLAKE2b, the same in every run."""
    return hashlib.blake2b(identity.encode(), key=key, digest_size=16).hexdigest()
