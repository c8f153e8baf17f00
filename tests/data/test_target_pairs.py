"""Targets: of another class, never the pair itself, and the same whatever else is chosen."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranjax.core.errors import ConfigError, DataError
from ranjax.data import target_pairs

SETS = st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=2, max_size=40)


def multi_hot(sets):
    labels = np.zeros((len(sets), 4), np.float32)
    for row, held in zip(labels, sets):
        row[list(held)] = 1
    return labels


@settings(max_examples=60, deadline=None)
@given(SETS, st.integers(0, 2**31))
def test_a_target_shares_no_label_with_its_pair_and_is_refused_where_there_is_none(sets, seed):
    ids = [f"pair {i}" for i in range(len(sets))]
    for name, own in zip(ids, sets):
        others = [i for i, held in enumerate(sets) if not (held & own) and (held or own)]
        if others:
            assert target_pairs.draw(ids, multi_hot(sets), [name], seed)[0] in others
        else:
            with pytest.raises(DataError, match=f"{name}' has no pair of another class"):
                target_pairs.draw(ids, multi_hot(sets), [name], seed)


@pytest.mark.parametrize("kind", target_pairs.TARGETS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), random=st.randoms(use_true_random=False))
def test_a_target_depends_neither_on_what_else_is_chosen_nor_on_any_order(kind, seed, random):
    sets = [{i % 3} if i % 7 else set() for i in range(30)]
    order = list(range(30))
    random.shuffle(order)
    ids, labels = [f"pair {i}" for i in range(30)], multi_hot(sets)
    every = dict(zip(ids, target_pairs.draw(ids, labels, ids, seed, kind)))
    shuffled = [ids[i] for i in order]
    few = shuffled[:9]
    found = target_pairs.draw(shuffled, labels[order], few, seed, kind)
    assert [shuffled[i] for i in found] == [ids[every[name]] for name in few]
    assert all(every[name] != i for i, name in enumerate(ids))


@pytest.mark.parametrize("kind", target_pairs.TARGETS)
def test_every_possible_target_is_as_likely_as_another(kind):
    count = 2000
    ids, labels = [f"pair {i}" for i in range(count)], multi_hot([{i % 4} for i in range(count)])
    drawn = collections.Counter(i % 4 for i in target_pairs.draw(ids, labels, ids[::4], 3, kind).tolist())
    expected = dict.fromkeys((0, 1, 2, 3), 125) if kind == "random" else dict.fromkeys((1, 2, 3), 500 / 3)
    assert set(drawn) == set(expected)
    # Five standard deviations of a binomial count.
    assert all(abs(drawn[c] - n) < 5 * np.sqrt(n * (1 - n / 500)) for c, n in expected.items())


def test_draws_are_the_same_for_ever():
    ids, labels = [f"case-{i}" for i in range(12)], multi_hot([{i % 2} for i in range(12)])
    # A changed hash would part a store from the run that crafted it.
    assert target_pairs.draw(ids, labels, ids[:4], 0).tolist() == [1, 0, 9, 4]
    assert target_pairs.draw(ids, labels, ids[:4], 1).tolist() != [1, 0, 9, 4]


def test_wrong_targets_are_refused():
    ids, labels = ["a", "b", "c", "d"], multi_hot([{0}, {0, 1}, {2}, set()])
    target_pairs.check(ids, labels, ["a", "b", "d"], ["c", "d", "a"], "other_class")
    with pytest.raises(DataError, match="'b' of pair 'a' is of the same class"):
        target_pairs.check(ids, labels, ["a"], ["b"], "other_class")
    target_pairs.check(ids, labels, ["a"], ["b"], "random")
    with pytest.raises(DataError, match="its own target"):
        target_pairs.check(ids, labels, ["a"], ["a"], "random")
    with pytest.raises(DataError, match="no training pair"):
        target_pairs.check(ids, labels, ["a"], ["e"], "random")
    with pytest.raises(DataError, match="the only one"):
        target_pairs.draw(["a"], labels[:1], ["a"], 0, "random")
    with pytest.raises(ConfigError, match="one of other_class, random"):
        target_pairs.draw(ids, labels, ids, 0, "nearest")
