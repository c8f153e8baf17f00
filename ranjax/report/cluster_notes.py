"""What intervals are over where several test images are of one patient, or several questions about one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report.markup import Markup, tag


def tested(results: Mapping[str, Any], split: str, count: str) -> str:
    """Returns how many were tested on a split: "107 patients (171 images)", or `count` where each stands alone."""
    return str((results.get("independent") or {}).get(split, count))


def words(results: Mapping[str, Any]) -> str:
    """Returns what is drawn whole on which splits; empty where every image stands alone."""
    found = results.get("independent") or {}
    if not found:
        return ""
    told = ", ".join(f"{wording.split_label(split)} {said}" for split, said in found.items())
    drawn = " or ".join(who for who in ("patients", "pictures") if any(who in str(said) for said in found.values()))
    return f"{told[:1].upper()}{told[1:]}: intervals and tests draw whole {drawn}, and n counts {drawn}."


def said(results: Mapping[str, Any]) -> Markup:
    """Returns `words` as a paragraph to stand beside figures, or nothing."""
    found = words(results)
    return tag("p", tag("strong", markup.figures(found))) if found else markup.join([])
