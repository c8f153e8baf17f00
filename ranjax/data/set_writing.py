"""One of the field's sets, or a generic layout, into a prepared set: parallel, resumable, and audited.

    prepared = prepare_set(SetSettings("nih", "/data/nih"), "prepared")

The steps: rows are selected from the publisher's tables; their images are decoded over all cores in parts that survive
an interruption (in ``folder/.parts/<fingerprint>``); copies across splits are looked for; the records are written, a
shard at a time, in an order by hash; the audit and the contact sheet join them; the manifest comes last and the parts
go. Memory does not grow with the pictures, and rows beyond some thousands lie in a temporary file.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import hashlib
import io
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ranjax.core import files
from ranjax.core.checks import texts_by_name
from ranjax.core.engines.task_pool import Pool
from ranjax.core.errors import DataError
from ranjax.data import disk_need as disk
from ranjax.data import set_account, set_html
from ranjax.data import set_page as audit
from ranjax.data.array_records import Progress, write_records
from ranjax.data.images import codecs, decode, duplicates
from ranjax.data.images.reading import encode_png
from ranjax.data.prepared import PreparedSet, finish, open_or_write, parts_of
from ranjax.data.row_filters import Row, Selection, digest_of, select
from ranjax.data.set_settings import SetSettings
from ranjax.data.sets import SETS
from ranjax.data.sets.spec import Rejected
from ranjax.data.space import no_space
from ranjax.data.text.deidentify import PUBLIC

SHEET = "contact_sheet.png"
PAGE = "page.html"
DRY_PAGE = "dry_run.html"


def prepare_set(
    settings: SetSettings,
    folder: str | os.PathLike[str],
    workers: int = 0,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
    pool: Pool | None = None,
) -> PreparedSet:
    """Prepare a set below `folder`, or opens it if that is done.

    Args:
      settings: which set, where its files lie, and every choice.
      folder: where prepared sets are kept; several may share it.
      workers: processes that decode images; 0: one per usable core. The outcome does not depend on it.
      progress: called with (images done, images in all).
      stop: polled; what is decoded by then is kept for the next start.
      say: receives a line of text at a time.
      pool: of an engine whose machines decode the images, see `decode.make_parts`.

    Raises:
      ConfigError, DataError: see `sets.select.select`; also DataError for copies across splits where they are refused.
      decode.Interrupted: `stop` said so.
      files.DiskFullError: no space is left.
    """
    say(f"reading the tables of {settings.name} in {settings.data_dir}")
    if settings.checksums:
        _check_sums(settings, say)
    selection = select(settings)
    say(f"{len(selection.rows)} rows to prepare, {len(selection.rejected)} left out by the tables")
    # Before anything is written: how the files are understood.
    for line in set_account.lines(set_account.account(settings, selection)):
        say(line)
    mark = settings.fingerprint(digest_of(selection))
    return open_or_write(
        folder, mark, lambda place: _prepare(settings, selection, place, mark, workers, progress, stop, say, pool)
    )


def dry_run(
    settings: SetSettings, folder: str | os.PathLike[str], say: Callable[[str], None] = lambda line: None
) -> Path:
    """Write the page alone that says how a set's files are understood; no image is opened but those that it shows.

    Raises:
      ConfigError, DataError: as `prepare_set`.
    """
    say(f"reading the tables of {settings.name} in {settings.data_dir}")
    selection = select(settings)
    summary = set_account.account(settings, selection)
    for line in set_account.lines(summary):
        say(line)
    shown = [example["id"] for example in summary["examples"]]
    of_id = {row.id: row.image for row in selection.rows if row.id in shown}
    found = {name: decode.decode(of_id[name], _png(settings)) for name in shown}
    unread = [f"{name}: {outcome.reason}" for name, outcome in found.items() if outcome.reason]
    more = ["A dry run: nothing was prepared, and only the images of this page were opened.", *unread]
    place = Path(folder).expanduser() / DRY_PAGE
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(place, set_html.page(summary, {name: one.data for name, one in found.items()}, more))
    return place


def _prepare(
    settings: SetSettings,
    selection: Selection,
    folder: Path,
    mark: str,
    workers: int,
    progress: Progress,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    pool: Pool | None,
) -> None:
    # Images are decoded in parts that survive an interruption.
    parts, rows = parts_of(folder, mark), selection.rows
    storage = codecs.Storage(settings.image_size, settings.resize, settings.codec, settings.quality)
    disk.check(folder, parts, [row.image for row in disk.sample(rows)], len(rows), storage, say)

    def job(first: int, last: int) -> decode.Job:
        return functools.partial(decode.decode_rows, [row.image for row in rows[first:last]], storage)

    with no_space(folder):
        decode.make_parts(len(rows), job, parts, workers, progress, stop, pool)
    found = decode.facts(parts, len(rows))
    say(f"{len(rows) - len(found.reasons)} images decoded, {len(found.reasons)} cannot be used")
    # Copies across splits are looked for before any record is written.
    usable = np.delete(np.arange(len(rows)), list(found.reasons))
    splits = [row.split for row in rows]
    near = duplicates.across(found.hashes[usable], [splits[place] for place in usable], settings.duplicate_bits)
    groups = [duplicates.Group(tuple(int(usable[i]) for i in group.rows), group.distance) for group in near]
    dropped = _dropped(groups, rows, settings.duplicates)
    say(f"{len(groups)} images with copies across splits" + (f", {len(dropped)} dropped" if dropped else ""))
    made = parts / "set"
    written = write_records(
        made,
        parts,
        rows,
        found,
        mark=mark,
        class_count=len(selection.classes),
        description=selection.spec.title,
        codec=settings.codec,
        dropped=dropped,
        rejected=selection.rejected,
        # Shared patients were refused before, or allowed by the user.
        shared_patients=settings.allow_shared_patients,
        progress=lambda done, total: say(f"shard {done + 1} of {total}") if 1 < total > done else None,
        stop=stop,
    )
    # The audit joins the records, and the manifest comes last.
    gone = found.reasons | dropped
    images = [Rejected(rows[place].id, splits[place], gone[place]) for place in sorted(gone)]
    kept = np.setdiff1d(usable, list(dropped))
    _write_sheet(made / SHEET, parts, kept, storage, settings.seed)
    copies = audit.copies(groups, rows)
    summary = set_account.account(settings, selection, images, copies)
    words = {word for name in selection.classes for word in re.findall(r"[^\W_]+", name.lower())}
    key = PUBLIC if settings.patient_key == PUBLIC else "used"
    stated = {
        "fingerprint": mark,
        "kind": type(settings).__name__,
        "settings": dataclasses.asdict(settings) | {"data_dir": "", "patient_key": key},
        "classes": list(selection.classes),
        "prompts": _prompts(settings, selection),
        "label_words": sorted(settings.label_words or words),
        "card": _card(settings, selection),
        "audit": _audit(selection, parts, gone) | {"copies": copies},
        "understood": summary,
    }
    more = audit.describe({**stated, **written._asdict()}).split("\n")
    shown = {example["id"] for example in summary["examples"]}
    places = np.array([place for place, row in enumerate(rows) if row.id in shown], np.int64)
    drawn = {rows[place].id: _as_png(data, storage) for place, data, _ in decode.pictures(parts, places)}
    files.write_text(made / PAGE, set_html.page(summary, drawn, more))
    finish(folder, mark, made, written, stated)


def _png(settings: SetSettings) -> codecs.Storage:
    return codecs.Storage(settings.image_size, settings.resize)


def _as_png(data: bytes, storage: codecs.Storage) -> bytes:
    return encode_png(codecs.decode(data, storage.size, storage.mode))


def _dropped(groups: Sequence[duplicates.Group], rows: Sequence[Row], policy: str) -> dict[int, str]:
    """Return the places to leave out, with the reason: of a group, the copies that are nearer to training."""
    if policy == "refuse" and groups:
        places = groups[0].rows
        first, second = rows[places[0]], next(rows[i] for i in places if rows[i].split != rows[places[0]].split)
        raise DataError(
            f"{len(groups)} images have a copy in another split, the first is {first.id!r} ({first.split}) and "
            f"{second.id!r} ({second.split}). Drop them (--duplicates=drop), or keep and list them (report)."
        )
    dropped: dict[int, str] = {}
    for group in groups if policy == "drop" else ():
        # Rows are sorted train, adapt, validation, test, ood_test: the later split is further from training.
        stays = rows[max(group.rows)].split
        dropped |= {i: f"a copy of it is in split {stays!r}" for i in group.rows if rows[i].split != stays}
    return dropped


def _write_sheet(path: Path, parts: Path, kept: Int64[np.ndarray, " kept"], storage: codecs.Storage, seed: int) -> None:
    chosen = kept[np.sort(np.random.default_rng(seed).permutation(len(kept))[:64])]
    images = [codecs.decode(data, storage.size, storage.mode) for _, data, _ in decode.pictures(parts, chosen)]
    buffer = io.BytesIO()
    audit.contact_sheet(images).save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())


def _audit(selection: Selection, parts: Path, gone: Collection[int]) -> audit.Json:
    labels, lengths = audit.LabelTable(selection.classes), array.array("q")
    patients, reports = set(), set()
    for place, row in enumerate(selection.rows):
        if place in gone:
            continue
        labels.add(row)
        lengths.append(len(row.report.split()))
        patients.add(hash(row.patient))
        reports.add(hash(row.report))
    usable = (outcome for outcome in decode.outcomes(parts, len(selection.rows)) if not outcome.reason)
    return {
        "labels": labels.table(),
        "ranges": audit.ranges(usable),
        "patients": {
            "unit": selection.unit,
            "count": len(patients),
            "shared": len(selection.shared),
            "listed": list(selection.shared[: audit.LISTED]),
        },
        "notes": dict(selection.notes),
        "words a report": [int(x) for x in np.quantile(np.asarray(lengths), (0.0, 0.5, 1.0))],
        "reports": {"different": len(reports), "of": len(lengths)},
    }


def _card(settings: SetSettings, selection: Selection) -> audit.Json:
    spec = selection.spec
    splits = {row.split for row in selection.rows}
    cut = {
        name: getattr(settings, name)
        for name in ("adapt", "validation", "test")
        if name not in spec.splits and getattr(settings, name) > 0 and "train" in splits
    }
    ruled = selection.notes.get("reports labelled by rules", 0)
    by_patient = selection.unit == "patient"
    of_patients = [line for line in selection.said if line.topic == "patients" and line.warning]
    card = {
        "title": spec.title,
        "licence": spec.licence,
        "citation": spec.citation,
        "homepage": spec.homepage,
        "reports": spec.reports,
        "uncertain labels": settings.uncertain,
        "labels": f"by rules on the report text, no gold standard ({ruled} reports)" if ruled else "",
        "split": "the publisher's: " + ", ".join(spec.splits) if spec.splits else "",
        f"split by {selection.unit or 'image'}": ", ".join(f"{name} {share:g}" for name, share in cut.items()),
        "not split by patient": "" if by_patient else " ".join(f"{line.text}." for line in of_patients),
        "views": settings.views,
        "sections": ", ".join(settings.sections) if spec.kind == "image-text" else "",
        "images": f"grey, {settings.image_size} x {settings.image_size}, {settings.resize}" + _lossy(settings),
        "patients in several splits": f"{len(selection.shared)}, allowed on request" if selection.shared else "",
        "notes": " ".join(spec.notes),
    }
    return {name: value for name, value in card.items() if value}


def _lossy(settings: SetSettings) -> str:
    storage = codecs.Storage(settings.image_size, settings.resize, settings.codec, settings.quality)
    return "" if storage.is_lossless else f", stored as {settings.codec} of quality {settings.quality}"


def _prompts(settings: SetSettings, selection: Selection) -> dict[str, list[str]]:
    """Return the zero-shot prompts of each class: those of the settings, else one written from its name."""
    chosen = texts_by_name(settings.prompts)
    written = {name: f"a chest X-ray with {name.replace('_', ' ').lower()}." for name in selection.classes}
    if selection.spec.normal in written:
        written[selection.spec.normal] = "a chest X-ray with no finding."
    return {name: list(chosen.get(name) or (written[name],)) for name in selection.classes}


def _check_sums(settings: SetSettings, say: Callable[[str], None]) -> None:
    """Compare files with the sums their publisher states. Raises DataError for one that differs."""
    published = SETS.resolve(settings.name).checksums
    root = Path(settings.data_dir).expanduser()
    for name, wanted in published.items():
        path = next((p for p in (root / name, *root.glob(f"*/{name}")) if p.is_file()), None)
        if path is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5" if len(wanted) == 32 else "sha256").hexdigest()
        if found != wanted:
            raise DataError(
                f"{path} has the checksum {found}, its publisher states {wanted}: it is damaged, incomplete or another "
                "version. Download it again, or say --no-checksums."
            )
        say(f"{name}: the checksum is its publisher's")
