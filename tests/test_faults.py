"""Faults of the machine, each tried for real: full and read-only disks, damaged files, no memory, a dying worker."""

import contextlib
import errno
import functools
import multiprocessing
import os
import resource
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ranjax.core import files, lock
from ranjax.core.errors import ConfigError, DataError, RunError
from ranjax.data.images import decode
from ranjax.data.images.codecs import Storage
from ranjax.data.images.locations import FileRef
from ranjax.data.store import NoisyStore, StoreWriter, faults, set_aside
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run import plan as planning
from ranjax.run.stages import memory
from ranjax.training.checkpoints import Checkpoints

SIZE = 48


@contextlib.contextmanager
def largest_file(size):
    """The kernel refuses files above `size` bytes, as a quota or a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system of its own, and one that mounts it anew; root alone may do that."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options, again=False):
        line = ["mount", "-t", "tmpfs", "-o", ("remount," if again else "") + options, "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(line, capture_output=True, check=False).returncode:
            pytest.skip("needs root's right to mount, which this machine does not give")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


def noisy_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        clean = rng.integers(0, 256, (SIZE, SIZE, 1), dtype=np.uint8)
        moved = np.clip(clean / np.float32(255) + rng.uniform(-0.03, 0.03, clean.shape), 0, 1).astype(np.float32)
        yield {
            "id": f"a{number}",
            "image": moved,
            "clean_image": clean,
            "report": "clear lungs",
            "tokens": np.arange(4, dtype=np.int32),
            "mask": np.ones(4, bool),
            "provenance": {},
        }


def writer_of(folder, count=6):
    return StoreWriter(folder, [f"a{n}" for n in range(count)], shard_size=3, epsilon=0.031, provenance={})


def fill(writer, made):
    for number in writer.missing():
        writer.write(number, [made[i] for i in writer.positions(number)])


def test_a_full_disk_while_crafting_is_named_and_the_finished_shard_kept(tmp_path):
    made, writer = list(noisy_pairs(6)), writer_of(tmp_path)
    writer.write(0, made[:3])
    with largest_file(10_000), pytest.raises(files.DiskFullError, match=r"no space left to write .*shard-00001"):
        writer.write(1, made[3:])
    assert writer.missing() == [1]
    assert not list(tmp_path.glob(".*"))
    fill(writer, made)
    assert not faults(tmp_path)


def test_a_file_system_without_room_is_asked_before_a_shard_is_written(mounted):
    place = mounted("size=256k")
    writer = writer_of(place)
    with pytest.raises(files.DiskFullError, match=r"no space left below .* MB needed, .* MB free"):
        writer.write(0, list(noisy_pairs(3)))
    assert writer.missing() == [0, 1]
    mounted("size=8m", again=True)
    fill(writer, list(noisy_pairs(6)))
    assert not faults(place)


def test_a_full_disk_while_saving_costs_no_older_checkpoint(mounted):
    place = mounted("size=1500k")
    state = {"w": jnp.asarray(np.random.default_rng(0).random(150_000), jnp.float32)}
    with Checkpoints(place / "checkpoints") as store:
        store.save(1, state)
        store.wait()
        with pytest.raises(files.DiskFullError, match=r"no space left to write .*; free some and run again"):
            _save_until_full(store, state)
    with Checkpoints(place / "checkpoints") as store:
        assert store.latest() is not None
        mounted("size=16m", again=True)
        restored = store.restore({"w": jax.ShapeDtypeStruct((150_000,), jnp.float32)})
        np.testing.assert_array_equal(restored["w"], state["w"])
        store.save(9, state)
        assert store.latest() == 9


def _save_until_full(store, state):
    for step in (2, 3, 4):
        store.save(step, state)
        store.wait()


def test_a_full_disk_leaves_no_half_of_a_file_of_tensors(tmp_path):
    files.write_tensors(tmp_path / "a.safetensors", {"x": np.zeros(10, np.float32)})
    before = (tmp_path / "a.safetensors").read_bytes()
    with largest_file(4096), pytest.raises(files.DiskFullError, match=r"a\.safetensors .*MB needed"):
        files.write_tensors(tmp_path / "a.safetensors", {"x": np.zeros(10_000, np.float32)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_a_read_only_workdir_is_refused_and_one_that_becomes_so_is_named(mounted):
    place = mounted("size=1m")
    with lock.locked(place / "run"):
        files.write_json(place / "run" / "x.json", {})
    mounted("size=1m,ro", again=True)
    with pytest.raises(OSError, match="Read-only") as caught:
        files.write_json(place / "run" / "x.json", {"new": True})
    assert caught.value.errno == errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        files.write_tensors(place / "run" / "x.safetensors", {"x": np.zeros(3, np.float32)})
    assert files.read_json(place / "run" / "x.json") == {}
    with pytest.raises(ConfigError, match=r"folder that can be written \(Read-only"), lock.locked(place / "run"):
        pass


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_shard_is_found_by_its_hash_named_and_made_again_to_the_same_bytes(tmp_path, damage):
    made = list(noisy_pairs(6))
    fill(writer_of(tmp_path), made)
    shard = tmp_path / "shard-00001.array_record"
    sound = bytearray(shard.read_bytes())
    broken = sound[: len(sound) // 2] if damage == "truncated" else sound[:]
    broken[len(broken) // 2] ^= damage == "flipped"
    shard.write_bytes(broken)
    (found,) = NoisyStore.open(tmp_path).damaged()
    assert found.shard == 1
    assert "shard-00001.array_record does not match its SHA-256" in found.what
    assert [fault.shard for fault in writer_of(tmp_path).damaged()] == [1]
    set_aside(tmp_path, 1)
    writer = writer_of(tmp_path)
    assert writer.missing() == [1]
    fill(writer, made)
    assert shard.read_bytes() == sound
    assert not NoisyStore.open(tmp_path).damaged()


def test_what_does_not_fit_into_memory_is_said_with_sizes_and_three_keys(tmp_path, monkeypatch):
    """A stage that asks XLA for 16 TiB, which no machine gives."""

    def run(context):
        jax.jit(lambda: jnp.ones((1 << 20, 1 << 22), jnp.float32) * 2)().block_until_ready()

    config = configs.default_config()
    stage = planning.StageRun("pretrain", "clean", 0.0, (), ("seed",), run)
    monkeypatch.setattr(pipeline, "plan", lambda config: (stage,))
    with pytest.raises(RunError) as caught:
        pipeline.execute(config, tmp_path, mesh=None, stop=lambda: False, say=lambda line: None)
    text = str(caught.value)
    assert "out of memory in pretrain/clean with pretrain.batch_size = 64, images of 64 x 64, reports of" in text
    assert "Out of memory allocating 17592186044416 bytes" in text
    keys = "model.remat (True), model.scan (True with model.remat), pretrain.accumulate (above 1), pretrain.loss_chunk"
    more = "(above 0), model_axis (above 1), model.compute_dtype (bfloat16), pretrain.batch_size (below 64)"
    assert text.endswith(f"What lowers it: {keys} {more}.")
    assert files.read_json(tmp_path / "status.json")["state"] == "failed"
    assert not (tmp_path / "pretrain" / "clean" / "manifest.json").exists()


def test_memory_advice_names_three_keys_that_there_are_for_every_stage():
    config = configs.default_config()
    with pytest.raises(MemoryError) as caught:
        np.ones((1 << 24, 1 << 24))
    for stage in ("prepare", "pretrain", "craft", "adapt", "evaluate", "report"):
        text = memory.explain(caught.value, stage, stage, config)
        assert sum(name in text.split("lowers it: ")[1] for name in configs.BY_NAME) >= 3
    assert memory.is_exhausted(caught.value)
    assert memory.is_exhausted(RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"))
    assert not memory.is_exhausted(RuntimeError("INTERNAL: something else"))


def test_a_worker_that_dies_is_said_and_costs_no_decoded_part(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "PART", 2)
    references = []
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        references.append(FileRef(str(tmp_path / f"{number}.png")))
        Image.fromarray(pixels).save(references[-1].path)

    def kill(done, total):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    def job(first, last):
        return functools.partial(decode.decode_rows, references[first:last], Storage(16, "pad"))

    with pytest.raises(RunError, match="a process that decodes images died"):
        decode.make_parts(40, job, tmp_path / "parts", 2, kill)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "parts").glob("part-*")}
    assert 1 <= len(kept) < 20
    decode.make_parts(40, job, tmp_path / "parts", 1)
    assert len(list(decode.outcomes(tmp_path / "parts", 40))) == 40
    assert all((tmp_path / "parts" / name).read_bytes() == content for name, content in kept.items())


def test_left_over_temporary_files_of_a_killed_process_go(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".results.json.123.tmp").write_text("half")
    (tmp_path / "a" / "kept.json").write_text("{}")
    assert files.remove_leftovers(tmp_path) == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept.json"]
    with pytest.raises(DataError):
        NoisyStore.open(tmp_path)
