"""Prepared sets: whole or absent, the same from the same settings, read without TensorFlow."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple

import numpy as np
import pytest
from small_data import folder_settings, rows, write_folder
from small_data import radiographs as radiograph_settings

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.data import radiographs
from ranjax.data.images.reading import read_image
from ranjax.data.prepared import open_prepared
from ranjax.data.radiograph_set import fingerprint, prepare_radiographs
from ranjax.data.set_writing import prepare_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"), rows())


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    return prepare_set(folder_settings(folder), tmp_path_factory.mktemp("out"), workers=1)


def test_records_hold_what_the_folder_held(folder, prepared):
    assert dict(prepared.counts) == {"train": 6, "adapt": 6, "validation": 6, "test": 6}
    source = prepared.splits["train"]
    table = {row["file"]: row for row in rows()}
    assert len(source) == 6
    assert sorted(source.ids) == [name for name, row in table.items() if row["split"] == "train"]
    for record in source:
        row = table[record["id"]]
        expected = read_image(folder / "images" / row["file"], 16, "crop")
        np.testing.assert_array_equal(record["image"], expected)
        assert record["image"].dtype == np.uint8
        assert record["report"] == row["report"]
        assert prepared.classes[record["label"]] == row["findings"]
        assert record["labels"].dtype == np.float32
        assert record["patient"] == row["patient"]
    assert source.column("report") == [record["report"] for record in source]
    assert source[-1]["id"] == source[5]["id"]
    assert source.image_shape == (16, 16, 1)
    with pytest.raises(IndexError):
        source[6]


def test_preparing_again_opens_what_is_there(folder, prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()}
    again = prepare_set(folder_settings(folder), prepared.folder.parents[2])
    assert again.folder == prepared.folder
    assert again.content == prepared.content
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()} == before


def test_the_same_settings_give_the_same_bytes_elsewhere(folder, prepared, tmp_path):
    again = prepare_set(folder_settings(folder), tmp_path)
    assert (again.fingerprint, again.content) == (prepared.fingerprint, prepared.content)
    assert again.splits["train"].ids == prepared.splits["train"].ids


def test_where_the_folder_lies_does_not_matter(folder, prepared, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    moved = prepare_set(folder_settings(tmp_path / "moved"), tmp_path / "out")
    assert moved.fingerprint == prepared.fingerprint


def test_other_settings_or_files_are_another_set_beside_it(tmp_path):
    settings = folder_settings(write_folder(tmp_path / "in", rows()))
    first = prepare_set(settings, tmp_path / "out")
    table = tmp_path / "in" / "index.csv"
    table.write_text(table.read_text().replace("Film 0.", "Another film."))
    second = prepare_set(settings, tmp_path / "out")
    assert second.fingerprint != first.fingerprint
    assert open_prepared(tmp_path / "out", first.fingerprint).content == first.content
    assert second.content != first.content
    with pytest.raises(DataError, match="must hold one prepared set"):
        open_prepared(tmp_path / "out")
    with pytest.raises(DataError, match="found: none"):
        open_prepared(tmp_path / "in")


def test_a_killed_preparation_is_redone_cleanly(folder, prepared, tmp_path):
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from small_data import folder_settings
        from ranjax.data import array_records
        from ranjax.data.set_writing import prepare_set
        write = array_records._write_shard
        def killed(folder, shard, *rest):
            if shard.split == "validation":
                os.kill(os.getpid(), signal.SIGKILL)
            write(folder, shard, *rest)
        array_records._write_shard = killed
        prepare_set(folder_settings({str(folder)!r}), {str(tmp_path)!r})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with pytest.raises(DataError, match="found: none"):
        open_prepared(tmp_path)
    (made,) = tmp_path.glob(".parts/*/set")
    before = {path.name: path.stat().st_mtime_ns for path in made.glob("*array_record*")}
    assert {name.split("-")[1].split(".")[0] for name in before} == {"train", "adapt"}
    again = prepare_set(folder_settings(folder), tmp_path)
    assert again.content == prepared.content
    # What was whole is not written again, and the rest is the same to the byte.
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()}.items()
    for path in prepared.folder.glob("*array_record*"):
        assert (again.folder / path.name).read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".parts/*"))


def test_a_set_whose_manifest_is_missing_is_redone(folder, prepared, tmp_path):
    made = prepare_set(folder_settings(folder), tmp_path)
    (made.folder / "prepared.json").unlink()
    assert prepare_set(folder_settings(folder), tmp_path).content == prepared.content


def test_no_space_is_said_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(files.DiskFullError, match="no space left below"):
        prepare_set(folder_settings(folder), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_images_whose_patient_is_not_named_are_not_of_one_patient(prepared):
    """With a key, all empty names had one pseudonym: every test image would count as a film of one person."""
    source = prepared.splits["train"]
    first, second = (source._convert({**source._rows[i], "patient": b""}) for i in (0, 1))
    assert first["patient"] == first["id"] != second["id"] == second["patient"]
    assert source._convert(source._rows[0])["patient"].startswith("p")


@pytest.fixture
def flat_films(monkeypatch):
    """Films that cost nothing: a gradient whose phase follows the case's id."""

    def render(cases, size=64, batch=64):
        ramp = np.arange(size * size, dtype=np.uint32).reshape(size, size)
        return np.stack([(ramp + sum(case.id.encode())).astype(np.uint8) for case in cases])

    monkeypatch.setattr(radiographs, "render_cases", render)


def test_generated_radiographs_are_a_prepared_set(flat_films, tmp_path):
    settings = radiograph_settings(3, 16, train=20, test=9, ood_test=5)
    made = prepare_radiographs(settings, tmp_path)
    assert dict(made.counts) == {"train": 20, "test": 9, "ood_test": 5}
    assert made.classes == radiographs.CLASSES
    assert made.card["licence"].startswith("Creative Commons")
    assert set(made.prompts) == set(made.classes)
    cases = {case.id: case for case in radiographs.sample_cases(3, "train", 20, settings.multiple)}
    for record in made.splits["train"]:
        case = cases[record["id"]]
        assert record["report"] == radiographs.write_report(case)
        assert record["label"] == radiographs.label(case)
        np.testing.assert_array_equal(record["labels"], radiographs.labels(case))
        assert [finding["kind"] for finding in record["group"]["findings"]] == [f.kind for f in case.findings]
    assert (np.array(made.splits["test"].column("label")) >= 0).all()
    patients = [set(source.column("patient")) for source in made.splits.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))


def test_seed_size_and_counts_change_the_fingerprint():
    base = radiograph_settings(0, 32, train=8)
    others = [
        radiograph_settings(1, 32, train=8),
        radiograph_settings(0, 64, train=8),
        radiograph_settings(0, 32, train=9),
    ]
    assert len({fingerprint(settings) for settings in [base, *others]}) == 4
    assert fingerprint(base) == fingerprint(radiograph_settings(0, 32, train=8))


@pytest.mark.slow
def test_real_films_are_prepared(tmp_path):
    made = prepare_radiographs(radiograph_settings(0, 32, train=12, ood_test=4), tmp_path)
    cases = radiographs.sample_cases(0, "train", 12, 0.2)
    films = dict(zip([case.id for case in cases], radiographs.render_cases(cases, 32)))
    for record in made.splits["train"]:
        np.testing.assert_array_equal(record["image"][:, :, 0], films[record["id"]])


def test_reading_imports_no_tensorflow_and_no_torch(prepared):
    script = f"""
        import sys
        from ranjax.data import batches, noisy_pairs, store
        from ranjax.data.prepared import open_prepared
        assert "tensorflow_datasets" not in sys.modules
        source = open_prepared({str(prepared.folder)!r}).splits["train"]
        batches.Batches(source, 2, seed=0)[0]
        print([name for name in ("tensorflow", "torch", "transformers") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_records_that_are_kept_cannot_be_spoilt(prepared):
    source = prepared.splits["train"]
    first = source[0]
    first["report"] = "changed"
    with pytest.raises(ValueError, match="read-only"):
        first["image"][0] = 0
    assert source[0]["report"] != "changed"
    assert source.meta(0)["report"] == source[0]["report"]
    assert "image" not in source.meta(0)
