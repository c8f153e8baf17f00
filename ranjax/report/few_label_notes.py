"""What intervals say where heads learn from few labels: one choice of examples, which they hold fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranjax.report import markup
from ranjax.report.labels_text import finite, percent
from ranjax.report.markup import Markup, tag


def words(results: Mapping[str, Any]) -> str:
    """Returns how few labels a run had and what its intervals hold fixed; empty where all labels were used."""
    adapt = (results.get("config") or {}).get("adapt") or {}
    of_methods = [method["data"] for method in results.get("methods") or [] if isinstance(method.get("data"), Mapping)]
    told: Mapping[str, Any] = of_methods[0] if of_methods else {}
    shots, share = (told.get(name, adapt.get(name)) for name in ("shots", "share"))
    if finite(shots) and shots > 0:
        few = f"{shots:g} labelled example{'s' if shots != 1 else ''} of each class"
    elif finite(share) and 0 < share < 1:
        few = f"{percent(share)} of the labelled examples"
    else:
        return ""
    count = told.get("examples")
    few += f" ({count:,} in all)" if finite(count) else ""
    return (
        f"Few labels: every method and head of this run was fitted to the same {few}. Intervals and tests hold that "
        "choice fixed: they do not say what another choice would give, which runs that differ in their seed do."
    )


def said(results: Mapping[str, Any]) -> Markup:
    """Returns `words` as a paragraph to stand beside figures, or nothing."""
    found = words(results)
    return tag("p", tag("strong", markup.figures(found))) if found else markup.join([])
