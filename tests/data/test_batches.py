"""Batches: every example once an epoch, the same by step, by iterator, by process and from any kind of source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import ListSource, records, source

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.batches import Batches, Loader
from ranjax.data.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pairs():
    return source(30)


@pytest.fixture(scope="module")
def tokenizer(pairs):
    return Tokenizer.build(pairs.column("report"))


def same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_a_batch_holds_the_records_it_names(pairs, tokenizer):
    batch = Batches(pairs, 8, seed=0, tokenizer=tokenizer, length=16)[2]
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items() if name != "ids"}
    assert shapes == {
        "images": ((8, 16, 16, 1), "float32"),
        "label": ((8,), "int32"),
        "labels": ((8, 3), "float32"),
        "tokens": ((8, 16), "int32"),
        "mask": ((8, 16), "bool"),
        "index": ((8,), "int32"),
    }
    for row, index in enumerate(batch["index"]):
        record = pairs[index]
        assert batch["ids"][row] == record["id"]
        assert batch["label"][row] == record["label"]
        np.testing.assert_array_equal(np.round(batch["images"][row] * 255).astype(np.uint8), record["image"])
        np.testing.assert_array_equal(batch["tokens"][row], tokenizer.encode([record["report"]], 16).ids[0])


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_no_example_comes_twice_in_an_epoch_and_orders_differ(size, batch_size, seed):
    batch_size = min(batch_size, size)
    batches = Batches(_LOADERS[size], batch_size, seed)
    per_epoch = batches.steps_per_epoch
    assert per_epoch == size // batch_size
    epochs = [
        [int(i) for s in range(e * per_epoch, (e + 1) * per_epoch) for i in batches[s]["index"]] for e in range(3)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == per_epoch * batch_size
    if size == per_epoch * batch_size:
        assert all(set(epoch) == set(range(size)) for epoch in epochs)
    if size >= 20 and len(epochs[0]) >= 20:
        assert epochs[0] != epochs[1] != epochs[2]


_LOADERS = {size: Loader(ListSource(records(size, size=2))) for size in range(1, 41)}


def test_seed_decides_the_order(pairs):
    same(Batches(pairs, 8, seed=1)[5], Batches(pairs, 8, seed=1)[5])
    assert (Batches(pairs, 8, seed=1)[5]["index"] != Batches(pairs, 8, seed=2)[5]["index"]).any()


def test_resuming_needs_only_the_step(pairs):
    whole = Batches(pairs, 8, seed=0)
    first = [whole[step] for step in range(12)]
    resumed = Batches(pairs, 8, seed=0)
    for step in range(7, 12):
        same(resumed[step], first[step])


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_ahead_gives_the_batches_of_the_steps(pairs, threads):
    batches = Batches(pairs, 8, seed=0)
    iterator = batches.iterate(start=4, threads=threads)
    for step in range(4, 10):
        same(next(iterator), batches[step])


def test_slices_of_the_processes_make_up_the_global_batch(pairs):
    whole = Batches(pairs, 8, seed=0)
    parts = [Batches(pairs, 8, seed=0, process_index=i, process_count=4) for i in range(4)]
    for step in range(5):
        pieces = [part[step] for part in parts]
        for name, value in whole[step].items():
            np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), value)


def test_a_source_too_large_for_memory_is_read_as_needed(pairs, tokenizer):
    small = Batches(pairs, 8, seed=0, tokenizer=tokenizer, length=16)
    large = Batches(pairs, 8, seed=0, tokenizer=tokenizer, length=16, memory_limit=0)
    assert small.loader.in_memory
    assert not large.loader.in_memory
    same(small[3], large[3])


def test_impossible_batches_are_refused(pairs):
    with pytest.raises(ConfigError, match=r"batch_size = 31.*from 1 to the 30 examples"):
        Batches(pairs, 31, seed=0)
    with pytest.raises(ConfigError, match="multiple of the number of processes"):
        Batches(pairs, 8, seed=0, process_count=3)
    with pytest.raises(DataError, match="no records"):
        Loader(ListSource([]))
    with pytest.raises(IndexError, match="step -1"):
        Batches(pairs, 8, seed=0)[-1]
