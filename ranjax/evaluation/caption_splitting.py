"""Several captions an image: the sentences of its report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ranjax.core.errors import ConfigError, DataError

_END = re.compile(r"(?<=[.!?;])\s+")
_HEADING = re.compile(r"^\s*(findings|impression)\s*:\s*", re.IGNORECASE)


class Captions(NamedTuple):
    """Attributes: texts: T captions; owners i[T], the image each belongs to."""

    texts: list[str]
    owners: np.ndarray


def sentences(report: str) -> list[str]:
    """The sentences of a report without section headings; those without a letter fall away."""
    parts = [_HEADING.sub("", part).strip() for part in _END.split(report)]
    return [part for part in parts if re.search(r"[^\W\d_]", part)]


def of_reports(reports: Sequence[str], most: int) -> Captions:
    """At most `most` captions an image: its sentences, the longest ones where it has more, in their order.

    Short denials ("No effusion.") are worded alike in many reports; what is worded like a caption of an image's own is
    right for it (`retrieval.ranks`, `texts_as_written`), and the longest sentences tell reports apart best.

    Raises:
      ConfigError: `most` below 1.  DataError: a report without words.
    """
    if most < 1:
        raise ConfigError("evaluate.captions", most, "at least 1")
    texts: list[str] = []
    owners: list[int] = []
    for owner, report in enumerate(reports):
        found = sentences(report)
        if not found:
            raise DataError(f"report {owner} has no words to make captions of")
        kept = sorted(sorted(range(len(found)), key=lambda i: (-len(found[i]), i))[:most])
        texts += [found[i] for i in kept]
        owners += [owner] * len(kept)
    return Captions(texts, np.array(owners, np.int64))
