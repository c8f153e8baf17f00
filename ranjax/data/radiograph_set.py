"""The generated chest radiographs as a prepared set.

prepared = prepare_radiographs(RadiographSettings(seed=0), "data")
prepared.splits["train"][0]["report"]
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ranjax.core import files
from ranjax.data import radiographs
from ranjax.data.prepared import PreparedSet, open_or_write, write_manifest
from ranjax.data.set_settings import RadiographSettings
from ranjax.data.sets.spec import Rejected
from ranjax.data.sources import Record
from ranjax.data.text import pairing

BITS = 3
"""How many of the 256 bits of the perceptual hash may differ in a copy, as for other sets."""
CHUNK = 256
"""Cases rendered at a time: it bounds memory and changes no image."""


def prepare_radiographs(
    settings: RadiographSettings,
    folder: str | os.PathLike[str],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> PreparedSet:
    """Generate the radiographs that `settings` describes below `folder`, or open them if that is done.

    Args:
      settings: the set; `set_writing.prepare_set` is the same for sets of files.
      folder: where prepared sets are kept; several may share it.
      progress: called with (rows done, rows in all).

    Raises:
      DataError: `settings.reports` holds no reports, or nothing is left in a split.
      files.DiskFullError: no space is left; nothing half-written stays.
    """
    mark = fingerprint(settings)
    return open_or_write(folder, mark, lambda place: _write(settings, place, mark, progress))


def fingerprint(settings: RadiographSettings) -> str:
    """Return 16 hexadecimal digits that change whenever the prepared set would."""
    stated = dataclasses.asdict(settings)
    if settings.reports:
        stated["reports"] = pairing.digest_of(settings.reports)
    # A changed renderer or grammar must not pass for the prepared images.
    root = Path(radiographs.__file__).parent
    names = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".md"))
    generator = [[os.fspath(path.relative_to(root)), files.sha256(path)] for path in names]
    return files.digest({"settings": stated, "generator": generator})


def _write(settings: RadiographSettings, folder: Path, mark: str, progress: Callable[[int, int], object]) -> None:
    from PIL import Image

    from ranjax.data.array_records import write_records
    from ranjax.data.images import duplicates
    from ranjax.data.set_page import copies

    counts = {split: count for split, count in settings.counts.items() if count}
    made: list[tuple[str, str]] = []
    hashes: list[bytes] = []

    def records(split: str, count: int) -> Iterator[Record | Rejected]:
        for record in _records(settings, split, count):
            if not isinstance(record, Rejected):
                made.append((record["id"], split))
                hashes.append(duplicates.perceptual_hash(Image.fromarray(record["image"][:, :, 0])))
            yield record

    written = write_records(
        folder,
        mark,
        {split: functools.partial(records, split, count) for split, count in counts.items()},
        total=sum(counts.values()),
        class_count=len(radiographs.CLASSES),
        image_size=settings.image_size,
        description="Simulated chest radiographs with reports; see the data card of ranjax.data.radiographs.",
        progress=progress,
    )
    stated = {
        "fingerprint": mark,
        "kind": type(settings).__name__,
        "settings": dataclasses.asdict(settings),
        "classes": list(radiographs.CLASSES),
        "prompts": {name: list(radiographs.PROMPTS[name]) for name in radiographs.CLASSES},
        "label_words": sorted(radiographs.LABEL_WORDS),
        "audit": {"copies": copies(duplicates.across(hashes, [name for _, name in made], BITS), made)},
        "card": {**radiographs.DATA_CARD, **(pairing.CARD if settings.reports else {})},
    }
    write_manifest(written, stated)


def _records(settings: RadiographSettings, split: str, count: int) -> Iterator[Record | Rejected]:
    multiple = settings.multiple if split == "train" else settings.multiple_downstream
    acquisition = radiographs.OUT_OF_DOMAIN if split == "ood_test" else radiographs.IN_DOMAIN
    cases = radiographs.sample_cases(settings.seed, split, count, multiple, acquisition)
    written = {case.id: (radiographs.write_report(case), "") for case in cases}
    if settings.reports:
        written = pairing.pair(cases, settings.reports, split, settings.seed)
    for start in range(0, count, CHUNK):
        part = cases[start : start + CHUNK]
        for case, image in zip(part, radiographs.render_cases(part, settings.image_size)):
            findings = [
                {"kind": f.kind, "side": f.side, "lobe": f.lobe, "severity": f.severity, "size_cm": f.size_cm}
                for f in case.findings
            ]
            report, source = written.get(case.id, ("", ""))
            if not report:
                yield Rejected(case.id, split, "no report of such findings")
                continue
            yield {
                "id": case.id,
                "image": image[:, :, None],
                "report": report,
                "label": radiographs.label(case),
                "labels": radiographs.labels(case),
                "patient": case.patient,
                "group": {"sex": case.sex, "age": case.age, "findings": findings}
                | ({"report of": source} if source else {}),
            }
