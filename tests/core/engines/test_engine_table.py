"""The table of engines, its settings from the command line, and the loop that works through tasks."""

import threading
from collections import deque

import pytest

from ranjax.core.engines import engine_table, task_pool
from ranjax.core.engines.engine_table import ENGINES, settings_of
from ranjax.core.errors import ConfigError


def test_settings_come_from_texts_and_keep_their_types():
    found = settings_of(ENGINES["slurm"], ["gpus=4", "partition=a=b", "options=account=x", "options=qos=y"])
    assert (found.gpus, found.partition, found.options) == (4, "a=b", ("account=x", "qos=y"))
    assert settings_of(ENGINES["ray"], ["cpus=0.5"]).cpus == 0.5


@pytest.mark.parametrize(
    ("engine", "text", "said"),
    [
        ("ray", "cpu=2", r"--with = 'cpu=2': expected NAME=VALUE .* \(did you mean 'cpus'\?\)"),
        ("ray", "cpus", "expected NAME=VALUE"),
        ("ray", "gpus=one", "--with gpus = 'one': expected a value of type float"),
        ("slurm", "nodes=0", "at least 1"),
        ("slurm", "options=account", "name=value"),
        ("local", "gpus=1", "a setting of local"),
    ],
)
def test_a_setting_that_an_engine_does_not_know_is_refused(engine, text, said):
    with pytest.raises(ConfigError, match=said):
        settings_of(ENGINES[engine], [text])


def test_an_engine_that_is_unknown_or_not_installed_is_one_line(monkeypatch, tmp_path):
    with (
        pytest.raises(ConfigError, match=r"--on = 'rey': expected an engine .*\(did you mean 'ray'\?\)"),
        engine_table.opened("rey", [], tmp_path),
    ):
        pass
    monkeypatch.setattr(engine_table.importlib.util, "find_spec", lambda name: None)
    said = r"--on = 'ray': expected .*package ray is installed\. Install it with: pip install 'ranjax\[ray\]'"
    with pytest.raises(ConfigError, match=said), engine_table.opened("ray", [], tmp_path):
        pass


def test_tasks_that_are_given_back_are_carried_out_again():
    keys, ended = deque([1, 2, 3]), []
    with task_pool.in_threads(2) as pool:
        for key, future in task_pool.work_through(pool, keys, lambda key: (str(key), lambda: 10 * key)):
            ended.append((key, future.result()))
            if len(ended) == 3:
                keys.append(4)
    assert sorted(ended) == [(1, 10), (2, 20), (3, 30), (4, 40)]


class Waits:
    """A task that runs until it is asked to stop."""

    def __init__(self):
        self.began, self.asked = threading.Event(), threading.Event()

    def __call__(self):
        self.began.set()
        return self.asked.wait(20)

    def stop(self):
        self.asked.set()


def test_a_stop_asks_what_runs_and_starts_nothing_more():
    tasks = [Waits(), Waits()]
    keys = deque([0, 1])
    with task_pool.in_threads(1) as pool:
        ended = task_pool.work_through(pool, keys, lambda key: (str(key), tasks[key]), tasks[0].began.is_set)
        assert [(key, future.result()) for key, future in ended] == [(0, True)]
    assert list(keys) == [1]
    assert not tasks[1].began.is_set()
