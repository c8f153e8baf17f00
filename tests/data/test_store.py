"""The noisy store: what comes back is what went in, whole shards or none, and damage does not pass."""

import json
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import source

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_float
from ranjax.data.batches import Batches
from ranjax.data.noisy_pairs import mix, select
from ranjax.data.store import NoisyStore, StoreWriter, faults, quantise, realised_norm
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run.stages import craft

EPSILON = 8 / 255
SHARED = {"attack": "pgd", "settings": {"steps": 10}, "surrogate": "abc"}


@pytest.fixture(scope="module")
def pairs():
    return source(20)


@pytest.fixture(scope="module")
def tokenizer(pairs):
    return Tokenizer.build([*pairs.column("report"), "attacked word"])


def noisy_pair(pairs, tokenizer, index, epsilon=EPSILON):
    record = pairs[index]
    rng = np.random.default_rng(index)
    clean = to_float(record["image"])
    image = np.clip(clean + rng.uniform(-epsilon, epsilon, clean.shape).astype(np.float32), 0, 1)
    report = record["report"].replace("seen", "attacked").lower()
    tokens = tokenizer.encode([report], 16)
    return {
        "id": record["id"],
        "image": image,
        "clean_image": record["image"],
        "report": report,
        "tokens": tokens.ids[0],
        "mask": tokens.mask[0],
        "provenance": {"loss_before": 0.5, "loss_after": 1.5, "success": True},
    }


def writer_of(folder, pairs, count=10, **changes):
    arguments = {"shard_size": 4, "epsilon": EPSILON, "provenance": SHARED} | changes
    return StoreWriter(folder, ids=pairs.ids[:count], **arguments)


def fill(writer, pairs, tokenizer, numbers=None):
    for number in writer.missing() if numbers is None else numbers:
        writer.write(number, [noisy_pair(pairs, tokenizer, i) for i in writer.positions(number)])


@pytest.fixture
def folder(tmp_path, pairs, tokenizer):
    fill(writer_of(tmp_path / "store", pairs), pairs, tokenizer)
    return tmp_path / "store"


def test_noisy_pairs_come_back_by_id(folder, pairs, tokenizer):
    store = NoisyStore.open(folder)
    assert len(store) == 10
    assert list(store) == pairs.ids[:10]
    assert "case-10" not in store
    for index in (9, 0, 4):
        given, found = noisy_pair(pairs, tokenizer, index), store[f"case-{index}"]
        assert np.abs(found["image"].astype(float) - given["image"]).max() < 1 / 65535
        assert found["image"].dtype == np.float32
        for name in ("clean_image", "tokens", "mask"):
            np.testing.assert_array_equal(found[name], given[name])
            assert found[name].dtype == given[name].dtype
        assert found["report"] == given["report"]
        provenance = store.provenance(f"case-{index}")
        assert provenance == found["provenance"]
        assert provenance.items() >= {**SHARED, "loss_after": 1.5, "success": True}.items()
        assert 0 < provenance["norm"] <= EPSILON
    with pytest.raises(KeyError, match="nobody"):
        store["nobody"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1 / 255, 8 / 255, 0.01, 0.5, 1.0]))
def test_storing_keeps_ball_and_box(seed, epsilon):
    rng = np.random.default_rng(seed)
    clean = rng.choice(np.array([0, 1, 100, 254, 255], np.uint8), (6, 6, 1))
    start = to_float(clean)
    image = np.clip(start + rng.choice([-1, 0.3, 1], start.shape).astype(np.float32) * np.float32(epsilon), 0, 1)
    delta = quantise(image, clean)
    stored = 257 * clean.astype(int) + delta
    assert stored.min() >= 0
    assert stored.max() <= 65535
    assert np.abs(stored / 65535 - image).max() < 1 / 65535
    # Radii that lie on the grid hold exactly.
    assert np.abs(delta).max() <= (round(epsilon * 65535) if epsilon != 0.01 else 655)
    l2 = quantise(image, clean, "l2")
    true = np.sqrt(((image.astype(np.float64) - clean / 255.0) ** 2).sum())
    assert realised_norm(l2, "l2") <= true + 1e-12


def test_a_full_sign_step_comes_back_as_exactly_the_radius(pairs):
    clean = pairs[0]["image"]
    image = np.clip(to_float(clean) + np.float32(EPSILON), 0, 1)
    expected = np.minimum(257 * 8, 65535 - 257 * clean.astype(int))
    np.testing.assert_array_equal(quantise(image, clean), expected)


def test_finished_shards_are_kept_and_only_missing_ones_written(tmp_path, pairs, tokenizer):
    writer = writer_of(tmp_path, pairs)
    fill(writer, pairs, tokenizer, [0])
    assert writer.done == 4
    with pytest.raises(DataError, match="2 of 3 shards are missing"):
        NoisyStore.open(tmp_path)
    # As after a kill: a file that never got its name, and a shard that never got its hash.
    (tmp_path / ".shard-00001.array_record.99.tmp").write_bytes(b"half")
    (tmp_path / "shard-00002.array_record").write_bytes(b"half")
    before = (tmp_path / "shard-00000.array_record").stat().st_mtime_ns
    again = writer_of(tmp_path, pairs)
    assert again.missing() == [1, 2]
    fill(again, pairs, tokenizer)
    assert (tmp_path / "shard-00000.array_record").stat().st_mtime_ns == before
    assert again.missing() == []
    assert again.done == 10
    assert faults(tmp_path) == []
    assert len(NoisyStore.open(tmp_path)) == 10


def test_an_interrupted_store_equals_an_uninterrupted_one(folder, tmp_path, pairs, tokenizer):
    fill(writer_of(tmp_path / "again", pairs), pairs, tokenizer, [2])
    fill(writer_of(tmp_path / "again", pairs), pairs, tokenizer)
    assert NoisyStore.open(tmp_path / "again").fingerprint == NoisyStore.open(folder).fingerprint


def test_processes_share_the_shards(tmp_path, pairs):
    writer = writer_of(tmp_path, pairs)
    assert [writer.missing(i, 2) for i in range(2)] == [[0, 2], [1]]


def test_another_plan_in_the_same_folder_is_refused(folder, pairs):
    with pytest.raises(ConfigError, match=r"another plan \(epsilon 0\.0313.* then, 0\.1 now\)"):
        writer_of(folder, pairs, epsilon=0.1)
    with pytest.raises(ConfigError, match=r"\(ids differ; attack 'pgd' then, 'other' now; "):
        writer_of(folder, pairs, count=9, provenance={"attack": "other"})


def test_norms_come_near_the_radius_and_never_beyond(folder):
    store = NoisyStore.open(folder)
    assert faults(folder) == []
    assert (len(store), len(store.by_shard())) == (10, 3)
    assert 0.9 * EPSILON < max(store.norm_of(store[identity]) for identity in store) <= EPSILON


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_found(folder, place):
    shard = folder / "shard-00001.array_record"
    content = bytearray(shard.read_bytes())
    content[int(place * len(content))] ^= 1
    shard.write_bytes(content)
    (fault,) = faults(folder)
    assert fault.shard == 1
    assert "shard-00001.array_record does not match its SHA-256" in fault.what


def test_a_radius_that_was_lowered_afterwards_is_found(folder):
    plan = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(plan | {"epsilon": EPSILON / 2}))
    found = faults(folder)
    assert found
    assert all("beyond its radius" in fault.what for fault in found)


def test_noisy_pairs_that_may_not_be_stored_are_refused(tmp_path, pairs, tokenizer):
    writer = writer_of(tmp_path, pairs, count=1)
    good = noisy_pair(pairs, tokenizer, 0)
    outside = noisy_pair(pairs, tokenizer, 0, epsilon=0.2)
    for bad, reason in [
        (outside, "beyond its radius"),
        (good | {"image": good["image"] * 255}, "expected 0 to 1"),
        (good | {"image": good["image"] * np.nan}, "expected 0 to 1"),
        (good | {"image": good["image"][:8]}, "of one shape"),
        (good | {"id": "case-5"}, "must hold 1 noisy pairs"),
    ]:
        with pytest.raises(DataError, match=reason):
            writer.write(0, [bad])
    assert writer.missing() == [0]
    assert not list(tmp_path.glob("*array_record*"))


@pytest.mark.parametrize("parts", ["both", "image", "report"])
def test_mixing_replaces_exactly_the_selected_pairs(tmp_path, pairs, tokenizer, parts):
    writer = StoreWriter(tmp_path, pairs.ids, 8, EPSILON, SHARED)
    fill(writer, pairs, tokenizer)
    store = NoisyStore.open(tmp_path)
    mixed = mix(pairs, store, 0.3, 0, parts)
    chosen = select(pairs.ids, 0.3, 0)
    assert chosen.sum() == 6
    for i, on in enumerate(chosen):
        old, new = pairs[i], mixed[i]
        assert new["id"] == old["id"]
        assert (to_float(new["image"]) != to_float(old["image"])).any() == (on and parts != "report")
        assert (new["report"] != old["report"]) == (on and parts != "image")
        assert np.abs(to_float(new["image"]) - to_float(old["image"])).max() <= EPSILON + 1e-6
    batch = Batches(mixed, 20, 0, tokenizer, 16)[0]
    for row, index in enumerate(batch["index"]):
        report = store[pairs.ids[index]]["report"] if chosen[index] and parts != "image" else pairs[index]["report"]
        np.testing.assert_array_equal(batch["tokens"][row], tokenizer.encode([report], 16).ids[0])


def test_ratio_zero_leaves_the_pairs_bit_equal(folder, pairs, tokenizer):
    clean = Batches(pairs, 8, 0, tokenizer, 16)[1]
    mixed = Batches(mix(pairs, NoisyStore.open(folder), 0.0, 0), 8, 0, tokenizer, 16)[1]
    for name, value in clean.items():
        np.testing.assert_array_equal(mixed[name], value)


def test_missing_or_foreign_noisy_pairs_are_refused(folder, pairs, tokenizer):
    store = NoisyStore.open(folder)
    with pytest.raises(DataError, match=r"lacks 10 of the 20 noisy pairs of ratio 1\.0"):
        mix(pairs, store, 1.0, 0)
    with pytest.raises(ConfigError, match=r"noise\.parts"):
        mix(pairs, store, 0.0, 0, "text")
    other = mix(source(10, seed=5), store, 1.0, 0)
    with pytest.raises(DataError, match="crafted from another image"):
        other[0]
    with pytest.raises(DataError, match="holds no noisy store"):
        NoisyStore.open(folder / "nowhere")


def test_what_the_rest_costs_is_said_after_the_first_shards_and_must_fit(tmp_path, pairs, tokenizer, monkeypatch):
    def make():
        return lambda positions: iter([noisy_pair(pairs, tokenizer, i) for i in positions])

    def craft_into(name, said):
        return craft.fill(writer_of(tmp_path / name, pairs), "craft", make, lambda where: None, said.append)

    said = []
    store = craft_into("a", said)
    assert [line.partition("pairs/s")[2].split(" take")[0] for line in said] == [
        ", compilation included: 6 pairs left",
        ": 2 pairs left",
    ]
    size = (store.folder / "shard-00000.array_record").stat().st_size
    assert said[0].endswith(f"{size / 4 * 6 / 1e6:.1f} MB")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, (1 << 20) + int(1.2 * size)))
    with pytest.raises(files.DiskFullError, match="no space left below"):
        craft_into("b", [])
    monkeypatch.undo()
    # What is done stays.
    assert len(writer_of(tmp_path / "b", pairs).missing()) == 2
    assert len(craft_into("b", [])) == 10
