"""MedMNIST v2, twelve sets of small pictures in one layout (an .npz file per set and size), and MedMNIST-C: their test
sets under corruptions of five severities, an .npz file per corruption."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.images.locations import ArrayRef, load_arrays
from ranjax.data.publisher_tables import needed
from ranjax.data.sets.spec import ABSENT, PRESENT, WRITTEN, Entry, Options, Rejected, Spec


class Flavour(NamedTuple):
    """One of the sets: class names in the order of its numbers, and the published MD5 at 28, 64, 128 and 224 pixels."""

    classes: tuple[str, ...]
    md5: tuple[str, str, str, str]
    licence: str = "CC BY 4.0"


SIZES = (28, 64, 128, 224)
SEVERITIES = ("1", "2", "3", "4", "5")

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

# fmt: off
FLAVOURS: Mapping[str, Flavour] = {
    "pathmnist": Flavour(
        ("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
         "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
        ("a8b06965200029087d5bd730944a56c1", "55aa9c1e0525abe5a6b9d8343a507616",
         "ac42d08fb904d92c244187169d1fd1d9", "2c51a510bcdc9cf8ddb2af93af1eadec"),
    ),
    "chestmnist": Flavour(
        ("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
         "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
        ("02c8a6516a18b556561a56cbdd36c4a8", "9de6cd0b934ebb5b7426cfba5efbae16",
         "db107e5590b27930b62dbaf558aebee3", "45bd33e6f06c3e8cdb481c74a89152aa"),
    ),
    "dermamnist": Flavour(
        ("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
         "benign keratosis-like lesions", "dermatofibroma", "melanoma",
         "melanocytic nevi", "vascular lesions"),
        ("0744692d530f8e62ec473284d019b0c7", "b70a2f5635c6199aeaa28c31d7202e1f",
         "2defd784463fa5243564e855ed717de1", "8974907d8e169bef5f5b96bc506ae45d"),
        "CC BY-NC 4.0",
    ),
    "octmnist": Flavour(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        ("c68d92d5b585d8d81f7112f81e2d0842", "e229e9440236b774d9f0dfef9d07bdaf",
         "0a97e76651ace45c5d943ee3f65b63ae", "abc493b6d529d5de7569faaef2773ba3"),
    ),
    "pneumoniamnist": Flavour(
        ("normal", "pneumonia"),
        ("28209eda62fecd6e6a2d98b1501bb15f", "8f4eceb4ccffa70c672198ea285246c6",
         "05b46931834c231683c68f40c47b2971", "d6a3c71de1b945ea11211b03746c1fe1"),
    ),
    "retinamnist": Flavour(
        ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
        ("bd4c0672f1bba3e3a89f0e4e876791e4", "afda852cc34dcda56f86ad2b2457dbcc",
         "e48e916a24454daf90583d4e6efb1a18", "eae7e3b6f3fcbda4ae613ebdcbe35348"),
    ),
    "breastmnist": Flavour(
        ("malignant", "normal, benign"),
        ("750601b1f35ba3300ea97c75c52ff8f6", "742edef2a1fd1524b2efff4bd7ba9364",
         "363e4b3f8d712e9b5de15470a2aaadf1", "b56378a6eefa9fed602bb16d192d4c8b"),
    ),
    "bloodmnist": Flavour(
        ("basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte",
         "neutrophil", "platelet"),
        ("7053d0359d879ad8a5505303e11de1dc", "2b94928a2ae4916078ca51e05b6b800b",
         "adace1e0ed228fccda1f39692059dd4c", "b718ff6835fcbdb22ba9eacccd7b2601"),
    ),
    "tissuemnist": Flavour(
        ("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
         "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments",
         "Thick Ascending Limb"),
        ("ebe78ee8b05294063de985d821c1c34b", "123ece2eba09d0aa5d698fda57103344",
         "61b955355d7425a89687b06cca3ce0c2", "b077128c4a949f0a4eb01517f9037b9c"),
    ),
    "organamnist": Flavour(
        _ORGANS,
        ("68e3f8846a6bd62f0c9bf841c0d9eacc", "2dcccc29b88e6da5a01161ef20cda288",
         "eeae80d0a227a8d099027e1b3cfd3b60", "50747347e05c87dd3aaf92c49f9f3170"),
    ),
    "organcmnist": Flavour(
        _ORGANS,
        ("b9ceb9546e10131b32923c5bbeaea2b1", "3ce34a8724ea6f548e6db4744d03b6a9",
         "773c1f009daa3fe5d9a2a201b2a7ed94", "050f5e875dc056f6768abf94ec9995d1"),
    ),
    "organsmnist": Flavour(
        _ORGANS,
        ("9ab87b696fb54e2a387ebe992d6ed5f1", "53a6d115339d874c25e309a994ff46d3",
         "ded0c5fa01a95dc4978b956f613e9b8e", "b354719e553fbbb2513d5533f52a4cb1"),
    ),
}
# fmt: on


@functools.lru_cache(maxsize=1)
def _labels(path: str) -> dict[str, np.ndarray]:
    return load_arrays(path, "_labels")


def _entries(name: str, root: Path, options: Options) -> Iterator[Entry | Rejected]:
    size = options.values.get("size", "")
    names = {"28": f"{name}.npz", **{str(n): f"{name}_{n}.npz" for n in reversed(SIZES[1:])}}
    if size and size not in names:
        raise ConfigError("option size", size, f"one of {', '.join(map(str, SIZES))}")
    file = needed(root, *([names[size]] if size else names.values()))
    classes = FLAVOURS[name].classes
    labels = _labels(str(file))
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
        labels = _labels(str(file)).get("test_labels")
        if labels is None or len(labels) % len(SEVERITIES):
            raise DataError(f"{file} does not hold test_labels of five severities, one after the other.")
        each = len(labels) // len(SEVERITIES)
        for index, row in enumerate(labels):
            level, number = str(1 + index // each), index % each
            if severity in ("", level):
                yield Entry(
                    f"{corruption}/{level}/{number}", ArrayRef(str(file), "test_images", index), "",
                    _present(FLAVOURS[name].classes, row), f"test/{number}", "test", "",
                    {"corruption": corruption, "severity": int(level)},
                )  # fmt: skip


def _spec(name: str, flavour: Flavour) -> Spec:
    files = [f"{name}.npz", *(f"{name}_{size}.npz" for size in SIZES[1:])]
    return Spec(
        name, f"MedMNIST v2: {name}", "classification", functools.partial(_entries, name), flavour.classes, "",
        ("train", "validation", "test"), WRITTEN, flavour.licence,
        "Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification, "
        "Scientific Data 2023",
        "https://medmnist.com", f"One of {', '.join(files)}; --option size=64 (128, 224) chooses among several.",
        ("Colour pictures are stored as grey.", "No patients are named: the publisher splits by source set."),
        dict(zip(files, flavour.md5)), {"size": "28, 64, 128 or 224; default: 28, else the largest that lies there"},
    )  # fmt: skip


def _corrupted_spec(name: str, flavour: Flavour) -> Spec:
    return Spec(
        f"{name}_c", f"MedMNIST-C: {name} under corruptions", "classification", functools.partial(_corrupted, name),
        flavour.classes, "", ("test",), WRITTEN, flavour.licence,
        "Di Salvo et al., MedMNIST-C: comprehensive benchmark and improved classifier robustness by simulating "
        "realistic image corruptions, arXiv 2406.17536",
        "https://zenodo.org/records/11471504", f"The folder {name}/ with one .npz file per corruption.",
        ("Only a test set: train on the MedMNIST set of the same name, and take this one as ood_test.",
         "The groups corruption and severity (1 to 5) tell a record's."),
        options={"corruption": "one corruption; default: every file", "severity": "1 to 5; default: all five"},
    )  # fmt: skip


SPECS = (
    *(_spec(name, flavour) for name, flavour in FLAVOURS.items()),
    *(_corrupted_spec(name, flavour) for name, flavour in FLAVOURS.items()),
)
