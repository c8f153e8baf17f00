"""Captions that a user brings, rewritten by whatever language model: a CSV of ids and captions."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.captions.comparison import exchanged_words
from ranjax.data.captions.keyword_rewrites import Found
from ranjax.data.captions.radiograph_reading import Facts
from ranjax.data.captions.rewrite import Rewrite
from ranjax.data.text.reports import normalized_words

COLUMNS = ("id", "caption")
ABSENT = "no caption of this id in the file"
IDENTICAL = "the file's caption has the original's words"


def read_captions(path: str | Path) -> dict[str, str]:
    """Return the captions of a file by id.

    Raises:
      ConfigError: the file is not there. DataError: no CSV in UTF-8 with the columns "id" and "caption", an id that is
        empty or given twice, an empty caption, a line with more fields than the first one; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("noise.captions.file", str(path), "a CSV with the columns 'id' and 'caption'")
    found: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            for name in COLUMNS:
                if names.count(name) != 1:
                    raise DataError(f"{path} must have one column {name!r}; it has {names}.")
            for row in reader:
                where = f"line {reader.line_num} of {path}"
                if any(row.get(None) or ()):  # type: ignore[call-overload]
                    raise DataError(
                        f'{where} has more fields than names; a caption with commas stands in quotes ("...").'
                    )
                identity, caption = ((row[name] or "").strip() for name in COLUMNS)
                if not identity or not caption:
                    raise DataError(f"{where} has no {'id' if not identity else 'caption'}.")
                if identity in found:
                    raise DataError(f"{where}: the id {identity!r} is given twice.")
                found[identity] = caption
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV in UTF-8 that can be read: {error}.") from error
    if not found:
        raise DataError(f"{path} has no lines.")
    return found


class FileCaptions:
    """Gives each caption the one of a user's file, where there is one with other words."""

    def __init__(self, captions: dict[str, str]):
        self.captions = captions

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Return the ids of the file that are none of `ids`."""
        known = set(ids)
        return [identity for identity in self.captions if identity not in known]

    def __call__(self, identity: str, caption: str, facts: Facts | None) -> Found:
        """Return the file's caption of a pair, with the runs of words that it exchanges."""
        given = self.captions.get(identity)
        if given is None:
            return Found([], ABSENT)
        if normalized_words(given) == normalized_words(caption):
            return Found([], IDENTICAL)
        return Found([Rewrite(given, tuple(exchanged_words(caption, given)))])
