"""Few-shot selection: balanced, nested, independent of the order of the examples."""

import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.methods import few_shot

IDS = [f"image-{i}" for i in range(60)]
LABELS = np.array([0] * 30 + [1] * 20 + [2] * 7 + [-1] * 3)


def test_shots_are_balanced_nested_and_follow_the_id():
    chosen = {k: few_shot.shots(IDS, LABELS, k, seed=1) for k in (1, 2, 4)}
    for k, rows in chosen.items():
        np.testing.assert_array_equal(np.bincount(LABELS[rows]), [k, k, k])
        assert (np.diff(rows) > 0).all()
    assert set(chosen[1]) < set(chosen[2]) < set(chosen[4])
    order = np.random.default_rng(0).permutation(60)
    shuffled = few_shot.shots([IDS[i] for i in order], LABELS[order], 4, seed=1)
    assert set(order[shuffled]) == set(chosen[4])
    assert set(few_shot.shots(IDS, LABELS, 4, seed=2)) != set(chosen[4])


def test_a_share_takes_at_least_one_of_each_class():
    np.testing.assert_array_equal(np.bincount(LABELS[few_shot.share(IDS, LABELS, 0.1)]), [3, 2, 1])
    np.testing.assert_array_equal(np.bincount(LABELS[few_shot.share(IDS, LABELS, 0.01)]), [1, 1, 1])
    assert set(few_shot.share(IDS, LABELS, 0.1)) < set(few_shot.share(IDS, LABELS, 0.5))
    np.testing.assert_array_equal(few_shot.share(IDS, LABELS, 1.0), np.arange(57))


def test_bad_input_is_named():
    with pytest.raises(DataError, match="class 2 has 7 examples, fewer than 8 shots"):
        few_shot.shots(IDS, LABELS, 8)
    with pytest.raises(ConfigError, match="shots"):
        few_shot.shots(IDS, LABELS, 0)
    with pytest.raises(ConfigError, match="share"):
        few_shot.share(IDS, LABELS, 0.0)
    with pytest.raises(DataError, match="not unique"):
        few_shot.shots(["a", "a"], np.array([0, 0]), 1)
    with pytest.raises(DataError, match="as many integer labels"):
        few_shot.shots(IDS, LABELS[:4], 1)


def test_of_several_labels_each_class_gets_its_shots_and_they_nest():
    labels = (np.random.default_rng(0).random((60, 3)) < [0.5, 0.3, 0.15]).astype(np.float32)
    chosen = {k: few_shot.shots(IDS, labels, k) for k in (1, 2, 4)}
    for k, rows in chosen.items():
        assert (labels[rows].sum(0) >= k).all()
        assert len(rows) == len(set(rows)) <= 3 * k
    assert set(chosen[1]) <= set(chosen[2]) <= set(chosen[4])
    tenth = few_shot.share(IDS, labels, 0.1)
    assert (labels[tenth].sum(0) >= 1).all()
    assert not labels[tenth].any(1).all()  # those without any finding are there, too
    np.testing.assert_array_equal(few_shot.share(IDS, labels, 1.0), np.arange(60))
    with pytest.raises(DataError, match="class 1 has 13 examples, fewer than 16 shots"):
        few_shot.shots(IDS, labels, 16)
