"""Nothing runs or unpacks without bounds because a file says so, and no artefact names a patient."""

import ast
import csv
import io
import json
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

import ranjax
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.settings import read
from ranjax.data.images import locations as pixels
from ranjax.data.images.reading import open_image
from ranjax.data.prepared import open_prepared
from ranjax.data.set_settings import DataSettings, SetSettings
from ranjax.data.set_writing import prepare_set
from ranjax.data.sets.pair_sets import _mimic_reports
from ranjax.data.text import deidentify
from ranjax.run import config as configs
from ranjax.run.stages.attack_files import read_pairs

PACKAGE = Path(ranjax.__file__).parent
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords}, node.lineno


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def sins(text):
    """What a module may not do, in words."""
    tree = ast.parse(text)
    found = [f"imports {name}" for name in imports(tree) if name in PICKLES]
    for name, named, line in calls(tree):
        last = name.rsplit(".", 1)[-1]
        allowed = named.get("allow_pickle")
        if name in ("np.load", "numpy.load") and not (isinstance(allowed, ast.Constant) and allowed.value is False):
            found.append(f"line {line}: {name} without allow_pickle=False")
        tensors_only = named.get("weights_only")
        if name == "torch.load" and not (isinstance(tensors_only, ast.Constant) and tensors_only.value is True):
            found.append(f"line {line}: torch.load without weights_only=True")
        if name in ("eval", "exec", "os.system", "yaml.load", "pd.read_pickle"):
            found.append(f"line {line}: {name}")
        if last in ("extractall", "extract") and "tar" in text + "zip":
            found.append(f"line {line}: unpacks to the disk by {name}")
        if "shell" in named:
            found.append(f"line {line}: {name} with a shell")
    return found


def test_the_package_unpickles_runs_and_unpacks_nothing_that_a_file_brings():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 150
    assert {str(p.relative_to(PACKAGE)): found for p in modules if (found := sins(p.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "tarfile.open(p).extractall(d)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
    ],
)
def test_each_of_these_would_be_found(text):
    assert sins(text)


SECRET = "a secret of many bytes, kept elsewhere"
PATIENTS = ("Miller-1", "Miller-2", "Okafor-3", "Okafor-4", "Silva-5", "Silva-6", "Wong-7", "Wong-8")


def folder(root, **changes):
    """A folder whose table, file names and reports name patients."""
    (root / "images").mkdir(parents=True)
    with (root / "index.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "patient", "report", "label", "age", "Patient Name", "exam date", "view"])
        for number in range(32):
            patient = PATIENTS[number % 8]
            name = f"{patient}_{number}.png"
            if number != 5:
                grey = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
                Image.fromarray(grey).save(root / "images" / name)
            report = f"Seen by Dr. Kowalski on 2021-03-0{number % 9 + 1}. No effusion, MRN 4711{number:03d}."
            label = "none" if number == 9 else ("normal", "mass")[number % 2]
            table.writerow([name, patient, report, label, 95 if number == 3 else 40, "Kowalska", "2021-03-01", "PA"])
    return SetSettings(
        "table", str(root), ("label=label", "patient=patient", "shares=0.5,0.2,0.1,0.2"), ("normal", "mass"),
        unknown_labels="exclude", image_size=16, seed=3, **changes,
    )  # fmt: skip


def written(made):
    """All that a prepared set holds as text: its records, and its files byte for byte."""
    rows = [source[i] for source in made.splits.values() for i in range(len(source))]
    records = json.dumps([{k: r[k] for k in ("id", "report", "patient", "group")} for r in rows])
    return records + "".join(p.read_bytes().decode("latin-1") for p in made.folder.rglob("*") if p.is_file())


def test_no_artefact_of_a_users_folder_names_a_patient(tmp_path, monkeypatch):
    monkeypatch.setenv(deidentify.VARIABLE, SECRET)
    made = prepare_set(folder(tmp_path / "in"), tmp_path / "out")
    text = written(made)
    for word in ("Miller", "Okafor", "Silva", "Wong", "Kowalsk", "2021-03", "4711", SECRET, '"95"', "Patient Name"):
        assert word not in text, word
    assert "[NAME]" in text
    assert "[DATE]" in text
    assert {len(row["id"]) for row in made.exclusions} == {32}
    assert len(made.exclusions) == 2
    record = made.splits["train"][0]
    assert (len(record["patient"]), record["group"]["view"]) == (32, "PA")


@pytest.mark.slow
def test_splits_stay_by_patient_and_the_same_whatever_the_key(tmp_path, monkeypatch):
    sides = {}
    for name, secret in (("a", SECRET), ("b", SECRET), ("c", SECRET + " another")):
        monkeypatch.setenv(deidentify.VARIABLE, secret)
        sides[name] = prepare_set(folder(tmp_path / name), tmp_path / f"out-{name}")
    public = prepare_set(folder(tmp_path / "d", patient_key="none"), tmp_path / "out-d")

    def by_split(made):
        return {split: set(source.column("patient")) for split, source in made.splits.items()}

    a, b, c = (by_split(made) for made in sides.values())
    assert a == b
    assert sides["a"].fingerprint == sides["b"].fingerprint != sides["c"].fingerprint
    assert not set().union(*a.values()) & set().union(*c.values())
    assert sides["a"].counts == sides["c"].counts == public.counts
    assert all(not a[one] & a[other] for one in a for other in a if one != other)
    key = deidentify.key_of("") if os.environ.pop(deidentify.VARIABLE) else b""
    assert key
    assert by_split(public)["train"] <= set(PATIENTS)


def test_the_users_own_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(deidentify.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = deidentify.key_of("")
    place = tmp_path / "ranjax" / "patient.key"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [path.name for path in place.parent.iterdir()] == ["patient.key"]
    assert deidentify.key_of("") == first
    place.unlink()
    assert deidentify.key_of("") != first
    assert deidentify.key_of("none") == b""
    monkeypatch.setenv(deidentify.VARIABLE, "short")
    with pytest.raises(ConfigError, match="at least 16 secret bytes"):
        deidentify.key_of("")
    monkeypatch.delenv(deidentify.VARIABLE)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="Name a file with a secret"):
        deidentify.key_of("")


def test_a_run_hides_patients_unless_it_is_told_that_they_are_public(tmp_path):
    config = configs.default_config()
    config.data.source, config.data.set.name, config.data.set.data_dir = "set", "table", str(tmp_path)
    made = read(DataSettings(), config.data).to_prepare(0)
    assert (made.patient_key, made.deidentify) == ("", True)
    config.data.set.patient_key = "none"
    assert read(DataSettings(), config.data).to_prepare(0).patient_key == "none"


def test_the_attack_command_marks_reports_before_it_writes_them(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,report\na.png,Seen by Dr. Kowalski. No effusion.\n")
    assert read_pairs(tmp_path, tmp_path / "t.csv", "image", "report")[0].reports == ("Seen by [NAME]. No effusion.",)
    kept = read_pairs(tmp_path, tmp_path / "t.csv", "image", "report", deidentified=False)
    assert "Kowalski" in kept[0].reports[0]


def test_what_unpacks_beyond_its_limit_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("files/p1.txt", b"a report")
        archive.writestr("files/p2.txt", b" " * (5 << 20))
    report = _mimic_reports(tmp_path)
    assert report("files/p1") == "a report"
    with pytest.raises(DataError, match="more than 4 MiB"):
        report("files/p2")
    monkeypatch.setattr(pixels, "TABLE_LIMIT", 10_000)
    np.savez_compressed(tmp_path / "a.npz", train_images=np.zeros((100, 28, 28), np.uint8))
    with pytest.raises(DataError, match="over the limit"):
        pixels.load_arrays(str(tmp_path / "a.npz"), "_images")
    parquet.write_table(pa.table({"x": np.zeros(100_000)}), tmp_path / "a.parquet", use_dictionary=False)
    with pytest.raises(DataError, match="over the limit"):
        pixels.read_table(str(tmp_path / "a.parquet"))


def test_arrays_that_are_pickles_or_lie_about_their_size_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", train_images=np.array([{"run": "me"}], object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        pixels.load_arrays(str(tmp_path / "objects.npz"), "_images")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 30)})
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("train_images.npy", head.getvalue() + b"\0" * 64)
    with pytest.raises(DataError, match=r"no \.npz file of arrays"):
        pixels.load_arrays(str(tmp_path / "liar.npz"), "_images")


def test_a_picture_that_claims_billions_of_pixels_is_refused_before_they_are_made():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="unreadable"):
        open_image(bomb)


def test_a_prepared_set_opens_without_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv(deidentify.VARIABLE, SECRET)
    made = prepare_set(folder(tmp_path / "in"), tmp_path / "out")
    monkeypatch.setenv(deidentify.VARIABLE, "another secret of many bytes")
    assert open_prepared(tmp_path / "out", made.fingerprint).content == made.content
