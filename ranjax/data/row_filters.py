"""From a set's entries to the rows that will be prepared: every choice of the user, and why a row is left out."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import heapq
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from ranjax.core.errors import DataError
from ranjax.core.files import digest
from ranjax.data import label_rules
from ranjax.data.images.locations import Reference, pack, size_of, unpack
from ranjax.data.set_settings import SetSettings
from ranjax.data.sets import SETS
from ranjax.data.sets.spec import WRITTEN, Entry, Options, Rejected, Said, Spec
from ranjax.data.spilled import Spilled
from ranjax.data.splits import SPLITS, hash_split
from ranjax.data.table_cells import ABSENT, PRESENT, UNCERTAIN, UNMARKED, is_number, names_none
from ranjax.data.text import deidentify, labeller, reports
from ranjax.data.text.tokenizer import Tokenizer

_TAGS = r"</?(?:br|p|b|i|u|div|span|li|ul|td|tr)\b[^<>]*>|&(?:[a-z]{2,6}|#\d+);"
_MISREAD = "[\u00c3\u00c2][\u0080-\u00bf\u2030\u2019]|\u00e2\u20ac|\ufffd"
_DAMAGE = {
    "reports hold marks of HTML": re.compile(_TAGS, re.IGNORECASE),
    "reports hold letters of a wrong encoding": re.compile(_MISREAD),
}
"""What should not stand in a report, which is kept as it is and counted."""
# Columns that stay beside a pseudonym; those of a set of questions go through de-identification as its reports do.
_KEPT_COLUMNS = ("view", "sex", "age", "uncertain", "unknown")
_QUESTION_COLUMNS = ("question", "answer", "kind", "rule")


class Row(NamedTuple):
    """A row to be prepared: an `Entry` after all choices. labels: multi-hot f32[C]; label: -1 unless exactly one."""

    id: str
    image: Reference
    report: str
    label: int
    labels: Float32[np.ndarray, " classes"]
    patient: str
    split: str
    group: dict[str, object]


def spilled_rows(rows: Iterable[Row] = ()) -> Spilled[Row]:
    """Return rows that lie on the disk where they are many."""
    return Spilled(_packed, _row, rows)


def _row(values: Sequence[Any]) -> Row:
    identity, image, report, label, labels, patient, split, group = values
    return Row(identity, unpack(image), report, label, np.asarray(labels, np.float32), patient, split, group)


def _spilled_entries(entries: Iterable[Entry] = ()) -> Spilled[Entry]:
    return Spilled(_packed, lambda v: Entry(v[0], unpack(v[1]), *v[2:]), entries)


def _packed(item: Row | Entry) -> list[object]:
    return [item.id, pack(item.image), *item[2:]]


@dataclasses.dataclass(frozen=True)
class Selection:
    """The rows of a set in order, those left out, its classes, and what was done to the texts.

    notes: counts of what happened to reports and labels. shared: patients in several splits (only where allowed).
    read: rows that the files hold: as many as `rows`, `rejected` and those that `limit` did not draw (`undrawn`). said:
    how the files were understood. unit: what patients are: "patient", what stands in for one ("study"), or "" where
    the files name none. sources: entries as they were read, of some rows by the row's id.
    """

    spec: Spec
    classes: tuple[str, ...]
    rows: Sequence[Row]
    rejected: tuple[Rejected, ...]
    notes: Mapping[str, int]
    shared: tuple[str, ...]
    read: int
    undrawn: int
    said: tuple[Said, ...]
    unit: str
    sources: Mapping[str, Entry]


FIRST = 10
"""Labels outside the classes that the page names."""
SOURCES = 64
"""Entries whose source is kept for the page: the first ones by a hash of the id, so that memory is bounded."""


def select(settings: SetSettings) -> Selection:
    """Select the rows of a set from its files; images are not opened (but for DICOM headers).

    Raises:
      ConfigError, DataError: files or columns are missing, nothing is left, or splits share patients.
    """
    spec = SETS.resolve(settings.name)
    entries, rejected, said, known = _entries(spec, settings)
    read, given = len(entries) + len(rejected), {entry.split for entry in entries}
    unit, lines = _unit(spec, entries, said)
    said += lines
    undrawn = max(0, len(entries) - settings.limit) if settings.limit else 0
    if settings.limit:
        first = heapq.nsmallest(settings.limit, entries, key=lambda e: _drawn(f"limit:{settings.seed}:{e.id}"))
        entries = _spilled_entries(sorted(first, key=lambda e: e.id))
    # Labels: by rules where the files bring none, under the user's names, and the classes that these make.
    notes: collections.Counter[str] = collections.Counter()
    if settings.label_reports:
        entries = _spilled_entries(_labelled(entry, settings, notes) for entry in entries)
    stated = {name for entry in entries for name in entry.labels}
    if settings.label_map:
        names = dict(text.split("=", 1) for text in settings.label_map)
        entries = _spilled_entries(entry._replace(labels=_renamed(entry.labels, names)) for entry in entries)
    classes = settings.classes or (_used(spec.classes, entries) if spec.classes_vary else spec.classes)
    classes = classes or _classes_of(entries)
    if "report" in spec.options and not any(e.report for e in entries) and any(e.labels for e in entries):
        # Files of the user's own that bring labels and no reports: as with the sets of the field that are so.
        normal = next((name for name in classes if name.lower() in label_rules.NORMAL), "")
        spec = dataclasses.replace(spec, kind="classification", normal=normal, reports=WRITTEN)
    # Rows: every choice that looks at one entry, then those that look at all rows.
    privacy = deidentify.Privacy(deidentify.key_of(settings.patient_key), settings.deidentify)
    tokenizer = Tokenizer.load(settings.tokenizer) if settings.tokenizer else None
    rules = _Rules(spec, settings, classes, given, privacy, tokenizer, notes)
    rows = spilled_rows()
    sources: dict[str, Entry] = {}
    for entry in entries:
        row = rules.row(entry)
        (rejected if isinstance(row, Rejected) else rows).append(row)  # type: ignore[arg-type]
        if isinstance(row, Row) and known.get(entry.id):
            sources[row.id] = entry._replace(source=known[entry.id])
    if notes["films whose view is not stated"] == len(entries):
        # A set without views says nothing about them.
        del notes["films whose view is not stated"]
    said += [Said("reports", f"{count} {what}: they are kept") for what in _DAMAGE if (count := notes.pop(what, 0))]
    said += _of_labels(settings, entries, classes, rules.outside, stated)
    # What is left out is listed in the manifest; a row without an image is named there by its number.
    rejected = [r if r.id.startswith("row ") else r._replace(id=privacy.identity(r.id)) for r in rejected]
    if settings.repeats == "drop":
        rows, again = _without_repeats(rows)
        rejected += again
    rows = rows.reordered(np.argsort(np.fromiter((SPLITS.index(row.split) for row in rows), np.int8), kind="stable"))
    if not rows:
        listed = "; ".join(f"{item.id}: {item.reason}" for item in rejected[:5])
        raise DataError(f"No usable row is left ({len(rejected)} left out: {listed}).")
    shared = _shared_patients(rows)
    if shared and not settings.allow_shared_patients:
        places = sorted({row.split for row in rows if row.patient == shared[0]})
        what = {"study": "studies"}.get(unit, f"{unit or 'patient'}s")
        raise DataError(
            f"{len(shared)} {what} are in more than one split, the first is {shared[0]!r} in {', '.join(places)}. "
            f"Splits must not share {what}: correct the split, or allow it with --allow_shared_patients."
        )
    if len(rows) + len(rejected) + undrawn != read:
        raise AssertionError(f"{read} rows read, {len(rows)} kept, {len(rejected)} left out, {undrawn} not drawn")
    return Selection(
        spec, tuple(classes), rows, tuple(rejected), dict(notes), tuple(shared), read, undrawn, tuple(said),
        unit, sources,
    )  # fmt: skip


def _drawn(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _unit(spec: Spec, entries: Sequence[Entry], said: Sequence[Said]) -> tuple[str, list[Said]]:
    """Return what the patients of entries are, "" where one of them has none, and what the page says of it.

    The out-of-domain test set comes from elsewhere: its patients are in no other split.
    """
    own = nameless = 0
    for entry in entries:
        own += entry.split != "ood_test"
        nameless += entry.split != "ood_test" and not entry.patient
    unit = "" if nameless else next((line.unit for line in said if line.unit), spec.unit)
    warned = any(line.topic == "patients" and line.warning for line in said)
    if unit == "patient" or warned:
        return unit, []
    count = "no row" if nameless == own else f"not every row ({nameless} of {own} do not)"
    text = f"a {unit} stands in for the patient, whom the files do not name" if unit else f"{count} names a patient"
    return unit, [Said("patients", text, True)]


def _of_labels(
    settings: SetSettings,
    entries: Sequence[Entry],
    classes: Sequence[str],
    outside: Mapping[str, int],
    stated: Collection[str],
) -> list[Said]:
    """Return what the page says of labels: those outside the classes, and names of the user's that no row has."""
    found = []
    if outside:
        first = sorted(outside.items(), key=lambda item: (-item[1], item[0]))[:FIRST]
        more = ", ..." if len(outside) > FIRST else ""
        found.append(Said("labels", f"no class: {', '.join(f'{name} {count}' for name, count in first)}{more}"))
    held = {name for entry in entries for name in entry.labels}
    for name in settings.classes:
        if held and name not in held:
            found.append(Said("labels", f"no row has the class {name!r}", True))
    for text in settings.label_map:
        if (name := text.partition("=")[0]) not in stated:
            found.append(Said("labels", f"label_map names {name!r}, which no row has", True))
    for name in (*classes, *outside):
        parts = [part.strip() for part in re.split(r"[;,/|+&]", name)]
        if len(parts) > 1 and all(part in classes for part in parts):
            text = f"the label {name!r} looks like {len(parts)} labels: option separator says what stands between them"
            found.append(Said("labels", text, True))
    alike: dict[str, str] = {}
    for name in classes:
        if (other := alike.setdefault(name.casefold(), name)) != name:
            found.append(Said("labels", f"the classes {other!r} and {name!r} differ by case alone", True))
    return found


def _entries(
    spec: Spec, settings: SetSettings
) -> tuple[Spilled[Entry], list[Rejected], list[Said], dict[str, Mapping[str, object]]]:
    """Return the entries of a set, each id once and without its source, the rows that its reader left out, what it
    says of the files, and the sources of a few entries by id, which the page draws from: the first ones by a hash."""
    entries = _spilled_entries()
    rejected: list[Rejected] = []
    said: list[Said] = []
    ids: set[str] = set()
    first: list[tuple[bytes, str]] = []
    sources: dict[str, Mapping[str, object]] = {}
    options = Options(settings.ids, settings.seed, settings.option_values)
    for item in spec.entries(Path(settings.data_dir).expanduser().absolute(), options):
        if isinstance(item, Rejected):
            rejected.append(item._replace(id=_escaped(item.id), reason=_escaped(item.reason)))
        elif isinstance(item, Said):
            said.append(item)
        elif not isinstance(item, Entry):
            found = type(item).__name__
            raise DataError(f"The entries of the set {spec.name} must be of type Entry or Rejected, found {found}.")
        elif not _is_text(item):
            rejected.append(Rejected(_escaped(item.id), _escaped(item.split), "its name or a text is no valid Unicode"))
        elif item.id in ids:
            rejected.append(Rejected(item.id, item.split, "the id is given twice"))
        else:
            ids.add(item.id)
            sources[item.id] = item.source
            heapq.heappush(first, (_inverse(_drawn(f"page:{item.id}")), item.id))
            if len(first) > SOURCES:
                del sources[heapq.heappop(first)[1]]
            entries.append(item._replace(source={}))
    return entries, rejected, said, sources


def _is_text(entry: Entry) -> bool:
    """Return whether all texts of an entry can be written: names of files may be other bytes, JSON half a letter."""
    parts = (*entry.labels, *entry.group.values(), *entry.sections.values(), *entry.source.values())
    whole = "".join(map(str, (entry.id, entry.report, entry.patient, entry.split, entry.view, *parts)))
    return whole.isascii() or whole == _escaped(whole)


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _inverse(drawn: bytes) -> bytes:
    """Return bytes that sort the other way round."""
    return bytes(255 - byte for byte in drawn)


def digest_of(selection: Selection) -> str:
    """Return a hash of all that the rows say and of the sizes of their images; the folder they lie in does not
    matter."""
    state = hashlib.sha256()
    for row in selection.rows:
        place = dataclasses.asdict(row.image)
        place["path"] = Path(place["path"]).name
        parts = [row.id, place, size_of(row.image), row.report, row.labels.tolist(), row.patient, row.split, row.group]
        state.update(digest(parts).encode())
    for item in selection.rejected:
        state.update(digest([item.id, item.split, item.reason]).encode())
    return state.hexdigest()[:16]


def split_of(patient: str, given: Collection[str], settings: SetSettings) -> str:
    """Return the split of a patient of "train": splits that are not `given` are cut from it by a hash of the
    patient."""
    shares = {
        name: getattr(settings, name)
        for name in ("adapt", "validation", "test")
        if name not in given and getattr(settings, name) > 0
    }
    return hash_split(patient, {**shares, "train": 1.0 - sum(shares.values())}, settings.seed)


@dataclasses.dataclass(frozen=True)
class _Rules:
    """The choices that decide what becomes of one entry. `notes` counts what happens to reports and labels."""

    spec: Spec
    settings: SetSettings
    classes: Sequence[str]
    given: Collection[str]
    privacy: deidentify.Privacy
    tokenizer: Tokenizer | None
    notes: collections.Counter[str]
    outside: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def row(self, entry: Entry) -> Row | Rejected:
        """Return the row of an entry, or the reason why it is left out."""
        settings = self.settings
        patient = entry.patient or entry.id
        if not entry.split and any(split not in ("", "ood_test") for split in self.given):
            return Rejected(entry.id, "", "the split is empty, and other rows name one")
        split = entry.split or "train"
        if split not in SPLITS:
            return Rejected(entry.id, split, f"the split {split!r} is none of {', '.join(SPLITS)}")
        if split == "train":
            split = split_of(patient, self.given, settings)
        if settings.views == "frontal" and entry.view not in ("frontal", ""):
            known = entry.view == "lateral"
            reason = "the view is lateral" if known else f"the view {entry.view} is not known to be frontal"
            return Rejected(entry.id, split, reason)
        self.notes["films whose view is not stated"] += not entry.view
        # A number among names, or a word among numbers, is of another kind than the classes.
        kinds = {is_number(name) for name in self.classes}
        if nameless := [
            name
            for name, mark in entry.labels.items()
            if mark == PRESENT and name not in self.classes and (names_none(name) or is_number(name) not in kinds)
        ]:
            reason = f"the label {nameless[0]!r} names no class, unless --classes names it"
            return Rejected(entry.id, split, reason)
        labels = label_rules.read(entry.labels, self.classes, settings.uncertain)
        if labels.doubtful and settings.uncertain == "exclude":
            return Rejected(entry.id, split, f"the label {labels.doubtful[0]!r} is uncertain")
        self.notes["labels outside the classes"] += len(labels.outside)
        self.outside.update(labels.outside)
        if self.spec.kind == "classification" or settings.unknown_labels != "keep":
            unlabelled, labelled = not labels.hot.any() and not labels.doubtful, label_rules.is_labelled(entry.labels)
            if labels.outside and (unlabelled or settings.unknown_labels == "exclude"):
                return Rejected(entry.id, split, f"label {labels.outside[0]!r} is outside the classes")
            if unlabelled and (not labelled or settings.unknown_labels != "keep"):
                return Rejected(entry.id, split, "the row has no label")
        report, reason = self._report(entry)
        if reason:
            return Rejected(entry.id, split, reason)
        group: dict[str, object] = dict(entry.group)
        if view := entry.group.get("view") or entry.view:
            group["view"] = view
        if labels.doubtful:
            group["uncertain"] = ", ".join(labels.doubtful)
        if labels.unknown:
            group["unknown"] = ", ".join(labels.unknown)
            self.notes["rows of which a class is unknown"] += 1
        identity = entry.id
        if self.privacy.key:
            patient, identity = self.privacy.patient(patient), self.privacy.identity(entry.id)
            kept = (*_KEPT_COLUMNS, *_QUESTION_COLUMNS) if self.spec.kind == "questions" else _KEPT_COLUMNS
            group = {**self.privacy.group({name: str(v) for name, v in group.items() if name in kept})}
        return Row(identity, entry.image, report, labels.single, labels.hot, patient, split, group)

    def _report(self, entry: Entry) -> tuple[str, str]:
        """Return the report, or the reason why the row has none."""
        settings, tokenizer = self.settings, self.tokenizer
        if self.spec.kind == "classification":
            # Labels outside the classes are said where they are kept: without them the rest would say too little.
            others = entry.labels if settings.unknown_labels == "keep" else ()
            order = tuple(dict.fromkeys((*self.classes, *others)))
            text = label_rules.written(entry.labels, order, self.spec.normal, settings.uncertain)
            return text, "" if text else "no label says what the film shows"
        text = entry.report or reports.of_sections(entry.sections, ())
        for what, pattern in _DAMAGE.items():
            self.notes[what] += bool(pattern.search(text))
        if not reports.normalized_words(text):
            return "", "the report is empty"
        if self.spec.kind == "image-text" and settings.sections:
            text = _in_sections(entry, settings)
            if not reports.normalized_words(text):
                return "", f"the report has neither {' nor '.join(settings.sections)}"
        text = reports.without_repeats(text) if self.spec.kind == "image-text" else reports.one_line(text)
        if not any(c.isalpha() for c in text):
            return "", "the report has no words"
        if reports.is_absent(text):
            return "", f"the report says that there is none ({text[:40]!r})"
        if settings.language and (found := reports.language(text)) != settings.language:
            return "", f"the report's language is {found or 'unsure'}, not {settings.language}"
        if settings.deidentify:
            text, marks = deidentify.deidentify(text)
            self.notes["marks set in place of what could name a person"] += marks
        if tokenizer is not None:
            cut = reports.cut(text, lambda part: not tokenizer.encode([part], settings.max_tokens).truncated)
            self.notes["reports cut to the length"] += cut != text
            text = cut
        return text, ""


def _in_sections(entry: Entry, settings: SetSettings) -> str:
    """Return the chosen sections of a report: the publisher's own where it has parsed them, else those found here."""
    if entry.sections and (settings.sections or not entry.report):
        return reports.of_sections(entry.sections, settings.sections)
    return reports.select(entry.report, settings.sections) if settings.sections else entry.report


def _renamed(labels: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Return labels under the names that `names` gives them; of several for one name, present counts before
    uncertain, and that before what is not marked."""
    found: dict[str, float] = {}
    for label, mark in labels.items():
        own = names.get(label, label)
        found[own] = min(mark, found.get(own, mark), key=(PRESENT, UNCERTAIN, UNMARKED, ABSENT).index)
    return found


def _labelled(entry: Entry, settings: SetSettings, notes: collections.Counter[str]) -> Entry:
    if label_rules.is_labelled(entry.labels) or not (entry.report or entry.sections):
        return entry
    text = _in_sections(entry, settings)
    notes["reports labelled by rules"] += 1
    return entry._replace(labels=labeller.label(text))


def _classes_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the labels that occur, most frequent first, at least twice; two stand-ins where a set has none."""
    counts = collections.Counter(name for entry in entries for name, mark in entry.labels.items() if mark == PRESENT)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = tuple(name for name, count in frequent if count > 1 and not names_none(name))
    return names if len(names) > 1 else (*names, *("finding", "no finding")[: 2 - len(names)])


def _used(classes: Sequence[str], entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the classes that this release of a set uses, of those that any release has."""
    used = {name for entry in entries for name in entry.labels}
    return tuple(name for name in classes if name in used)


def _without_repeats(rows: Iterable[Row]) -> tuple[Spilled[Row], list[Rejected]]:
    kept, again = spilled_rows(), []
    first: dict[tuple[str, bytes], str] = {}
    for row in rows:
        words = hashlib.blake2b(reports.normalized_words(row.report).encode(), digest_size=16).digest()
        other = first.setdefault((row.split, words), row.id)
        if other == row.id:
            kept.append(row)
        else:
            again.append(Rejected(row.id, row.split, f"the report says the same as that of {other}"))
    return kept, again


def _shared_patients(rows: Iterable[Row]) -> list[str]:
    first: dict[str, str] = {}
    shared: dict[str, None] = {}
    for row in rows:
        if first.setdefault(row.patient, row.split) != row.split:
            shared[row.patient] = None
    return list(shared)
