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
from ranjax.data.images.locations import ArrayRef, load_arrays
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
    classes = FLAVOURS[name]["classes"]
    labels = load_arrays(str(file), "_labels")
    for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        if f"{own}_labels" not in labels:
            raise DataError(f"{file} holds no array {own}_labels; it holds {', '.join(labels) or 'no labels'}.")
        for index, row in enumerate(labels[f"{own}_labels"]):
            present = _present(classes, row)
            yield Entry(f"{own}/{index}", ArrayRef(str(file), f"{own}_images", index), "", present, "", split)


def _present(classes: tuple[str, ...], row: np.ndarray) -> dict[str, float]:
    if len(row) == 1:
        return {classes[int(row[0])]: PRESENT}
    return {label: PRESENT if on else ABSENT for label, on in zip(classes, row)}


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
        each = len(labels) // len(SEVERITIES)
        for index, row in enumerate(labels):
            level, number = str(1 + index // each), index % each
            if severity in ("", level):
                yield Entry(
                    f"{corruption}/{level}/{number}", ArrayRef(str(file), "test_images", index), "",
                    _present(FLAVOURS[name]["classes"], row), f"test/{number}", "test", "",
                    {"corruption": corruption, "severity": int(level)},
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
