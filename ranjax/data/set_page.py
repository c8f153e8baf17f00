"""What went into a prepared set: counts with reasons, labels, value ranges, copies across splits, a contact sheet."""

from __future__ import annotations

import array
import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ranjax.data.images.decode import Outcome
from ranjax.data.images.duplicates import Group
from ranjax.data.row_filters import Row

Json = dict[str, Any]
"""A part of a manifest."""

LISTED = 1000
"""Groups of copies and patients that are listed one by one at most; all are counted."""
NOT_BY_PATIENT = "not split by patient: films of one patient may lie in several splits"
FILMS = 10
"""Films of a group of copies that are listed at most."""


def reasons(exclusions: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Count how often each reason left a row out, most frequent first; names and numbers inside a reason count as
    one."""
    counts = collections.Counter(_general(item["reason"]) for item in exclusions)
    return dict(counts.most_common())


class LabelTable:
    """Counts of labels by split, row by row.

    `table()` has a row per split: records, records of the single-label task, those without a class, and per class how
    many show it, and in how many it is in doubt.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self._of: dict[str, Json] = {}

    def add(self, row: Row) -> None:
        """Count a row."""
        if row.split not in self._of:
            shown = np.zeros(len(self.classes), np.int64)
            self._of[row.split] = {"records": 0, "single": 0, "none": 0, "shown": shown, "doubt": collections.Counter()}
        of = self._of[row.split]
        of["records"] += 1
        of["single"] += int(row.label >= 0)
        of["none"] += int(not row.labels.any())
        of["shown"] += row.labels > 0
        doubtful = str(row.group.get("uncertain", "")).split(", ")
        of["doubt"].update(name for name in doubtful if name in self.classes)

    def table(self) -> list[Json]:
        """Return what was counted, splits in the order in which they came."""
        return [
            {
                "split": split,
                **{name: of[name] for name in ("records", "single", "none")},
                "present": {name: int(n) for name, n in zip(self.classes, of["shown"])},
                "uncertain": dict(of["doubt"]),
            }
            for split, of in self._of.items()
        ]


def ranges(outcomes: Iterable[Outcome]) -> Json:
    """Describe the publisher's images: modes, heights and widths, values as stored; brightness as prepared."""
    by_mode: dict[str, tuple[float, float]] = {}
    modes: collections.Counter[str] = collections.Counter()
    noted: collections.Counter[str] = collections.Counter()
    sizes, means = {"height": array.array("q"), "width": array.array("q")}, array.array("d")
    for outcome in outcomes:
        low, high = by_mode.get(outcome.mode, (outcome.low, outcome.high))
        by_mode[outcome.mode] = (min(low, outcome.low), max(high, outcome.high))
        modes[outcome.mode] += 1
        noted.update(mark for mark in outcome.marks.split("; ") if mark)
        sizes["height"].append(outcome.height)
        sizes["width"].append(outcome.width)
        means.append(outcome.mean)
    found: Json = {"modes": dict(modes.most_common())}
    found["stored values"] = {mode: list(pair) for mode, pair in by_mode.items()}
    for side, values in sizes.items():
        found[side] = [int(min(values)), int(np.median(np.asarray(values))), int(max(values))]
    brightness = np.asarray(means)
    found["prepared brightness"] = [round(float(x), 1) for x in np.quantile(brightness, (0.0, 0.05, 0.5, 0.95, 1.0))]
    found["marks"] = dict(noted.most_common())
    found["warnings"] = [
        f"images of mode {mode} hold no value above 1: are they masks, or normalised already?"
        for mode, (_, high) in by_mode.items()
        if high <= 1 and mode not in ("1", "F")
    ]
    if np.quantile(brightness, 0.5) < 16:
        found["warnings"].append("half of the prepared images are nearly black: is the stated value range right?")
    return found


def copies(groups: Sequence[Group], rows: Sequence[Row]) -> Json:
    """Describe copies across splits: how many groups and films, between which splits, and the first groups."""
    splits = {i: rows[i].split for group in groups for i in group.rows}
    between = collections.Counter(" and ".join(sorted({splits[i] for i in group.rows})) for group in groups)
    listed = [
        {
            "films": [rows[i].id for i in group.rows[:FILMS]],
            "in": [splits[i] for i in group.rows[:FILMS]],
            "count": len(group.rows),
            "bits": group.distance,
        }
        for group in groups[:LISTED]
    ]
    films = sum(len(group.rows) for group in groups)
    return {"groups": len(groups), "films": films, "between": dict(between), "listed": listed}


def contact_sheet(images: Sequence[UInt8[np.ndarray, "height width 1"]], side: int = 8, cell: int = 112) -> Image.Image:
    """Put up to side x side pictures uint8[H, W, 1] on one sheet, row by row."""
    sheet = Image.new("L", (side * cell, side * cell), 0)
    for place, image in enumerate(images[: side * side]):
        picture = Image.fromarray(image[:, :, 0]).resize((cell - 2, cell - 2), Image.Resampling.BILINEAR)
        sheet.paste(picture, (place % side * cell + 1, place // side * cell + 1))
    return sheet


def describe(stored: Json) -> str:
    """Describe a prepared set's manifest as a page of text."""
    card, audit = stored["card"], stored.get("audit", {})
    lines = [f"{card.get('title') or stored['kind']}  fingerprint {stored['fingerprint']}"]
    total = sum(stored["counts"].values())
    kept = ", ".join(f"{name} {count}" for name, count in stored["counts"].items())
    lines += [f"kept {total}: {kept}", f"left out {len(stored['exclusions'])}"]
    lines += [f"  {count:>8}  {reason}" for reason, count in reasons(stored["exclusions"]).items()]
    lines += [f"{name}: {count}" for name, count in audit.get("notes", {}).items() if count]
    # A table of labels by split.
    if table := audit.get("labels"):
        width = max(len(name) for name in stored["classes"]) + 2
        lines.append("labels (present; uncertain in brackets)")
        lines.append(" " * width + "".join(f"{row['split']:>16}" for row in table))
        for name in stored["classes"]:
            cells = [
                f"{row['present'][name]}" + (f" ({row['uncertain'][name]})" if row["uncertain"].get(name) else "")
                for row in table
            ]
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>16}" for cell in cells))
        for name, key in (("(none)", "none"), ("(single)", "single"), ("(records)", "records")):
            lines.append(f"{name:<{width}}" + "".join(f"{row[key]:>16}" for row in table))
    # What was stored, and what is suspicious about it.
    if found := audit.get("ranges"):
        lines.append("stored as " + ", ".join(f"{mode}: {count}" for mode, count in found["modes"].items()))
        lines += [f"  values of {mode}: {low:g} to {high:g}" for mode, (low, high) in found["stored values"].items()]
        lines.append("  height {} to {} (median {}), width {} to {} (median {})".format(
            *(found[side][i] for side in ("height", "width") for i in (0, 2, 1))))  # fmt: skip
        lines.append(f"  prepared brightness, 0/5/50/95/100 %: {found['prepared brightness']}")
        lines += [f"  images with {mark}: {count}" for mark, count in found.get("marks", {}).items()]
        lines += [f"  warning: {line}" for line in found["warnings"]]
    if "patients" in audit:
        shared = audit["patients"]
        unit = shared.get("unit", "patient")
        if unit != "patient":
            lines.append(f"! {NOT_BY_PATIENT}")
        if unit:
            what = "patients" if unit == "patient" else {"study": "studies"}.get(unit, f"{unit}s")
            lines.append(f"{what} {shared['count']}, in more than one split {shared['shared']}")
    if "copies" in audit:
        found = audit["copies"]
        between = ", ".join(f"{name} {count}" for name, count in found["between"].items())
        # Sets of earlier versions count pairs.
        counted = found.get("groups", found.get("pairs"))
        films = f" groups of {found['films']} films" if counted and "films" in found else ""
        lines.append(f"copies across splits {counted}{films}" + (f": {between}" if between else ""))
        for group in found["listed"][:5] if "groups" in found else ():
            named = ", ".join(f"{name} ({split})" for name, split in zip(group["films"], group["in"]))
            lines.append(f"  {named}" + (" ..." if group["count"] > len(group["films"]) else ""))
    if "reports" in audit:
        least, median, most = audit["words a report"]
        lines.append(f"different reports {audit['reports']['different']}, words {least} to {most} (median {median})")
    # The data card.
    for name in (
        "reports", "labels", "split", "split by patient", "not split by patient", "split by study", "split by picture",
        "split by image", "views", "sections", "images", "uncertain labels",
        "patients in several splits", "licence", "citation", "notes",
    ):  # fmt: skip
        if card.get(name):
            lines.append(f"{name}: {card[name]}")
    return "\n".join(lines)


def _general(reason: str) -> str:
    patterns = (
        (r"\(line \d+ of", "("), (r"^line \d+ of \S+ has", "the line has"), (r"^line \d+ is", "the line is"),
        (r" \(\d+, not \d+\)", ""), (r"'[^']*'", "'...'"), (r"that of \S+$", "that of another"),
    )  # fmt: skip
    for pattern, general in patterns:
        reason = re.sub(pattern, general, reason)
    return reason
