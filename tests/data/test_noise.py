"""Selections and conditions: exact, nested ratios; captions that never stay; signs that spend the whole radius."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import ListSource, records, source

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_float
from ranjax.data.noisy_pairs import caption_shuffle, count_of, gaussian, select

IDS = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=80)
SHARES = st.floats(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(IDS, SHARES, SHARES, st.integers(0, 2**63 - 1))
def test_ratios_are_exact_and_nested(ids, one, other, seed):
    low, high = sorted((one, other))
    small, large = select(ids, low, seed), select(ids, high, seed)
    # Half away from zero, by the ratio as it is written.
    assert small.sum() == math.floor(Fraction(str(low)) * len(ids) + Fraction(1, 2))
    assert large.sum() == math.floor(Fraction(str(high)) * len(ids) + Fraction(1, 2))
    assert not (small & ~large).any()


@pytest.mark.parametrize(
    ("ratio", "total", "count"),
    [(0.15, 10, 2), (0.25, 10, 3), (0.05, 10, 1), (0.285, 1000, 285), (0.2845, 1000, 285), (0.29, 100, 29),
     (0.1, 4, 0), (0.125, 4, 1), (0.145, 100, 15), (0.0, 7, 0), (1.0, 7, 7), (np.float64(0.15), 10, 2)],
)  # fmt: skip
def test_a_ratio_is_rounded_half_away_from_zero_as_it_is_written(ratio, total, count):
    assert count_of(ratio, total) == count
    assert select([str(i) for i in range(total)], ratio, 0).sum() == count


@settings(max_examples=50, deadline=None)
@given(IDS, st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_the_ids(ids, random):
    shuffled = list(ids)
    random.shuffle(shuffled)
    chosen = {name for name, on in zip(ids, select(ids, 0.4, 0)) if on}
    assert chosen == {name for name, on in zip(shuffled, select(shuffled, 0.4, 0)) if on}


def test_selection_depends_on_the_seed_and_is_the_same_for_ever():
    ids = [f"case-{i}" for i in range(20)]
    assert (select(ids, 0.5, 0) != select(ids, 0.5, 1)).any()
    # A changed hash would part a store from the runs that chose it.
    assert np.flatnonzero(select(ids, 0.2, 0)).tolist() == [7, 10, 11, 15]


def test_impossible_selections_are_refused():
    with pytest.raises(ConfigError, match=r"noise\.ratios = 1\.5"):
        select(["a"], 1.5, 0)
    with pytest.raises(DataError, match="given twice"):
        select(["a", "a"], 0.5, 0)


def with_captions(captions):
    return ListSource([record | {"report": text} for record, text in zip(records(len(captions), size=2), captions)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 1000))
def test_no_caption_stays_where_it_was(captions, seed):
    pairs = with_captions([f"caption {i}" for i in captions])
    view = caption_shuffle(pairs, pairs.ids, seed)
    before, after = pairs.column("report"), view.column("report")
    assert sorted(before) == sorted(after)
    kept = {pairs[i]["id"] for i in range(len(pairs)) if before[i] == after[i]}
    assert kept == set(view.left)
    most = max(captions.count(i) for i in captions)
    assert len(view.left) == max(0, 2 * most - len(captions))


def test_caption_shuffle_moves_captions_and_nothing_else():
    pairs = source(30)
    chosen = pairs.ids[5:15]
    view = caption_shuffle(pairs, chosen, seed=0)
    assert view.left == ()
    for i in range(30):
        old, new = pairs[i], view[i]
        np.testing.assert_array_equal(to_float(new["image"]), to_float(old["image"]))
        assert {k: new[k] for k in ("id", "label", "patient")} == {k: old[k] for k in ("id", "label", "patient")}
        assert (new["report"] != old["report"]) == (old["id"] in chosen)
        assert view.meta(i)["report"] == new["report"]
    assert caption_shuffle(pairs, chosen, 0).column("report") == view.column("report")
    assert caption_shuffle(pairs, reversed(chosen), 0).column("report") == view.column("report")
    assert caption_shuffle(pairs, chosen, 1).column("report") != view.column("report")


def test_a_single_selected_pair_keeps_its_caption_and_says_so():
    pairs = source(5)
    view = caption_shuffle(pairs, pairs.ids[:1], seed=0)
    assert view.left == ("case-0",)
    assert view.column("report") == pairs.column("report")
    assert caption_shuffle(pairs, [], seed=0).left == ()
    with pytest.raises(DataError, match="'nobody' first"):
        caption_shuffle(pairs, ["nobody"], seed=0)


def test_gaussian_signs_spend_the_whole_radius_inside_the_box():
    pairs = source(12)
    view = gaussian(pairs, pairs.ids[:6], seed=0, epsilon=8 / 255)
    signs = []
    for i in range(12):
        steps = view[i]["image"].astype(int) - 257 * pairs[i]["image"].astype(int)
        if i >= 6:
            assert not steps.any()
            continue
        np.testing.assert_array_equal(np.abs(steps), 8 * 257)
        signs.append(steps > 0)
        assert view[i]["report"] == pairs[i]["report"]
    # Three standard errors of a fair coin over 6 x 256 pixels, and two examples do not share their signs.
    assert abs(np.mean(signs) - 0.5) < 3 * 0.5 / np.sqrt(6 * 256)
    assert 0.3 < np.mean(signs[0] == signs[1]) < 0.7


def test_gaussian_depends_on_seed_and_id_alone():
    pairs = source(6)
    alone = gaussian(pairs, ["case-2"], 0, 0.02)[2]["image"]
    np.testing.assert_array_equal(gaussian(pairs, pairs.ids, 0, 0.02)[2]["image"], alone)
    assert (gaussian(pairs, pairs.ids, 1, 0.02)[2]["image"] != alone).any()
    own = gaussian(pairs, ["case-1", "case-2"], 0, {"case-1": 0.0, "case-2": 0.02})
    np.testing.assert_array_equal(own[2]["image"], alone)
    np.testing.assert_array_equal(to_float(own[1]["image"]), to_float(pairs[1]["image"]))
    with pytest.raises(ConfigError, match=r"from 0 to 0\.5"):
        gaussian(pairs, ["case-1"], 0, 0.7)
