"""Split reports into captions: several an image, the sentences of its report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ranjax.core.errors import ConfigError, DataError

_END = re.compile(r"(?<=[.!?;])\s+")
_HEADING = re.compile(r"^\s*(findings|impression)\s*:\s*", re.IGNORECASE)


class Captions(NamedTuple):
    """Attributes: texts; image_of_text: the image of each."""

    texts: list[str]
    image_of_text: Int64[np.ndarray, "texts"]


def sentences(report: str) -> list[str]:
    """Return the sentences of a report without section headings; those without a letter are left out."""
    parts = [_HEADING.sub("", part).strip() for part in _END.split(report)]
    return [part for part in parts if re.search(r"[^\W\d_]", part)]


def of_reports(reports: Sequence[str], most: int) -> Captions:
    """Return at most `most` captions an image: its sentences, the longest ones where it has more, in their order.

    Short denials ("No effusion.") are worded alike in many reports. A caption worded like one of an image's own is right
    for it (`retrieval.ranks`, `texts_as_written`), and the longest sentences tell reports apart best.

    Raises:
      ConfigError: `most` below 1.  DataError: a report without words.
    """
    if most < 1:
        raise ConfigError("evaluate.captions", most, "a number of at least 1")
    texts: list[str] = []
    image_of_text: list[int] = []
    for image, report in enumerate(reports):
        found = sentences(report)
        if not found:
            raise DataError(f"report {image} has no words to make captions of")
        longest = sorted(sorted(range(len(found)), key=lambda i: (-len(found[i]), i))[:most])
        texts += [found[i] for i in longest]
        image_of_text += [image] * len(longest)
    return Captions(texts, np.array(image_of_text, np.int64))
