"""The section on noisy captions: how plausible they are, a line a recipe, and some of them beside their originals."""

from __future__ import annotations

from ranjax.report import wording
from ranjax.report.blocks import Blocks, Details
from ranjax.report.book import Book
from ranjax.report.report_tables import Table
from ranjax.report.stored_results import Results

MEANINGS = {"keep": "stay true", "contradict": "are false"}
_HEADER = (
    *("Recipe", "Captions", "Noisy pairs", "Changed", "Same parts of speech", "Perplexity, times the original's"),
    *("Cosine to the original", "Labels changed", "False by the exact findings", "Left"),
)
_FIELDS = (
    *(
        "recipe",
        "meaning",
        "pairs",
        "changed",
        "same_parts_of_speech",
        "perplexity_ratio",
        "perplexity_ninth",
        "cosine",
    ),
    *("labels_changed", "false", "judged"),
)


def captions(book: Book) -> Blocks:
    """Yield the table of plausibility, and ten drawn captions of each recipe beside their originals."""
    measured = [one for one in book.results.get("captions") or [] if one.get("changed") or one.get("left")]
    if not measured:
        return
    yield Table(_HEADER, [_line(one) for one in measured])
    rows = []
    for one in measured:
        perplexity = one.get("perplexity") or {}
        ratios = {f"perplexity_{name}": perplexity.get(name) for name in ("ratio", "ninth")}
        rows.append({name: (one | ratios).get(name) for name in _FIELDS})
    yield book.csv("captions", rows, _FIELDS)
    for one in measured:
        lines = [[str(e["before"]), str(e["after"]), _exchanges(e)] for e in one.get("examples") or []]
        title = f"{wording.condition_label(one['recipe'])}: {len(lines)} noisy captions, drawn by their ids"
        yield Details(title, [Table(["Original", "Noisy", "Exchanged"], lines, heads=3, numeric=False)])


def _line(one: Results) -> list[str]:
    perplexity, judged = one.get("perplexity") or {}, one.get("judged") or 0
    false = f"{_share(one.get('false'))} of {judged}" if judged else "not known"
    left = ", ".join(f"{count} ({reason})" for reason, count in (one.get("left") or {}).items())
    return [
        wording.condition_label(one["recipe"]),
        MEANINGS.get(str(one.get("meaning")), "–"),
        wording.plain(one.get("pairs")),
        _share(one.get("changed")),
        _share(one.get("same_parts_of_speech")),
        f"{perplexity['ratio']:.2f}" if wording.finite(perplexity.get("ratio")) else "not measured",
        f"{one['cosine']:.2f}" if wording.finite(one.get("cosine")) else "–",
        _share(one.get("labels_changed")),
        false,
        left or "none",
    ]


def _share(value: object) -> str:
    return f"{100 * value:.1f} %" if wording.finite(value) else "–"


def _exchanges(example: Results) -> str:
    return "; ".join(f"{what}: {before} → {after}" for what, before, after in example.get("exchanges") or []) or "–"
