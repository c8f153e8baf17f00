"""Profiler traces on request: what may be asked for, and what is there afterwards."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.training import profiling


@pytest.mark.parametrize(
    ("text", "run_id", "steps"),
    [
        ("pretrain", "pretrain/clean", None),
        ("pretrain/clean:100-104", "pretrain/clean", (100, 104)),
        ("pretrain/coattack_2.5:1-1", "pretrain/coattack_2.5", (1, 1)),
        ("evaluate", "evaluate/coattack_30", None),
    ],
)
def test_what_is_asked_for_is_read(text, run_id, steps):
    request = profiling.parse(text)
    assert request.steps == steps
    assert profiling.matches(request, run_id)
    assert not profiling.matches(request, "adapt/clean")


@pytest.mark.parametrize("text", ["pretrian", "pretrain:0-4", "pretrain:5-4", "evaluate:1-2", "pretrain/clean:", "1-2"])
def test_what_cannot_be_traced_is_refused_by_its_key(text):
    config = configs.default_config()
    with pytest.raises(ConfigError, match=r"^profile = .*: expected .*FIRST-LAST|^profile = .* steps of pretrain"):
        configs.override(config, "profile", text)


def test_steps_behind_the_start_or_beyond_the_end_are_refused(tmp_path):
    for start, text in ((6, "pretrain:4-6"), (0, "pretrain:4-20")):
        with pytest.raises(ConfigError, match="where this run goes on"):  # noqa: SIM117
            with profiling.of_steps(text, "pretrain/clean", tmp_path, start, 10):
                pass
    assert not list(tmp_path.iterdir())


def test_a_trace_of_steps_can_be_opened_by_tensorboard_and_perfetto(tmp_path):
    step = jax.jit(lambda x: x @ x / 100)
    state = jnp.eye(64)
    with profiling.of_steps("pretrain:4-5", "pretrain/clean", tmp_path, 0, 8) as before:
        for done in range(8):
            before(done, state)
            # Another run's steps are not traced, and the traced ones are just those asked for.
            assert bool(list(tmp_path.rglob("*.pb"))) == (done > 5 - 1)
            state = step(state)
    (folder,) = (tmp_path / "profile" / "plugins" / "profile").iterdir()
    assert [path.stat().st_size > 0 for path in folder.glob("*.xplane.pb")] == [True]
    assert json.loads(gzip.decompress((folder / "perfetto_trace.json.gz").read_bytes()))["traceEvents"]


def test_nothing_is_traced_where_nothing_was_asked_for(tmp_path):
    with profiling.of_steps("", "pretrain/clean", tmp_path, 0, 8) as before:
        before(0, None)
    with (
        profiling.of_stage("evaluate/clean", "adapt/clean", tmp_path),
        profiling.of_stage("", "evaluate/clean", tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_stage_run_is_traced_whole_and_the_trace_ends_with_an_error(tmp_path):
    def stage():
        with profiling.of_stage("evaluate", "evaluate/clean", tmp_path):
            jax.block_until_ready(jnp.ones(3) * 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage()
    assert list(tmp_path.rglob("*.xplane.pb"))
    with pytest.raises(RuntimeError, match="No profile started"):
        jax.profiler.stop_trace()
