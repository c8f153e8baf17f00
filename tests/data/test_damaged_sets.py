"""Sets that were cut, edited or exchanged after they were written: one line each, and no record that is another."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from publishers import picture
from small_data import public
from test_prepare_set import settings, tree

from ranjax.cli import console
from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images.loading import load
from ranjax.data.images.locations import open_records
from ranjax.data.prepared import MANIFEST, open_prepared
from ranjax.data.row_filters import select
from ranjax.data.set_writing import prepare_set


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return prepare_set(settings(tree(tmp_path_factory.mktemp("tree"))), tmp_path_factory.mktemp("out"), 1)


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "set")
    return tmp_path / "set"


def read(folder):
    found = open_prepared(folder)
    return {name: [record["id"] for record in source] for name, source in found.splits.items()}


def read_all(folder):
    fields = ("id", "report", "label", "patient")
    splits = open_prepared(folder).splits.items()
    return {name: [(*map(r.get, fields), r["image"].tobytes(), r["labels"].tobytes()) for r in s] for name, s in splits}


def refused(folder, words):
    with pytest.raises(DataError, match=words) as error:
        read(folder)
    assert "\n" not in str(error.value)


def shard(folder, split="train"):
    return next(folder.glob(f"*-{split}.array_record-*"))


def test_a_whole_set_is_read(copy, whole):
    assert {name: len(ids) for name, ids in read(copy).items()} == whole.counts


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_shard_that_is_cut_is_named(copy, part):
    path = shard(copy)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refused(copy, f"{path.name} was changed, cut or exchanged")


def test_a_shard_that_is_missing_or_another_s_is_named(copy):
    path = shard(copy)
    shutil.copy(shard(copy, "test"), path)
    refused(copy, f"{path.name} was changed, cut or exchanged")
    path.unlink()
    refused(copy, f"{path.name} is missing")


def test_a_shard_that_is_damaged_in_its_middle_is_refused_where_it_is_read(copy, capsys):
    """As of a shard of many mebibytes, of which the manifest marks the first alone."""
    stored = json.loads((copy / MANIFEST).read_text())
    marks = {name: mark for name, mark in stored["files"].items() if name.endswith(".arrow")}
    unmarked(copy, files=marks)
    path, good = shard(copy), read_all(copy)
    data = path.read_bytes()
    held = np.flatnonzero(np.frombuffer(data, np.uint8))
    refusals = []
    for place in np.random.default_rng(0).choice(held, 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            assert read_all(copy) == good
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert all("damaged" in said and "\n" not in said for said in refusals)
    assert console.call(["prepare", "verify", str(copy)]) == 1
    assert " damaged" in capsys.readouterr().out.splitlines()[-1]
    path.write_bytes(data)
    assert console.call(["prepare", "verify", str(copy)]) == 0
    assert "40 records, all sound" in capsys.readouterr().out


def test_columns_that_are_damaged_anywhere_are_refused_before_they_are_read(copy):
    """They have no checksums, so that their marks are of the whole file."""
    path = next(copy.glob("*-train.columns-*"))
    assert json.loads((copy / MANIFEST).read_text())["files"][path.name].endswith(":whole")
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        refused(copy, f"{path.name} was changed, cut or exchanged")


def unmarked(folder, **changes):
    """The manifest as earlier versions wrote it, with changes."""
    stored = json.loads((folder / MANIFEST).read_text())
    stored = {key: value for key, value in stored.items() if key not in ("seal", "files")} | changes
    (folder / MANIFEST).write_text(json.dumps(stored))
    return stored


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
def test_a_cut_shard_of_a_set_of_before_is_one_line_too(copy, part):
    unmarked(copy)
    assert read(copy)
    path = shard(copy)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refused(copy, "cannot be read|its shards hold")


def test_counts_that_the_shards_do_not_hold_are_refused(copy):
    counts = unmarked(copy)["counts"]
    for changed in (counts | {"train": 9}, counts | {"dev": 3}):
        unmarked(copy, counts=changed)
        refused(copy, "its shards hold")


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", MANIFEST])
@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}"])
def test_an_edited_file_of_a_set_is_one_line(copy, name, text):
    (copy / name).write_text(text)
    refused(copy, name)
    if name != MANIFEST:
        unmarked(copy)
        refused(copy, "cannot be read|its shards hold|must hold one")


def test_any_edit_of_a_manifest_is_told(copy):
    stored = json.loads((copy / MANIFEST).read_text())
    for key in stored:
        for value in (7, None, "x", [], {}):
            if value == stored[key] or (key == "seal" and value is None):
                continue  # as a manifest of before
            (copy / MANIFEST).write_text(json.dumps(stored | {key: value}))
            refused(copy, MANIFEST)
        if key not in ("seal", "files"):
            (copy / MANIFEST).write_text(json.dumps({name: value for name, value in stored.items() if name != key}))
            refused(copy, MANIFEST)


def samples(root, count=6, **options):
    root.mkdir(exist_ok=True)
    path = root / "train-000.tar"
    with tarfile.open(path, "w", **options) as archive:
        for i in range(count):
            one = picture(root / "one.png", i)
            archive.add(one, f"{i}.png")
            (root / "one.txt").write_text(f"Film {i} shows a mass.")
            archive.add(root / "one.txt", f"{i}.txt")
    for name in ("one.png", "one.txt"):
        (root / name).unlink()
    return path


def test_a_tar_that_is_cut_anywhere_is_refused_or_its_samples_are_counted(tmp_path):
    path = samples(tmp_path / "in")
    data = path.read_bytes()
    chosen = public("webdataset", tmp_path / "in", adapt=0.0, validation=0.0, test=0.0)
    assert len(select(chosen).rows) == 6
    end = len(data.rstrip(b"\0"))
    for size in (0, 100, 512, 700, *range(1024, end, 512), *range(1300, end, 1777)):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"cannot be read|was cut") as error:
            select(chosen)
        assert "\n" not in str(error.value)
    path.write_bytes(data[:-512])  # the end is two empty blocks, or more
    assert len(select(chosen).rows) == 6


def test_shards_of_arrow_and_parquet_that_are_damaged_are_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from ranjax.data.images.locations import read_table

    cells = [{"bytes": picture(tmp_path / "x.png", i).read_bytes(), "path": None} for i in range(4)]
    table = pa.table({"image": cells, "report": [f"Report {i}." for i in range(4)]})
    chosen = public("huggingface", tmp_path / "in", adapt=0.0, validation=0.0, test=0.0)
    (tmp_path / "in").mkdir()
    for ending in ("parquet", "arrow"):
        path = tmp_path / "in" / f"train.{ending}"
        if ending == "parquet":
            parquet.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        data = path.read_bytes()
        rng = np.random.default_rng(0)
        for number in range(60):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 1 + number % 3):
                changed[place] ^= 0xFF
            path.write_bytes(bytes(changed[: len(data) - (number % 4) * 50]))
            read_table.cache_clear()
            said = ""
            try:
                found = select(chosen)
                assert len(found.rows) + len(found.rejected) == found.read
            except (ConfigError, DataError) as error:
                said = str(error)
            assert "\n" not in said
        path.unlink()


def test_labels_of_medmnist_beyond_its_classes_and_missing_pictures_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    arrays["train_labels"][:2, 0] = (2, -1)
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **arrays)
    chosen = public("pneumoniamnist", tmp_path, checksums=False)
    found = select(chosen)
    assert [item.reason for item in found.rejected] == [
        f"the labels [{n}] are neither the number of a class nor 2 marks" for n in (2, -1)
    ]
    assert (len(found.rows), found.read) == (8, 10)
    np.savez(path, **arrays | {"test_images": arrays["test_images"][:1]})
    with pytest.raises(DataError, match="holds 1 test_images, and labels of shape"):
        select(chosen)
    np.savez(path, **{name: value for name, value in arrays.items() if name != "val_images"})
    with pytest.raises(DataError, match="holds 0 val_images"):
        select(chosen)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"no \.npz file"):
        select(chosen)


def test_a_damaged_set_of_tensorflow_datasets_is_one_line(whole, tmp_path):
    shutil.copytree(whole.folder.parents[2], tmp_path / "in")
    place = tmp_path / "in" / whole.folder.relative_to(whole.folder.parents[2])
    mark = whole.folder.parent.name
    chosen = public("tfds", tmp_path / "in", options=(f"name=ranjax_set/{mark}", "patient=patient", "id=id"),
                    sections=())  # fmt: skip
    found = select(chosen)
    assert (len(found.rows), len(found.rejected)) == (40, 0)
    assert load(found.rows[0].image).size == (16, 16)
    for damage in ("cut", "absent", "features.json", "dataset_info.json"):
        for path in whole.folder.iterdir():
            shutil.copy(path, place / path.name)
        path = shard(place)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:50_000])
        elif damage == "absent":
            path.unlink()
        else:
            (place / damage).write_text('{"name": ')
        open_records.cache_clear()
        with pytest.raises(DataError, match="cannot be read") as error:
            select(chosen)
        assert "\n" not in str(error.value)
