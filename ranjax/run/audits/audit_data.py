"""The data of an audit: a prepared set, a table of images, or a folder with a class a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.buckets import workdirs
from ranjax.core.errors import ConfigError, DataError
from ranjax.data import set_settings, table_cells
from ranjax.data.prepared import MANIFEST, PreparedSet, open_prepared
from ranjax.data.publisher_tables import inside
from ranjax.data.row_filters import select
from ranjax.data.set_writing import prepare_set
from ranjax.data.sets.column_roles import plain
from ranjax.data.sets.table_sets import ENDINGS
from ranjax.data.strict_tables import Table, read
from ranjax.evaluation.modalities import modalities_of

IMAGE_COLUMNS = ("file", "image", "path", "filename", "filepath", "imagepath", "imagefile", "imageid", "img", "name")
LABEL_COLUMNS = ("label", "labels", "class", "classname", "category", "target", "finding", "findinglabels", "diagnosis")
"""Names of columns that hold the image and the label, in lower case without marks; the first that is there counts."""
FEWEST = {"train": 4, "adapt": 4, "validation": 2, "test": 2}
"""Images of a class that each split needs; a class with fewer is left out."""
SHARES = {"adapt": 0.0, "validation": 0.15, "test": 0.35}
"""How a set without splits is cut: half of its patients are labelled for the repairs (its split "train")."""


def open_audit_data(
    given: str,
    folder: Path,
    image_size: int,
    options: Sequence[str] = (),
    limit: int = 0,
    say: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> PreparedSet:
    """Open a prepared set, or prepare a table or image folder below `folder` at the size of the checkpoint.

    Args:
      given: a prepared set's folder, a table (.csv, .tsv, .jsonl), a folder with one, or a folder of class folders.
      folder: where it is prepared.
      image_size: side of the prepared images.
      options: of the set, NAME=VALUE, as `ranjax prepare` takes them.
      limit: rows at most; 0: all.
      say: receives a line of text at a time.
      stop: polled; what is decoded by then is kept.

    Raises:
      ConfigError: nothing is there, or a table's columns are not recognised.
      DataError: as `prepare_set`.
    """
    path = workdirs.fetched(given, "--data").expanduser().absolute()
    if not path.exists():
        raise ConfigError("--data", given, "a prepared set, a table of images, or a folder with a class a folder")
    if path.is_dir() and any(True for depth in ("", "*/", "*/*/", "*/*/*/") for _ in path.glob(f"{depth}{MANIFEST}")):
        if options:
            raise ConfigError("--option", ", ".join(options), "none with a prepared set: its columns are read already")
        return open_prepared(path)
    settings = _without_rare(_settings(path, image_size, options, limit), say)
    return prepare_set(settings, folder, say=say, stop=stop)


def _settings(path: Path, image_size: int, options: Sequence[str], limit: int) -> set_settings.SetSettings:
    common: dict[str, Any] = {**SHARES, "image_size": image_size, "limit": limit, "sections": ("",)}
    table = path if path.is_file() else _only_table(path)
    if table is None:
        if options:
            raise ConfigError("--option", ", ".join(options), "none with folders of classes")
        return set_settings.SetSettings(name="class_folders", data_dir=str(path), **common)
    if not table.name.lower().endswith(ENDINGS):
        raise ConfigError("--data", str(path), f"a table that ends in {', '.join(ENDINGS)}, or a folder")
    given = dict(option.partition("=")[::2] for option in options)
    known = {"table": table.name, **_columns(table, given), **given}
    texts = tuple(f"{name}={value}" for name, value in known.items())
    return set_settings.SetSettings(name="table", data_dir=str(table.parent), options=texts, **common)


def _without_rare(settings: set_settings.SetSettings, say: Callable[[str], None]) -> set_settings.SetSettings:
    """Return settings whose classes occur in each split often enough to be fitted, chosen and judged by."""
    selection = select(settings)
    marks: dict[str, np.ndarray] = {}
    for row in selection.rows:
        marks[row.split] = marks.get(row.split, np.zeros(len(selection.classes))) + (row.labels > 0.5)
    enough = [
        all(marks[split][number] >= least for split, least in FEWEST.items() if split in marks)
        for number in range(len(selection.classes))
    ]
    kept = tuple(name for name, there in zip(selection.classes, enough) if there)
    if len(kept) in (len(selection.classes), 0, 1):
        return settings
    rare = [name for name in selection.classes if name not in kept]
    say(f"note: classes with too few images are left out, with their images: {', '.join(rare)}")
    return dataclasses.replace(settings, classes=kept, unknown_labels="ignore")


def _only_table(folder: Path) -> Path | None:
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(ENDINGS))
    index = [path for path in found if path.name.lower().startswith("index.")]
    if len(found) > 1 and not index:
        raise ConfigError("--data", str(folder), f"one of its tables: {', '.join(path.name for path in found)}")
    return next(iter(index or found), None)


def _columns(table: Path, given: dict[str, str]) -> dict[str, str]:
    """Return the options that name the columns of images and labels of a table, where no option does."""
    stored = read(table)
    found: dict[str, str] = {}
    by_name = {plain(name): name for name in reversed(stored.columns)}
    if "image" not in given:
        name = next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), "")
        name = name or _by_files(table, stored)
        if not name:
            raise ConfigError("--option image", "", f"the column of the image: one of {', '.join(stored.columns)}")
        found["image"] = name
    if not {"label", "labels"} & set(given):
        name = next((by_name[name] for name in LABEL_COLUMNS if name in by_name), "")
        if not name:
            expected = f"the column of the label, or --option labels=A,B of classes: of {', '.join(stored.columns)}"
            raise ConfigError("--option label", "", expected)
        found["label"] = name
    return found


def _by_files(table: Path, stored: Table) -> str:
    """Return the first column whose first cell names a file beside the table; "": there is none."""
    line = next(iter(stored.rows), None)
    for name, cell in (line.cells if line else {}).items():
        try:
            text = table_cells.name(cell)
            if text and any(inside(place, text).is_file() for place in (table.parent, table.parent / "images")):
                return str(name)
        except DataError:
            continue
    return ""


def splits_of(prepared: PreparedSet) -> tuple[str, ...]:
    """Return which splits of a set serve as train, adapt, validation, test and ood_test; nothing is pre-trained.

    Raises:
      DataError: the labelled images, those of validation or the test images are missing.
    """
    fitted = "adapt" if "adapt" in prepared.splits else "train"
    for name, use in ((fitted, "to fit repairs on"), ("validation", "to choose by"), ("test", "to judge by")):
        if name not in prepared.splits:
            counts = ", ".join(f"{split} {count}" for split, count in prepared.counts.items())
            raise DataError(
                f"the data have no split {name!r}, {use}: {counts}. More images are needed, or their split."
            )
    return fitted, fitted, "validation", "test", "ood_test" if "ood_test" in prepared.splits else ""


def task_of(prepared: PreparedSet) -> str:
    """Return "multi" where most labelled images have several classes or may have none, else "single".

    Raises:
      DataError: fewer than two classes occur.
    """
    source = prepared.splits[splits_of(prepared)[1]]
    marks = np.asarray(np.stack(source.column("labels")) > 0.5)
    occurring = [name for name, there in zip(prepared.classes, np.atleast_1d(marks.any(0))) if there]
    if len(occurring) < 2:
        raise DataError(
            f"{len(occurring)} class occurs among the {len(marks)} labelled images ({', '.join(occurring) or 'none'}): "
            "there is nothing to tell apart. At least two are needed."
        )
    return "multi" if 2 * int((marks.sum(1) == 1).sum()) < len(marks) else "single"


def has_reports(prepared: PreparedSet) -> bool:
    """Return whether the test images have reports of their own: more wordings than labels would make."""
    texts = set(prepared.splits["test"].column("report"))
    return len(texts - {""}) > max(8, 2 * len(prepared.classes))


def modalities(prepared: PreparedSet) -> tuple[str, ...]:
    """Return what made the images, as their classes say, else the set's title, else their reports; () where nothing
    does.
    """
    reports = prepared.splits["test"].column("report")
    title = str(prepared.card.get("title", ""))
    return next(filter(None, map(modalities_of, (prepared.classes, (title,), reports))), ())


def described(prepared: PreparedSet, given: str) -> dict[str, object]:
    """Return what results.json says of the data: its name, hashes, classes and counts."""
    return {
        "name": Path(given).name,
        "fingerprint": prepared.fingerprint,
        "content": prepared.content,
        "classes": list(prepared.classes),
        "counts": dict(prepared.counts),
    }
