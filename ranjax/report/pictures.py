"""Attacked pairs to look at: radiograph, attacked image, magnified difference, the report with changes marked."""

from __future__ import annotations

import base64
import difflib
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from ranjax.report import wording
from ranjax.report.stored_results import Results

_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGE_BYTES = 8_000_000
_WORD = re.compile(r"\w+|[^\w\s]")


def png_source(encoded: object) -> str | None:
    """Return a data URI of a base64 PNG, or None where `encoded` is not one."""
    if not isinstance(encoded, str) or len(encoded) > _IMAGE_BYTES:
        return None
    encoded = encoded.removeprefix("data:image/png;base64,")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    return f"data:image/png;base64,{encoded}" if raw.startswith(_PNG) else None


def word_changes(before: str, after: str) -> list[tuple[str, str]]:
    """Return the first text in pieces (old, new), where old == new for pieces that did not change.

    Joined, the old pieces are the first text. Words and signs are compared without regard to case and spacing, since
    the second text may come out of a tokenizer: place by place where both have as many, otherwise by their longest
    common runs.
    """
    old, new = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    first, second = [word.group().lower() for word in old], [word.group().lower() for word in new]
    if len(first) == len(second):
        codes = [("", index, index + 1, index, index + 1) for index in range(len(first))]
    else:
        codes = list(difflib.SequenceMatcher(a=first, b=second, autojunk=False).get_opcodes())
    pieces: list[tuple[str, str]] = []
    end = 0
    for _, i1, i2, j1, j2 in codes:
        put = after[new[j1].start() : new[j2 - 1].end()] if j2 > j1 else ""
        if i2 == i1:
            pieces.append(("", put))
            continue
        start, stop = old[i1].start(), old[i2 - 1].end()
        gap, taken = before[end:start], before[start:stop]
        pieces += [(gap, gap), (taken, taken if first[i1:i2] == second[j1:j2] else put)]
        end = stop
    joined: list[tuple[str, str]] = []
    for same, group in itertools.groupby([*pieces, (before[end:],) * 2], lambda piece: piece[0] == piece[1]):
        together = list(group)
        text = "".join(old for old, _ in together)
        joined += [(text, text)] * bool(text) if same else together
    return joined


class Pair(NamedTuple):
    """One attacked pair as the page shows it; `pieces` are those of `word_changes`.

    A picture is its data URI or None, the words under it, those in its place, and its class of style.
    """

    id: str
    label: str
    kind: str
    pictures: list[tuple[str | None, str, str, str]]
    pieces: list[tuple[str, str]]
    facts: str


def pair(example: Results, classes: Sequence[object]) -> Pair:
    """Return an item of results["examples"] as the page shows it."""
    magnification = example.get("magnification")
    times = f", magnified {magnification:g} times" if wording.finite(magnification) else ", magnified"
    label = _label(example.get("label"), classes)
    shown = {
        "image": ("Radiograph", f"Radiograph, {label}" if label else "Radiograph", "radiograph"),
        "attacked": ("Attacked noisy pair", "The same radiograph after the attack", "radiograph"),
        "difference": (f"Difference{times}", f"Difference of the two{times}; mid grey is no change", "difference"),
    }
    before, after = str(example.get("report") or ""), str(example.get("attacked_report") or "")
    pieces = word_changes(before, after)
    return Pair(
        str(example.get("id", "")),
        label,
        str(example.get("kind") or ""),
        [(png_source(example.get(key)), *words) for key, words in shown.items()],
        pieces if after else [(before, before)],
        _facts(example, sum(old != new for old, new in pieces)),
    )


def _label(label: object, classes: Sequence[object]) -> str:
    if not isinstance(label, int) or isinstance(label, bool):
        return "" if label is None else str(label)
    if 0 <= label < len(classes):
        return str(classes[label])
    return "several findings" if label == -1 else f"class {label}"


def _facts(example: Results, changed: int) -> str:
    facts = []
    if example.get("condition") is not None:
        facts.append(f"condition {wording.condition_label(example['condition'])}")
    if wording.finite(example.get("norm")):
        facts.append(f"largest change of a pixel {example['norm'] * 255:.2g}/255")
    facts.append(f"{changed} place{'' if changed == 1 else 's'} of the report changed")
    if wording.finite(example.get("loss_before")) and wording.finite(example.get("loss_after")):
        facts.append(f"loss that the attack raises {example['loss_before']:.2f} → {example['loss_after']:.2f}")
    return "; ".join(facts) + "."
