"""Shards handed out to an engine: what is missing is made once, wherever; what fails, stops or stays away is said."""

import functools

import numpy as np
import pytest

from ranjax.core.engines.task_pool import in_threads
from ranjax.core.errors import ConfigError, DataError
from ranjax.data.store import NoisyStore, StoreWriter
from ranjax.run.stages import shard_queue

IDS = [f"pair {number}" for number in range(7)]


def opened(folder):
    return StoreWriter(folder, IDS, shard_size=2, epsilon=0.1, provenance={})


def noisy_pair(number):
    clean = np.full((2, 2, 1), 10 * number, np.uint8)
    image = clean.astype(np.float32) / 255
    arrays = {"image": image, "clean_image": clean, "tokens": np.arange(3), "mask": np.ones(3, bool)}
    return {"id": IDS[number], "report": f"report {number}", "provenance": {}, **arrays}


def write(folder, made, numbers):
    writer = opened(folder)
    for number in numbers:
        made.append(number)
        writer.write(number, [noisy_pair(place) for place in writer.positions(number)])


def hand_out(folder, task_of, dear=False, stop=lambda: False):
    said = []
    with in_threads(2) as pool:
        pool.dear = dear
        shard_queue.hand_out(pool, opened(folder), task_of, "craft", stop, said.append)
    return said


@pytest.mark.parametrize("dear", [False, True])
def test_missing_shards_are_made_once_each_and_others_stay(tmp_path, dear):
    made, bundles = [], []
    write(tmp_path, [], [1])

    def task_of(numbers):
        bundles.append(numbers)
        return functools.partial(write, tmp_path, made, numbers)

    said = hand_out(tmp_path, task_of, dear)
    assert sorted(made) == [0, 2, 3]
    assert sorted(bundles) == ([(0, 2), (3,)] if dear else [(0,), (2,), (3,)])
    assert said[0] == "  3 of 4 shards go to the engine"
    assert said[1].startswith("  5 pairs by the engine, ")
    assert [NoisyStore.open(tmp_path)[name]["report"] for name in IDS] == [f"report {n}" for n in range(7)]
    assert hand_out(tmp_path, task_of) == []


def test_a_task_that_fails_is_the_error_of_the_stage_and_what_is_done_remains(tmp_path):
    def task(numbers):
        if numbers == (2,):
            raise DataError("no such words")
        write(tmp_path, [], numbers)

    with pytest.raises(DataError, match="no such words"):
        hand_out(tmp_path, lambda numbers: functools.partial(task, numbers))
    assert opened(tmp_path).missing()[-1] >= 2


def test_a_stop_leaves_what_is_not_begun(tmp_path):
    made = []
    hand_out(tmp_path, lambda n: functools.partial(write, tmp_path, made, n), stop=lambda: bool(made))
    assert made
    assert opened(tmp_path).missing() == sorted({*range(4)} - {*made})


def test_shards_that_another_machine_keeps_to_itself_are_found_out(tmp_path):
    with pytest.raises(ConfigError, match="a folder that all machines of the engine see; shard 0 was written elsewh"):
        hand_out(tmp_path, lambda numbers: lambda: None)
