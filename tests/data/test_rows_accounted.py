"""Rows in = kept + left out with a reason, for every reader, against rows that are counted in the files themselves."""

import csv
import gzip
import io
import json
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from publishers import ALL, noise_film, picture, table
from small_data import public
from test_generic_sets import shard

from ranjax.data.row_filters import select
from ranjax.data.sets import SETS
from ranjax.data.sets.medmnist_sets import FLAVOURS


def lines(root, *patterns):
    """The rows of CSV files by name, counted without this project's reader."""
    found = []
    for path in (path for pattern in patterns for path in sorted(root.rglob(pattern))):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    return found


def different(root, pattern):
    return len({row[0] for row in lines(root, pattern)})


def objects(root, *patterns):
    return sum(len(json.loads(path.read_text("utf-8"))) for pattern in patterns for path in root.rglob(pattern))


def labels_of(root):
    arrays = [np.load(path) for path in root.rglob("*.npz")]
    return sum(len(stored[name]) for stored in arrays for name in stored.files if name.endswith("_labels"))


def films_of_reports(root):
    with tarfile.open(root / "NLMCXR_reports.tgz") as archive:
        texts = [archive.extractfile(member).read().decode() for member in archive]
    return sum(max(1, len(re.findall("<parentImage ", text))) for text in texts)


ROWS = {
    "nih": lambda root: len(lines(root, "Data_Entry*.csv")),
    "chexpert": lambda root: len(lines(root, "train.csv", "valid.csv")),
    "chexpert_5x200": lambda root: len(lines(root, "train.csv")),
    "mimic_cxr": lambda root: len(lines(root, "*-metadata.csv.gz")),
    "iu_xray": films_of_reports,
    "roco": lambda root: len(lines(root, "*_captions.csv")),
    "medpix": lambda root: objects(root, "Descriptions.json"),
    "padchest": lambda root: len(lines(root, "PADCHEST*.csv.gz")),
    "chexpert_plus": lambda root: len(lines(root, "df_chexpert_plus_*.csv")),
    # A film with several boxes, masks or readers is several rows.
    "rsna": lambda root: different(root, "stage_2_train_labels.csv"),
    "siim": lambda root: different(root, "train-rle.csv"),
    "vindr": lambda root: different(root, "image_labels_train.csv") + different(root, "image_labels_test.csv"),
    "covidx": lambda root: sum(len(path.read_text().split("\n")) - path.read_text().split("\n").count("")
                               for path in root.glob("*.txt")),
    "kermany": lambda root: len(list((root / "chest_xray").rglob("*.jpeg"))),
    "pneumoniamnist": labels_of,
    "chestmnist": labels_of,
    "pneumoniamnist_c": labels_of,
    "vqa_rad": lambda root: objects(root, "VQA_RAD*.json"),
    "slake": lambda root: objects(root, "*.json"),
    "path_vqa": lambda root: sum(parquet.read_metadata(path).num_rows for path in root.rglob("*.parquet")),
}  # fmt: skip


def _table(root):
    rows = [[f"{i}.png", ("" if i == 2 else f"Film {i}."), f"p{i}"] for i in range(6)]
    table(root / "index.csv", ["file", "report", "patient"], [*rows, rows[0], ["", "", ""], ["7.png", "a", "b", "c"]])
    return 9


def _dicom(root):
    for i in range(4):
        noise_film(root / f"{i}.dcm", i, PatientID=f"p{i}", Modality="CT" if i == 3 else "DX")
        (root / f"{i}.txt").write_text("" if i == 1 else f"Film {i} shows a mass.")
    (root / "4.dcm").write_bytes(b"no film")
    return 5


def _webdataset(root):
    samples = [(f"{i}.png", picture(root / "x.png", i).read_bytes()) for i in range(4)]
    texts = [(f"{i}.txt", b"" if i == 1 else f"Film {i}.".encode()) for i in range(5)]
    shard(root / "train-0.tar", sorted([*samples, *texts]))
    (root / "x.png").unlink()
    return 5


def _huggingface(root):
    cells = [{"bytes": picture(root / "x.png", i).read_bytes(), "path": None} for i in range(4)]
    parquet.write_table(
        pa.table({"image": cells, "report": ["a film", "", None, "a film too"]}), root / "train.parquet"
    )
    return 4


def _class_folders(root):
    for i in range(12):
        place = root / ("ill", "well")[i % 2]
        place.mkdir(exist_ok=True)
        picture(place / f"{i}.png", i)
    (root / "ill" / "notes.txt").write_text("no image")
    return 13


NO_OPTIONS = ("dicom", "class_folders")
OWN = {
    "class_folders": _class_folders,
    "table": _table,
    "dicom": _dicom,
    "webdataset": _webdataset,
    "huggingface": _huggingface,
}


def accounted(chosen, rows):
    found = select(chosen)
    drawn = [
        re.match(r"(\d+) films of .* are not drawn", line.text) for line in found.said if line.topic == "selection"
    ]
    apart = sum(int(match[1]) for match in drawn if match)
    assert rows > 0
    assert len(found.rows) + len(found.rejected) + found.undrawn + apart == rows
    assert all(item.reason for item in found.rejected)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_a_publisher_s_files_is_accounted_for(name, tmp_path):
    ALL["chexpert" if name == "chexpert_5x200" else name](tmp_path)
    rows = ROWS[name](tmp_path)
    accounted(public(name, tmp_path, checksums=False), rows)
    limited = accounted(public(name, tmp_path, checksums=False, limit=3), rows)
    assert limited.undrawn or name == "chexpert_5x200"


@pytest.mark.parametrize("name", OWN)
def test_every_row_of_a_user_s_files_is_accounted_for(name, tmp_path):
    rows = OWN[name](tmp_path)
    accounted(public(name, tmp_path, options=("patient=none",) * (name not in ("table", *NO_OPTIONS))), rows)


def test_every_record_of_a_prepared_set_is_accounted_for(tmp_path):
    from test_prepare_set import settings, tree

    from ranjax.data.set_writing import prepare_set

    made = prepare_set(settings(tree(tmp_path / "in", 16)), tmp_path / "out", 1)
    name = f"ranjax_set/{made.folder.parent.name}"
    accounted(public("tfds", tmp_path / "out", options=(f"name={name}", "id=id", "patient=patient"), sections=()), 16)


def test_no_reader_is_left_out():
    """The sets of MedMNIST share two readers, which pneumoniamnist, chestmnist and pneumoniamnist_c run."""
    shared = {name + ending for name in FLAVOURS for ending in ("", "_c")}
    assert {spec.name for spec in SETS.values()} - shared == {*ROWS, *OWN, "tfds"} - shared
