"""The generated chest radiographs as a prepared set.

```python
prepared = prepare_radiographs(RadiographSettings(seed=0), "data")
prepared.splits["train"][0]["report"]
```
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ranjax.core import files
from ranjax.data import radiographs
from ranjax.data.images.locations import FileRef
from ranjax.data.prepared import PreparedSet, finish, open_or_write, parts_of
from ranjax.data.radiographs.findings import Case
from ranjax.data.row_filters import Row, spilled_rows
from ranjax.data.set_settings import RadiographSettings
from ranjax.data.sets.spec import Rejected
from ranjax.data.space import require_space
from ranjax.data.text import pairing

if TYPE_CHECKING:
    from ranjax.data.images import codecs, decode

BITS = 3
"""How many of the 256 bits of the perceptual hash may differ in a copy, as for other sets."""
_RENDERED = FileRef("")


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
    from ranjax.data.array_records import write_records
    from ranjax.data.images import codecs, decode, duplicates
    from ranjax.data.set_page import copies

    rows, rejected = spilled_rows(), []
    cases: list[Case] = []
    for case, row in _rows(settings):
        if isinstance(row, Rejected):
            rejected.append(row)
        else:
            cases.append(case)
            rows.append(row)
    # A film compresses to about half, and lies in its part and in its shard until the set is whole.
    require_space(folder, len(rows) * settings.image_size**2)
    parts = parts_of(folder, mark)
    storage = codecs.Storage(settings.image_size)

    def job(first: int, last: int) -> decode.Job:
        return functools.partial(_render, cases[first:last], storage)

    # In this process: rendering uses all cores by itself.
    decode.make_parts(len(rows), job, parts, workers=1, progress=progress)
    found = decode.facts(parts, len(rows))
    groups = duplicates.across(found.hashes, [row.split for row in rows], BITS)
    made = parts / "set"
    written = write_records(
        made,
        parts,
        rows,
        found,
        mark=mark,
        class_count=len(radiographs.CLASSES),
        description="Simulated chest radiographs with reports; see the data card of ranjax.data.radiographs.",
        rejected=rejected,
    )
    stated = {
        "fingerprint": mark,
        "kind": type(settings).__name__,
        "settings": dataclasses.asdict(settings),
        "classes": list(radiographs.CLASSES),
        "prompts": {name: list(radiographs.PROMPTS[name]) for name in radiographs.CLASSES},
        "label_words": sorted(radiographs.LABEL_WORDS),
        "audit": {"copies": copies(groups, rows)},
        "card": {**radiographs.DATA_CARD, **(pairing.CARD if settings.reports else {})},
    }
    finish(folder, mark, made, written, stated)


def _render(cases: Sequence[Case], storage: codecs.Storage) -> list[decode.Outcome]:
    from PIL import Image

    from ranjax.data.images import decode

    films = radiographs.render_cases(cases, storage.size)
    return [decode.outcome_of(Image.fromarray(film), storage) for film in films]


def _rows(settings: RadiographSettings) -> Iterator[tuple[Case, Row | Rejected]]:
    """Yield the cases of all splits with what is stored beside their films."""
    for split, count in settings.counts.items():
        multiple = settings.multiple if split == "train" else settings.multiple_downstream
        acquisition = radiographs.OUT_OF_DOMAIN if split == "ood_test" else radiographs.IN_DOMAIN
        cases = radiographs.sample_cases(settings.seed, split, count, multiple, acquisition)
        paired = pairing.pair(cases, settings.reports, split, settings.seed) if settings.reports else {}
        for case in cases:
            if settings.reports and case.id not in paired:
                yield case, Rejected(case.id, split, "no report of such findings")
                continue
            report, source = paired.get(case.id) or (radiographs.write_report(case), "")
            findings = [
                {"kind": f.kind, "side": f.side, "lobe": f.lobe, "severity": f.severity, "size_cm": f.size_cm}
                for f in case.findings
            ]
            group: dict[str, object] = {"sex": case.sex, "age": case.age, "findings": findings}
            group |= {"report of": source} if source else {}
            label, labels = radiographs.label(case), radiographs.labels(case)
            yield case, Row(case.id, _RENDERED, report, label, labels, case.patient, split, group)
