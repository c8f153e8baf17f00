"""Attacked pairs to look at: radiograph, attacked image, magnified difference, the report with changes marked."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import labels_text as wording
from ranjax.report import markup
from ranjax.report.markup import Markup, tag

_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGE_BYTES = 8_000_000
_WORD = re.compile(r"\w+|[^\w\s]")


def png_source(encoded: Any) -> str | None:
    """Returns a data URI of a base64 PNG, or None where `encoded` is not one."""
    if not isinstance(encoded, str) or len(encoded) > _IMAGE_BYTES:
        return None
    encoded = encoded.removeprefix("data:image/png;base64,")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"data:image/png;base64,{encoded}" if raw.startswith(_PNG) else None


def word_changes(before: str, after: str) -> list[tuple[str, str]]:
    """Returns the first text in pieces (old, new), where old == new for what did not change.

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
        start, gap = old[i1].start(), before[end : old[i1].start()]
        end = old[i2 - 1].end()
        taken = before[start:end]
        same = first[i1:i2] == second[j1:j2]
        if gap:
            _append_same(pieces, gap)
        if same:
            _append_same(pieces, taken)
        else:
            pieces.append((taken, put))
    if before[end:]:
        _append_same(pieces, before[end:])
    return pieces


def _append_same(pieces: list[tuple[str, str]], text: str) -> None:
    if pieces and pieces[-1][0] == pieces[-1][1]:
        text = pieces.pop()[0] + text
    pieces.append((text, text))


def marked_report(before: str, after: str) -> Markup:
    """Returns the report as one paragraph: what was taken out struck through, an arrow, what was put in set off."""
    parts: list[Any] = []
    for old, new in word_changes(before, after):
        if old == new:
            parts.append(old)
        elif not new:
            parts.append(tag("del", old))
        elif not old:
            parts += [" ", tag("ins", new), " "]
        else:
            arrow = tag("span", " → ", class_="arrow")
            parts.append(tag("span", tag("del", old), arrow, tag("ins", new), class_="swap"))
    return tag("p", parts, class_="report")


def pair(example: Mapping[str, Any], classes: Sequence[Any]) -> Markup:
    """Returns one attacked pair as an article."""
    magnification = example.get("magnification")
    times = f", magnified {magnification:g} times" if wording.finite(magnification) else ", magnified"
    label = _label(example.get("label"), classes)
    pictures = [
        ("image", "Radiograph", f"Radiograph, {label}" if label else "Radiograph", "radiograph"),
        ("attacked", "Attacked noisy pair", "The same radiograph after the attack", "radiograph"),
        ("difference", f"Difference{times}", f"Difference of the two{times}; mid grey is no change", "difference"),
    ]
    before, after = str(example.get("report") or ""), str(example.get("attacked_report") or "")
    changed = sum(old != new for old, new in word_changes(before, after))
    head = tag("h3", tag("code", example.get("id", "")), f" — {label}" if label else None, _kind(example))
    return tag(
        "article",
        head,
        tag(
            "div",
            [_picture(example.get(key), caption, alt, kind) for key, caption, alt, kind in pictures],
            class_="triple",
        ),
        marked_report(before, after) if after else tag("p", before, class_="report"),
        tag("p", markup.figures(_facts(example, changed)), class_="facts"),
        class_="pair",
    )


def _kind(example: Mapping[str, Any]) -> Markup | None:
    """Why this pair is shown: "worst", "typical" or "least changed"; None where nothing is said."""
    return tag("span", f" {example['kind']}", class_="kind") if example.get("kind") else None


def _label(label: Any, classes: Sequence[Any]) -> str:
    if isinstance(label, int) and not isinstance(label, bool):
        return (
            str(classes[label])
            if 0 <= label < len(classes)
            else "several findings"
            if label == -1
            else f"class {label}"
        )
    return "" if label is None else str(label)


def _picture(encoded: Any, caption: str, alt: str, kind: str) -> Markup:
    source = png_source(encoded)
    shown = tag("img", src=source, alt=alt, class_=kind) if source else tag("span", "no picture", class_="missing")
    return tag("figure", shown, tag("figcaption", caption))


def _facts(example: Mapping[str, Any], changed: int) -> str:
    facts = []
    if example.get("condition") is not None:
        facts.append(f"condition {wording.condition_label(example['condition'])}")
    if wording.finite(example.get("norm")):
        facts.append(f"largest change of a pixel {example['norm'] * 255:.2g}/255")
    facts.append(f"{changed} place{'' if changed == 1 else 's'} of the report changed")
    if wording.finite(example.get("loss_before")) and wording.finite(example.get("loss_after")):
        facts.append(f"loss that the attack raises {example['loss_before']:.2f} → {example['loss_after']:.2f}")
    return "; ".join(facts) + "."
