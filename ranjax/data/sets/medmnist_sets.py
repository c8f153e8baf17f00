"""MedMNIST v2, twelve sets of small pictures in one layout (an .npz file per set and size), and MedMNIST-C: their test
sets under corruptions of five severities, an .npz file per corruption."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.files import read_toml
from ranjax.data.images.locations import ArrayRef, array_length, load_arrays
from ranjax.data.publisher_tables import needed
from ranjax.data.sets.spec import ABSENT, PRESENT, Entry, Options, Rejected, Spec, spec

SIZES = (28, 64, 128, 224)
SEVERITIES = ("1", "2", "3", "4", "5")

FLAVOURS: Mapping[str, Mapping[str, Any]] = read_toml("ranjax.data.sets", "medmnist.toml")
"""By set: class names in the order of its numbers, and the published MD5 of each size."""


def _entries(name: str, root: Path, options: Options) -> Iterator[Entry | Rejected]:
    size = options.values.get("size", "")
    names = {"28": f"{name}.npz", **{str(n): f"{name}_{n}.npz" for n in reversed(SIZES[1:])}}
    if size and size not in names:
        raise ConfigError("option size", size, f"one of {', '.join(map(str, SIZES))}")
    file = needed(root, *([names[size]] if size else names.values()))
    labels = load_arrays(str(file), "_labels")
    for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        if f"{own}_labels" not in labels:
            raise DataError(f"{file} holds no array {own}_labels; it holds {', '.join(labels) or 'no labels'}.")
        _check_count(file, f"{own}_images", labels[f"{own}_labels"])
        for index, row in enumerate(labels[f"{own}_labels"]):
            yield _entry(f"{own}/{index}", ArrayRef(str(file), f"{own}_images", index), row, name, "", split)


def _present(classes: tuple[str, ...], row: np.ndarray) -> dict[str, float]:
    """Return what a row of labels says: one number of a class, or a mark of each. Raises DataError for any other."""
    if row.shape == (1,) and row[0] in range(len(classes)):
        return {classes[int(row[0])]: PRESENT}
    if row.shape != (len(classes),) or len(classes) == 1 or not np.isin(row, (0, 1)).all():
        raise DataError(f"the labels {row.tolist()} are neither the number of a class nor {len(classes)} marks")
    return {label: PRESENT if on else ABSENT for label, on in zip(classes, row)}


def _entry(identity: str, image: ArrayRef, row: np.ndarray, flavour: str, *more: Any) -> Entry | Rejected:
    """Return the entry of a picture with its row of labels, or why it is left out; `more` as of `Entry`."""
    try:
        return Entry(identity, image, "", _present(FLAVOURS[flavour]["classes"], row), *more)
    except DataError as error:
        return Rejected(identity, more[1], str(error))


def _check_count(file: Path, name: str, labels: np.ndarray) -> None:
    """Refuse another number of pictures than of labels, and labels that are no table."""
    pictures = array_length(str(file), name)
    if labels.ndim != 2 or len(labels) != pictures:
        raise DataError(f"{file} holds {pictures} {name}, and labels of shape {list(labels.shape)}.")


def _corrupted(name: str, root: Path, options: Options) -> Iterator[Entry | Rejected]:
    wanted, severity = options.values.get("corruption", ""), options.values.get("severity", "")
    if severity and severity not in SEVERITIES:
        raise ConfigError("option severity", severity, f"one of {', '.join(SEVERITIES)}")
    folder = root / name if (root / name).is_dir() else root
    files = {path.stem: path for path in sorted(needed(folder, "*.npz").parent.glob("*.npz"))}
    if wanted and wanted not in files:
        raise ConfigError("option corruption", wanted, f"one of {', '.join(files)}", nearest(wanted, list(files)))
    for corruption, file in files.items():
        if wanted and corruption != wanted:
            continue
        labels = load_arrays(str(file), "_labels").get("test_labels")
        if labels is None or len(labels) % len(SEVERITIES):
            raise DataError(f"{file} does not hold test_labels of five severities, one after the other.")
        _check_count(file, "test_images", labels)
        each = len(labels) // len(SEVERITIES)
        for index, row in enumerate(labels):
            level, number = str(1 + index // each), index % each
            if severity in ("", level):
                yield _entry(
                    f"{corruption}/{level}/{number}", ArrayRef(str(file), "test_images", index), row, name,
                    f"test/{number}", "test", "", {"corruption": corruption, "severity": int(level)},
                )  # fmt: skip


def _specs() -> Iterator[Spec]:
    for name, flavour in FLAVOURS.items():
        shared = {"classes": flavour["classes"], "licence": flavour.get("licence", "CC BY 4.0")}
        files = [f"{name}.npz", *(f"{name}_{size}.npz" for size in SIZES[1:])]
        yield spec(
            "medmnist", functools.partial(_entries, name), **shared, name=name, title=f"MedMNIST v2: {name}",
            instructions=f"One of {', '.join(files)}; --option size=64 (128, 224) chooses among several.",
            checksums=dict(zip(files, flavour["md5"])),
        )  # fmt: skip
        yield spec(
            "medmnist_c", functools.partial(_corrupted, name), **shared, name=f"{name}_c",
            title=f"MedMNIST-C: {name} under corruptions",
            instructions=f"The folder {name}/ with one .npz file per corruption.",
        )  # fmt: skip


SPECS = tuple(sorted(_specs(), key=lambda found: found.name.endswith("_c")))
