"""Checkpoints: what is kept, passed over, refused."""

import logging
import threading
import time
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import DataError, StuckError
from ranjax.core.files import DiskFullError
from ranjax.training import checkpoints, devices
from ranjax.training.checkpoints import Checkpoints


def _state(value=0.0):
    return {
        "step": jnp.asarray(3, jnp.int32),
        "params": {"w": jnp.arange(600.0).reshape(20, 30) + value, "b": jnp.zeros(5)},
        "key": jax.random.key(5),
    }


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, *({**x, "key": jax.random.key_data(x["key"])} for x in (a, b)))


@pytest.fixture
def three(tmp_path):
    """Saves of steps 1, 2, 3 with two kept."""
    with Checkpoints(tmp_path / "c", keep=2) as store:
        for step in (1, 2, 3):
            store.save(step, _state(step), {"n": step})
        assert store.steps() == [2, 3]
    return tmp_path / "c"


def test_round_trip_keeps_the_newest_with_their_meta(three):
    with Checkpoints(three) as store:
        assert store.latest() == 3
        assert store.meta(2) == {"n": 2}
        _assert_same(store.restore(_state()), _state(3))
        _assert_same(store.restore(_state(), step=2), _state(2))
        with pytest.raises(DataError, match="no finished checkpoint of step 1"):
            store.restore(_state(), step=1)


def test_a_damaged_list_of_an_older_checkpoint_does_not_matter(three):
    (three / "2.json").write_text("{")
    with Checkpoints(three) as store:
        _assert_same(store.restore(_state()), _state(3))


def test_an_empty_folder_has_nothing(tmp_path):
    with Checkpoints(tmp_path / "none") as store:
        assert store.latest() is None
        assert store.restore(_state()) is None
    assert not (tmp_path / "none").exists()


def test_a_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints("here") as store:
        store.save(1, _state())
    assert (tmp_path / "here" / "1.json").is_file()


def _cut(folder):
    (folder / "3.json").unlink()


def _truncate(folder):
    biggest = max((p for p in (folder / "3").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[: biggest.stat().st_size // 2])


def _flip(folder):
    biggest = max((p for p in (folder / "3").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(biggest.read_bytes())
    data[len(data) // 2] ^= 255
    biggest.write_bytes(bytes(data))


def _lose(folder):
    next((folder / "3").rglob("_METADATA")).unlink()


def _garble_list(folder):
    (folder / "3.json").write_text('{"step": 3, "fil')


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_cut, "cut off"),
        (_truncate, "is damaged"),
        (_flip, "is damaged"),
        (_lose, "is missing"),
        (_garble_list, "not valid JSON"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_and_said(three, damage, word, caplog):
    damage(three)
    (three / "4.orbax-checkpoint-tmp").mkdir()
    with caplog.at_level(logging.WARNING, "ranjax"), Checkpoints(three) as store:
        _assert_same(store.restore(_state()), _state(2))
        assert word in caplog.text
        assert "3 is passed over" in caplog.text
        assert (three / "3.damaged").is_dir()
        store.save(3, _state(33))
        assert store.steps() == [2, 3]
        _assert_same(store.restore(_state()), _state(33))
    assert not (three / "4.orbax-checkpoint-tmp").exists()


def test_nothing_whole_is_none(three):
    for path in three.glob("*.json"):
        path.unlink()
    with Checkpoints(three) as store:
        assert store.restore(_state()) is None


def test_other_arrays_are_refused_by_name(three):
    other = _state()
    other["params"]["w"] = jnp.zeros((20, 31))
    with Checkpoints(three) as store:
        with pytest.raises(DataError, match=r"float32\[20, 30\] for params/w, expected float32\[20, 31\]"):
            store.restore(other)
        other["params"]["w"] = jnp.zeros((20, 30), jnp.bfloat16)
        with pytest.raises(DataError, match="bfloat16"):
            store.restore(other)
        del other["params"]["w"]
        with pytest.raises(DataError, match="expected nothing"):
            store.restore(other)


def test_saving_backwards_is_refused_and_twice_is_nothing(three):
    with Checkpoints(three) as store:
        store.save(3, _state(99))
        _assert_same(store.restore(_state()), _state(3))
        with pytest.raises(ValueError, match=r"step 2 cannot be saved: .* already holds step 3"):
            store.save(2, _state())


def test_restoring_replicates_over_another_mesh(three):
    mesh = devices.make_mesh(4)
    with Checkpoints(three) as store:
        state = store.restore(jax.eval_shape(_state), mesh=mesh)
    assert len(state["params"]["w"].sharding.device_set) == 4
    _assert_same(state, _state(3))


def test_a_donated_state_is_saved_whole(tmp_path):
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
    with Checkpoints(tmp_path) as store:
        state = {"w": jnp.arange(100_000.0)}
        store.save(1, state)
        advance(state)
        restored = store.restore({"w": jax.ShapeDtypeStruct((100_000,), jnp.float32)})
    np.testing.assert_array_equal(restored["w"], np.arange(100_000.0, dtype=np.float32))


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep = 0"):
        Checkpoints(tmp_path, keep=0)


def test_a_full_disk_is_said_and_costs_no_older_checkpoint(three, monkeypatch):
    import orbax.checkpoint as ocp

    def full(self):
        # The storage layer's words.
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28']")

    store = Checkpoints(three)
    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "wait_until_finished", full)
        with pytest.raises(DiskFullError, match=r"no space left to write .*/4; free some"):
            store.save(4, _state(4))
        with pytest.raises(DiskFullError):
            store.close()
    with Checkpoints(three) as store:
        assert store.latest() == 3


@pytest.mark.slow
def test_a_save_that_a_clock_set_back_holds_up_is_given_up_in_words(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path / "c")
    store.save(1, _state())
    store.wait()
    store._finishing = Future()
    monkeypatch.setattr(checkpoints, "PATIENCE", 1.5)
    # A slow disk alone is waited for.
    monkeypatch.setattr(time, "time", time.monotonic)
    with pytest.raises(TimeoutError):
        _give_up_after(store, 2.5)
    store._finishing = Future()
    monkeypatch.setattr(time, "time", lambda: -time.monotonic())
    with pytest.raises(StuckError, match=r"clock went back by \d+ s meanwhile"):
        store.wait()
    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 1


def _give_up_after(store, seconds):
    """`wait`, whose background work fails by itself after that time."""
    timer = threading.Timer(seconds, store._finishing.set_exception, [TimeoutError("of the work itself")])
    timer.start()
    try:
        store.wait()
    finally:
        timer.join()
