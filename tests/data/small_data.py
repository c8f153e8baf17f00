"""Small sources and folders that the tests of the data room share."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.data.set_settings import RadiographSettings, SetSettings
from ranjax.data.sources import Source
from ranjax.data.splits import SPLITS

FINDINGS = ("no effusion", "left effusion", "right mass", "small nodule", "clear lungs")


class ListSource(Source):
    """Records in memory."""

    def __init__(self, records):
        self._records = list(records)

    def __len__(self):
        return len(self._records)

    def record(self, index):
        return dict(self._records[index])


def records(count=30, size=16, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"case-{i}",
            "image": rng.integers(0, 256, (size, size, 1), dtype=np.uint8),
            "report": f"Report {i % 11}: {FINDINGS[i % len(FINDINGS)]}, seen today.",
            "label": i % classes,
            "labels": np.eye(classes, dtype=np.float32)[i % classes],
            "patient": f"patient-{i}",
            "group": {"row": i},
        }
        for i in range(count)
    ]


def source(count=30, **kwargs):
    return ListSource(records(count, **kwargs))


def write_png(path, size=20, seed=0, mode="L"):
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (size, size), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 16)
    else:
        image = Image.fromarray(grey).convert(mode)
    image.save(path)
    return grey


def write_folder(root: Path, rows, columns=("file", "patient", "findings", "report", "split")):
    """A folder with images/ and index.csv; a row's image is written unless the file exists or its name says not to."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number, row in enumerate(rows):
            writer.writerow([row.get(name, "") for name in columns])
            path = root / "images" / row["file"]
            if row["file"] and not row["file"].startswith("absent") and not path.exists():
                write_png(path, seed=number)
    return root


def rows(count=24, splits=("train", "adapt", "validation", "test")):
    return [
        {
            "file": f"{i:03d}.png",
            "patient": f"p{i}",
            "findings": ("healthy", "ill")[i // len(splits) % 2],
            "report": f"Film {i}. Lungs {('clear', 'hazy')[i // len(splits) % 2]}.",
            "split": splits[i % len(splits)],
        }
        for i in range(count)
    ]


def public(name, data_dir, **changes):
    """Settings of a set whose ids are public and whose reports stay as they are."""
    return SetSettings(name, str(data_dir), **{"patient_key": "none", "deidentify": False, **changes})


def folder_settings(root, options=(), **changes):
    """Settings of a folder of `write_folder`; `options` come behind its columns, "NAME=" takes one of these away."""
    named = dict(text.split("=", 1) for text in ("label=findings", "patient=patient", "split=split", *options))
    chosen = {"classes": ("healthy", "ill"), "unknown_labels": "exclude", "image_size": 16, "sections": ()}
    return public("table", root, options=tuple(f"{k}={v}" for k, v in named.items() if v), **{**chosen, **changes})


def radiographs(seed=0, image_size=64, **counts):
    """Settings of generated radiographs with no example but those counted."""
    return RadiographSettings(seed=seed, image_size=image_size, **{**dict.fromkeys(SPLITS, 0), **counts})
