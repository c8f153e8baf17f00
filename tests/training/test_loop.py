"""The loop: resume bit for bit, stop, NaN, in-flight limit; on a linear dual encoder over two devices."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from linear_encoder import LinearEncoder, batch_at, init_params

from ranjax.training import contrastive_step as pretrain
from ranjax.training import devices, loop, metrics_log, optimizer
from ranjax.training.checkpoints import Checkpoints
from ranjax.training.optimizer import TrainState
from ranjax.training.signals import StopFlag

STEPS = 20


class Run:
    """One compiled step on `count` devices, and trainings with it."""

    def __init__(self, count):
        self.adamw = optimizer.adamw(optimizer.AdamWSettings(learning_rate=1e-2, steps=STEPS, warmup_steps=2))
        self.mesh = devices.make_mesh(count)
        self.step = devices.data_parallel(pretrain.make_step(LinearEncoder(), self.adamw), self.mesh)

    def fresh(self):
        return devices.replicate(TrainState.create(init_params(), self.adamw), self.mesh)

    def train(self, state=None, steps=STEPS, batches=None, **kwargs):
        place = functools.partial(devices.shard_batch, mesh=self.mesh)
        state = self.fresh() if state is None else state
        return loop.train(self.step, state, batches or with_ids, steps, key=jax.random.key(7), place=place, **kwargs)


def with_ids(step):
    return batch_at(step) | {"id": [f"{step}-{row}" for row in range(16)]}


@pytest.fixture(scope="module")
def run():
    return Run(2)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """An uninterrupted run: its last state and its metrics."""
    folder = tmp_path_factory.mktemp("whole")
    with metrics_log.MetricsLog(folder, tensorboard=False) as log:
        state = run.train(log=log, log_every=3)
    return jax.device_get(state), (folder / metrics_log.FILE).read_bytes()


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_a_stopped_run_resumes_bit_for_bit(run, whole, tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 12

    with Checkpoints(tmp_path / "c") as store, metrics_log.MetricsLog(tmp_path, tensorboard=False) as log:
        with pytest.raises(loop.Interrupted, match="stopped at step 11, state saved") as caught:
            run.train(checkpoints=store, log=log, log_every=3, save_every=4, should_stop=stop, meta={"id": "x"})
        assert caught.value.step == 11
        assert store.steps() == [8, 11]
        assert store.meta(11) == {"id": "x"}
    with Checkpoints(tmp_path / "c") as store:
        state = store.restore(jax.eval_shape(run.fresh), mesh=run.mesh)
        assert int(state.step) == 11
        with metrics_log.MetricsLog(tmp_path, resume_step=11, tensorboard=False) as log:
            state = run.train(state, checkpoints=store, log=log, log_every=3)
        assert store.latest() == STEPS
    _assert_same(state, whole[0])
    assert (tmp_path / metrics_log.FILE).read_bytes() == whole[1]
    assert [json.loads(line)["step"] for line in whole[1].splitlines()] == [1, 3, 6, 9, 12, 15, 18, 20]


def test_a_run_that_dies_goes_on_from_its_last_checkpoint(run, whole, tmp_path):
    def dying(step):
        if step == 11:
            raise OSError("the disk is gone")
        return with_ids(step)

    with Checkpoints(tmp_path / "c") as store, pytest.raises(OSError, match="the disk is gone"):
        run.train(checkpoints=store, save_every=3, batches=dying)
    with Checkpoints(tmp_path / "c") as store:
        assert store.latest() == 9
        _assert_same(run.train(store.restore(run.fresh())), whole[0])


def test_a_checkpoint_goes_to_another_number_of_devices(run, whole, tmp_path):
    with Checkpoints(tmp_path) as store:
        run.train(steps=10, checkpoints=store)
        other = Run(8)
        state = store.restore(jax.eval_shape(other.fresh), mesh=other.mesh)
        assert len(state.params["image"].sharding.device_set) == 8
        state = other.train(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), jax.device_get(state), whole[0])


def test_nan_stops_with_step_tensor_and_ids(run, tmp_path):
    def poisoned(step):
        batch = with_ids(step)
        batch["image"][3, 0, 0, 0] = np.nan if step == 9 else 0.5
        return batch

    rows = []
    with Checkpoints(tmp_path) as store:
        with pytest.raises(loop.NonFiniteError, match=r"step 9: loss .*last good checkpoint is of step 8") as caught:
            run.train(batches=poisoned, checkpoints=store, save_every=4, log=lambda step, m: rows.append(step))
        assert store.steps() == [4, 8]
    assert caught.value.file == tmp_path / "nonfinite-step-9.json"
    saved = json.loads(caught.value.file.read_text())
    assert saved["batch"]["id"] == [f"9-{row}" for row in range(16)]
    assert saved["metrics"]["loss"] == "nan"
    assert rows == [1]
    assert "as entry 'image' of the batch in row 3 was before, is not finite" in str(caught.value)


def test_no_checkpoint_holds_a_non_finite_parameter(run, tmp_path):
    def step(state, batch, key):
        params = state.params | {"bias": state.params["bias"] * np.float32(np.inf)}
        return state.updated(params, state.opt_state), {}

    with Checkpoints(tmp_path) as store, pytest.raises(loop.NonFiniteError, match="the parameter bias") as caught:
        loop.train(step, run.fresh(), with_ids, 3, key=jax.random.key(0), checkpoints=store)
    assert not list(tmp_path.glob("[0-9]*"))
    assert json.loads(caught.value.file.read_text())["batch"]["id"] == [f"2-{row}" for row in range(16)]


def test_few_steps_are_in_flight_and_batches_are_made_ahead_in_bounds(run):
    made, seen = [], []

    def batches(step):
        made.append(step)
        return with_ids(step)

    def progress(done, metrics):
        seen.append(done)
        assert len(made) <= done + 16 + 3

    run.train(batches=batches, progress=progress, log_every=1000)
    assert made == list(range(STEPS))
    assert max(np.diff([0, *seen])) <= loop.MAX_IN_FLIGHT
    assert seen[-1] == STEPS


def test_a_finished_run_does_nothing(run, whole):
    done = devices.replicate(jax.tree.map(np.asarray, whole[0]), run.mesh)
    assert run.train(done, batches=lambda step: pytest.fail("no batch is needed")) is done


def test_each_step_has_its_own_key(run):
    keys = []

    def step(state, batch, key):
        keys.append(int(jax.random.bits(key)))
        return state.updated(state.params, state.opt_state), {"loss": np.float32(0)}

    loop.train(step, run.fresh(), batch_at, 4, key=jax.random.key(1))
    assert keys == [int(jax.random.bits(jax.random.fold_in(jax.random.key(1), k))) for k in range(4)]


def test_stop_flag_takes_the_first_signal_and_raises_on_the_second():
    before = signal.getsignal(signal.SIGINT)
    with StopFlag() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_wrong_settings_are_refused(run):
    with pytest.raises(ValueError, match="log_every = 0"):
        run.train(log_every=0)


LONG = """
import functools, jax
from linear_encoder import LinearEncoder, batch_at, init_params
from ranjax.training import contrastive_step, devices, loop, optimizer
from ranjax.training.optimizer import TrainState
adamw = optimizer.adamw(optimizer.AdamWSettings(learning_rate=1e-3, steps=200))
mesh = devices.make_mesh()
assert mesh.size == 8
step = devices.data_parallel(contrastive_step.make_step(LinearEncoder(), adamw), mesh)
state = devices.replicate(TrainState.create(init_params(), adamw), mesh)
place = functools.partial(devices.shard_batch, mesh=mesh)
state = loop.train(step, state, batch_at, 200, key=jax.random.key(0), place=place, log_every=1000)
print("done", int(state.step))
"""


@pytest.mark.slow
def test_two_hundred_steps_on_eight_devices_do_not_hang():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-c", LONG], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.stdout.strip() == "done 200", result.stderr[-2000:]
