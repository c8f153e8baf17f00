"""Shards of a prepared set: the order of tensorflow-datasets, pictures no larger than their source, flat memory."""

import io
import json
import os
import subprocess
import sys
import textwrap
from collections import namedtuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from small_data import folder_settings, rows, write_folder

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.data import array_records, row_filters, spilled
from ranjax.data.images import codecs, decode
from ranjax.data.images.locations import FileRef
from ranjax.data.images.reading import encode_png, read_image, resize
from ranjax.data.prepared import open_prepared
from ranjax.data.set_writing import prepare_set
from ranjax.data.spilled import Spilled


def table_rows(count, split="train", patient=None):
    labels = np.eye(3, dtype=np.float32)
    return [
        row_filters.Row(
            f"a\\b/{i}.png",
            FileRef(""),
            f"Report {i}.",
            i % 3,
            labels[i % 3],
            patient or f"{split}-{i}",
            split,
            {"row": i},
        )
        for i in range(count)
    ]


def noise(first, last, side=16):
    """Outcomes whose pictures are noise, stored without compression, as costs little."""
    rng = np.random.default_rng(first)
    found = []
    for _ in range(first, last):
        pixels = rng.integers(0, 256, (side, side, 1), dtype=np.uint8)
        found.append(decode.outcome_of(Image.fromarray(pixels[:, :, 0]), codecs.Storage(side)))
    return found


def write(folder, items, **changes):
    parts = folder / "parts"
    decode.make_parts(len(items), lambda first, last: lambda: noise(first, last), parts, workers=1)
    given = {"mark": "mark", "class_count": 3, "description": "noise", **changes}
    return array_records.write_records(folder / "set", parts, items, decode.facts(parts, len(items)), **given)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes records as ranjax did while tensorflow-datasets wrote them."""

    name = "ranjax_set"
    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    items = ()

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(16, 16, 1), encoding_format="png"),
            "report": tfds.features.Text(),
            "label": tfds.features.Scalar(np.int64),
            "labels": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "patient": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for row, outcome in self.items:
            stored = {name: getattr(row, name) for name in ("id", "report", "label", "labels", "patient")}
            yield row.id, stored | {"image": outcome.data, "group": json.dumps(row.group)}


@pytest.fixture
def of_tfds(tmp_path):
    """A set of 300 records that tensorflow-datasets wrote, with the manifest of an earlier version."""
    builder = _Builder(data_dir=os.fspath(tmp_path / "old"), file_format="array_record")
    outcomes = [
        outcome for start in range(0, 300, decode.PART) for outcome in noise(start, min(300, start + decode.PART))
    ]
    builder.items = list(zip(table_rows(300), outcomes))
    tfds.disable_progress_bar()
    builder.download_and_prepare(
        download_dir=os.fspath(tmp_path / "none"), download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    stated = {
        "fingerprint": "old", "settings": {"image_size": 16}, "classes": ["a", "b", "c"], "prompts": {}, "card": {},
        "label_words": [], "counts": {"train": 300}, "exclusions": [], "content": "",
    }  # fmt: skip
    files.write_json(tmp_path / "old" / "ranjax_set" / "1.0.0" / "prepared.json", stated)
    return open_prepared(tmp_path / "old").splits["train"], stated


def test_records_are_in_the_order_of_tensorflow_datasets_and_old_sets_are_read(of_tfds, tmp_path, monkeypatch):
    old, stated = of_tfds
    # Shards of some twenty records.
    monkeypatch.setattr(array_records, "SHARD", 32 << 10)
    written = write(tmp_path, table_rows(300))
    assert written.counts == {"train": 300}
    files.write_json(tmp_path / "set" / "prepared.json", stated)
    new = open_prepared(tmp_path / "set").splits["train"]
    assert len(list((tmp_path / "set").glob("*.array_record-*"))) > 10
    assert len(new) == len(old) == 300
    assert new.ids == old.ids
    for one, other in zip(new, old):
        np.testing.assert_array_equal(one.pop("image"), other.pop("image"))
        np.testing.assert_array_equal(one.pop("labels"), other.pop("labels"))
        assert one == other
    again = open_prepared(tmp_path / "set").splits["train"]
    for name in ("report", "label", "patient", "group"):
        assert again.column(name) == old.column(name)
    np.testing.assert_array_equal(again.column("labels"), old.column("labels"))
    assert again.meta(7)["group"] == old.meta(7)["group"]
    # Its files alone tell tensorflow-datasets all.
    rows_of = tfds.builder_from_directory(os.fspath(tmp_path / "set")).as_data_source(split="train")
    assert rows_of[5]["id"].decode() == new.ids[5]
    np.testing.assert_array_equal(rows_of[5]["image"], new[5]["image"])


def test_content_depends_on_no_shard(tmp_path, monkeypatch):
    first = write(tmp_path / "one", table_rows(40))
    monkeypatch.setattr(array_records, "SHARD", 8 << 10)
    assert write(tmp_path / "many", table_rows(40)).content == first.content
    other = table_rows(40)
    other[3] = other[3]._replace(report="Another.")
    assert write(tmp_path / "other", other).content != first.content


def test_shared_patients_equal_ids_and_empty_splits_are_refused(tmp_path):
    shared = [*table_rows(4, patient="p0"), *table_rows(4, "test", "p0")]
    with pytest.raises(DataError, match="Patient 'p0' is in split 'train' and in split 'test'"):
        write(tmp_path / "a", shared)
    assert write(tmp_path / "b", shared, shared_patients=True).counts == {"train": 4, "test": 4}
    with pytest.raises(DataError, match="Two rows have the id"):
        write(tmp_path / "c", table_rows(3) + table_rows(1))
    gone = dict.fromkeys(range(3), "no good")
    with pytest.raises(DataError, match=r"Nothing is left in split 'train' \(3 rows excluded: a\\b/0.png: no good"):
        write(tmp_path / "d", table_rows(3), dropped=gone)
    kept = write(tmp_path / "e", table_rows(5), dropped=gone)
    assert kept.counts == {"train": 2}
    assert [item["reason"] for item in kept.exclusions] == ["no good"] * 3


def test_a_stop_between_shards_is_obeyed(tmp_path, monkeypatch):
    monkeypatch.setattr(array_records, "SHARD", 8 << 10)
    asked = []
    with pytest.raises(decode.Interrupted):
        write(tmp_path, table_rows(40), stop=lambda: len(asked) > 1 or asked.append(0))
    assert len(list((tmp_path / "set").glob("*.array_record-*"))) == 2
    assert write(tmp_path, table_rows(40)).counts == {"train": 40}


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(20, 20), (31, 12), (40, 90)])
def test_a_picture_smaller_than_the_input_is_stored_as_it_is_and_read_to_the_same_bits(mode, shape):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    data, pixels = codecs.encode(picture, codecs.Storage(48, mode))
    np.testing.assert_array_equal(pixels, resize(picture, 48, mode))
    np.testing.assert_array_equal(codecs.decode(data, 48, mode), pixels)
    if shape[0] * shape[1] < 48 * 48:
        assert data == encode_png(np.asarray(picture)[:, :, None])
        assert len(data) < len(encode_png(pixels))


def test_codecs_lose_what_they_say(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8) + np.random.default_rng(0).integers(
        0, 9, (64, 64), dtype=np.uint8
    )
    picture = Image.fromarray(smooth)
    sizes = {}
    for codec, quality, most in (
        ("png", 90, 0),
        ("webp", 100, 0),
        ("jpeg", 90, 12),
        ("jpeg", 30, 40),
        ("webp", 90, 12),
    ):
        storage = codecs.Storage(64, "crop", codec, quality)
        data, pixels = codecs.encode(picture, storage)
        np.testing.assert_array_equal(codecs.decode(data, 64, "crop"), pixels)
        assert np.abs(pixels[:, :, 0].astype(int) - smooth).max() <= most
        assert storage.is_lossless == (most == 0)
        sizes[codec, quality] = len(data)
    assert sizes["jpeg", 30] < sizes["jpeg", 90] < sizes["png", 90]


def test_a_set_in_jpeg_says_so_and_is_another_set(tmp_path):
    root = write_folder(tmp_path / "in", rows())
    said = []
    png = prepare_set(folder_settings(root), tmp_path / "out", 1, say=said.append)
    jpeg = prepare_set(folder_settings(root, codec="jpeg", quality=80), tmp_path / "out", 1)
    assert png.fingerprint != jpeg.fingerprint
    assert "stored as jpeg of quality 80" in jpeg.card["images"]
    assert "stored" not in png.card["images"]
    first, other = png.splits["train"][0], jpeg.splits["train"][0]
    assert first["id"] == other["id"]
    assert 0 < np.abs(first["image"].astype(int) - other["image"]).mean() < 20
    (line,) = (line for line in said if line.startswith("disk: about"))
    assert "this set takes png" in line
    assert all(f"kB as {name}" in line for name in ("png", "jpeg", "webp"))
    with pytest.raises(ConfigError, match="one of 'png', 'jpeg', 'webp'"):
        folder_settings(root, codec="jxl")


def test_small_sources_stay_small_and_are_read_at_the_size_of_the_model(tmp_path):
    root = write_folder(tmp_path / "in", rows())
    made = prepare_set(folder_settings(root, image_size=64), tmp_path / "out", 1)
    source = made.splits["train"]
    assert source.image_shape == (64, 64, 1)
    for record in source:
        np.testing.assert_array_equal(record["image"], read_image(root / "images" / record["id"], 64, "crop"))
    with Image.open(io.BytesIO(source._rows[0]["image"])) as stored:
        assert stored.size == (20, 20)


def test_a_disk_that_is_too_small_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "in", rows())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 0, 1_060_000))
    with pytest.raises(files.DiskFullError, match=r"MB needed, 1\.1 MB free"):
        prepare_set(folder_settings(root), tmp_path / "out", 1)
    assert not list(tmp_path.rglob("part-*"))


def test_a_long_sequence_lies_on_the_disk_and_reads_as_a_list(monkeypatch):
    monkeypatch.setattr(spilled, "KEEP", 7)
    items = [{"number": i, "text": "x" * (i % 50)} for i in range(1000)]
    found = Spilled(lambda item: item, lambda value: value, items)
    assert list(found) == items
    assert [found[i] for i in (0, 6, 7, 8, 999, -1)] == [items[i] for i in (0, 6, 7, 8, 999, -1)]
    assert found[5:12] == items[5:12]
    order = np.random.default_rng(0).permutation(1000)[:400]
    view = found.reordered(order)
    assert list(view) == [items[i] for i in order]
    assert view[3] == items[order[3]]
    assert list(view.reordered(np.array([2, 1]))) == [items[order[2]], items[order[1]]]
    for outside in (1000, -1001):
        with pytest.raises(IndexError):
            found[outside]
    with pytest.raises(ValueError, match="takes no more"):
        view.append(1)
    found.append("last")
    assert (len(found), found[1000]) == (1001, "last")


def test_rows_on_the_disk_give_the_same_set(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "in", rows())
    first = prepare_set(folder_settings(root), tmp_path / "a", 1)
    monkeypatch.setattr(spilled, "KEEP", 3)
    second = prepare_set(folder_settings(root), tmp_path / "b", 1)
    assert (first.fingerprint, first.content) == (second.fingerprint, second.content)
    assert first.understood == second.understood


COUNT = 100_000


@pytest.mark.slow
def test_a_set_of_more_than_two_gigabytes_in_flat_memory_and_after_a_kill(tmp_path):
    script = f"""
        import hashlib, os, signal, sys
        from pathlib import Path
        import numpy as np
        from experiments.benchmarks.peak import peak_mb
        from ranjax.data import array_records
        from ranjax.data.images import decode
        from ranjax.data.images.locations import FileRef
        from ranjax.data.row_filters import Row, spilled_rows

        folder, at = Path({str(tmp_path)!r}), int(sys.argv[1])
        def make(first, last):
            # Bytes that no picture is made of: only their number matters here.
            rng = np.random.default_rng(first)
            one = [rng.bytes(23_000) for _ in range(first, last)]
            return [decode.Outcome(b, image_hash=b[:32], digest=b[:16], stored=len(b)) for b in one]
        parts, labels = folder / "parts", np.zeros(3, np.float32)
        splits = ["train"] * ({COUNT} - 2000) + ["test"] * 2000
        said = "Clear lungs. " * 20
        rows = spilled_rows(Row(f"{{i}}.png", FileRef(""), f"Report {{i}}. {{said}}", 0, labels, f"p{{i}}", s, {{}})
                       for i, s in enumerate(splits))
        decode.make_parts({COUNT}, lambda a, b: lambda: make(a, b), parts, workers=1)
        found = decode.facts(parts, {COUNT})
        def progress(done, total):
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)
        made = array_records.write_records(folder / sys.argv[2], parts, rows, found, mark="m", class_count=3,
                                           description="noise", progress=progress)
        print(made.content, sum(made.counts.values()), int(peak_mb()))
    """

    def run(at, name):
        command = [sys.executable, "-c", textwrap.dedent(script), str(at), name]
        return subprocess.run(command, capture_output=True, text=True)

    def hashes(name):
        return {path.name: files.sha256(path) for path in (tmp_path / name).glob("*") if path.is_file()}

    killed = run(4, "set")
    assert killed.returncode < 0, killed.stderr
    before = hashes("set")
    assert sum("array_record-" in name for name in before) == 4
    gone_on = run(-1, "set")
    assert gone_on.returncode == 0, gone_on.stderr
    content, count, megabytes = gone_on.stdout.split()
    assert int(count) == COUNT
    assert int(megabytes) < 1100
    after = hashes("set")
    assert before.items() <= after.items()
    assert sum(path.stat().st_size for path in (tmp_path / "set").iterdir()) > 2 << 30
    # Without a kill: the same bytes.
    whole = run(-1, "whole")
    assert whole.stdout.split()[0] == content
    assert hashes("whole") == after
