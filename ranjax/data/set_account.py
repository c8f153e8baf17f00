"""How the files of a set were understood: what is kept, left out and missing, and a few rows with their source.

It is printed before anything is written, kept in the manifest, and shown as a page (`set_html`).
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ranjax.data import set_page, table_cells
from ranjax.data.row_filters import Selection
from ranjax.data.set_page import NOT_BY_PATIENT, Json
from ranjax.data.set_settings import SetSettings
from ranjax.data.sets.column_roles import plain
from ranjax.data.sets.spec import ABSENT, PRESENT, UNCERTAIN, Entry, Rejected
from ranjax.data.splits import SPLITS
from ranjax.data.text.deidentify import Privacy, key_of, names_a_person

EXAMPLES = 12
"""Rows that the page shows with picture and source."""
FIRST = 10
"""Rows that are left out and shown."""
HIDDEN = "(hidden by the patient key)"
_CELL = 500
_SHOWN = (
    "view", "viewposition", "projection", "frontallateral", "appa", "sex", "age", "split", "patientage", "patientsex",
    "patientgender",
)  # fmt: skip
_MARKS = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "uncertain"}


def account(
    settings: SetSettings, selection: Selection, images: Sequence[Rejected] = (), copies: Json | None = None
) -> Json:
    """Return how a set was understood.

    Args:
      settings, selection: of the set.
      images: rows that were left out because of their images, where these were opened.
      copies: what `set_page.copies` says of the images, where these were opened.
    """
    gone = {item.id for item in images}
    left_out = [*selection.rejected, *images]
    unit = selection.unit
    labels, views = set_page.LabelTable(selection.classes), collections.Counter[str]()
    units: dict[str, set[int]] = {}
    unknown = 0
    for row in selection.rows:
        if row.id in gone:
            continue
        labels.add(row)
        unknown += bool(row.group.get("unknown"))
        views[str(row.group.get("view") or "")] += 1
        units.setdefault(row.split, set()).add(hash(row.patient))
    counts = {row["split"]: row["records"] for row in labels.table()}
    kept = sum(counts.values())
    warnings = [] if unit == "patient" else [NOT_BY_PATIENT]
    warnings += [f"{line.topic}: {line.text}" for line in selection.said if line.warning]
    if selection.shared:
        warnings.append(f"{len(selection.shared)} {unit or 'patient'}s lie in several splits, as was allowed")
    if copies and copies["groups"] and settings.duplicates == "report":
        warnings.append(
            f"{copies['films']} films are near copies of each other across splits ({copies['groups']} groups)"
        )
    missing = {
        "rows with a class that is unknown": unknown,
        "rows without a view": views[""],
        "rows left out for an empty cell or report": sum("empty" in item.reason for item in left_out),
        **({f"rows without a {unit or 'patient'}": kept} if not unit else {}),
    }
    present = [name for name in SPLITS if name in counts]
    named = collections.Counter({name or "not known": count for name, count in views.items() if count})
    return {
        "title": selection.spec.title,
        "split by": unit or "image",
        "rows": {
            "read": selection.read,
            "kept": kept,
            "left out": len(left_out),
            "not drawn by --limit": selection.undrawn,
        },
        "warnings": warnings,
        "said": [{"topic": line.topic, "text": line.text} for line in selection.said if not line.warning],
        "splits": {name: counts[name] for name in present},
        "units": {name: len(units[name]) for name in present},
        "labels": labels.table(),
        "views": dict(named.most_common(12)),
        "missing": {name: count for name, count in missing.items() if count},
        "notes": {name: count for name, count in selection.notes.items() if count},
        "copies across splits": "not looked for yet" if copies is None else f"{copies['groups']} groups",
        "reasons": set_page.reasons([item._asdict() for item in left_out]),
        "first left out": [{"id": item.id, "reason": item.reason} for item in left_out[:FIRST]],
        "examples": list(_examples(settings, selection, gone, kept)),
    }  # fmt: skip


def lines(summary: Json) -> list[str]:
    """Return an account as lines of text; those that must not be overlooked begin with "! "."""
    found = [f"{summary['title']}: {_counts(summary['rows'])}"]
    found += [f"! {text}" for text in summary["warnings"]]
    found += [f"{one['topic']}: {one['text']}" for one in summary["said"]]
    unit = {"study": "studies"}.get(summary["split by"], f"{summary['split by']}s")
    found.append("rows by split: " + _counts(summary["splits"]))
    if summary["split by"] != "image":
        found.append(f"{unit} by split: " + _counts(summary["units"]))
    for row in summary["labels"]:
        present = {name: count for name, count in row["present"].items() if count}
        found.append(f"labels of {row['split']}: {_counts(present) or 'none'}; without any {row['none']}")
    found.append("views: " + _counts(summary["views"]))
    found.append(f"near copies across splits: {summary['copies across splits']}")
    found += [f"{name}: {count}" for name, count in (summary["missing"] | summary["notes"]).items()]
    found += [f"  {count:>8} left out: {reason}" for reason, count in summary["reasons"].items()]
    return found


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _examples(settings: SetSettings, selection: Selection, gone: Collection[str], kept: int) -> Iterator[Json]:
    """Yield rows drawn by a hash, those first whose source is kept."""
    privacy = Privacy(key_of(settings.patient_key), settings.deidentify)
    known = [row for row in selection.rows if row.id in selection.sources and row.id not in gone]
    count = len(known) or kept
    shown = iter(known) if known else (row for row in selection.rows if row.id not in gone)
    for row in itertools.islice(shown, 0, EXAMPLES * max(1, count // EXAMPLES), max(1, count // EXAMPLES)):
        entry = selection.sources.get(row.id)
        marks = {name: "present" for name, on in zip(selection.classes, row.labels) if on}
        doubtful = str(row.group.get("uncertain", ""))
        yield {
            "id": row.id,
            "split": row.split,
            "patient": row.patient if selection.unit else "not known",
            "report": row.report,
            "labels": ", ".join([*marks, *([f"uncertain: {doubtful}"] if doubtful else [])]) or "none",
            "unknown": str(row.group.get("unknown", "")),
            "stated": {} if entry is None else {k: _MARKS.get(v, "empty cell") for k, v in entry.labels.items()},
            "source": {} if entry is None else _source(entry, privacy),
        }


def _source(entry: Entry, privacy: Privacy) -> dict[str, str]:
    """Return the cells of a row as the page may show them: nothing that names a person where a key hides ids."""
    texts = {entry.report.strip(), *(body.strip() for body in entry.sections.values())} - {""}
    found = {}
    for name, value in entry.source.items():
        if privacy.key and names_a_person(str(name)):
            continue
        cell = "" if value is None else str(value)
        if cell.strip() in texts or (not privacy.key and " " in cell.strip()):
            cell = privacy.report(cell)
        elif privacy.key and not _says_class(cell, entry) and plain(name) not in (*_SHOWN, *map(plain, entry.labels)):
            cell = HIDDEN if not table_cells.is_missing(cell) else cell
        found[str(name)] = privacy.group({str(name): cell}).get(str(name), HIDDEN)[:_CELL]
    return found


def _says_class(cell: str, entry: Entry) -> bool:
    """Return whether a cell holds names of the entry's labels and nothing else."""
    parts = {part.strip().lower() for part in re.split(r"[|,;\[\]'\"]+", cell) if part.strip()}
    return bool(parts) and parts <= {name.lower() for name in entry.labels}
