"""Intervals that cover what they should, paired tests, Holm's correction and the rows made from them."""

import numpy as np
import pytest
import scipy.stats

from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import metrics, statistics
from ranjax.evaluation import result_rows as rows


def test_interval_of_a_share_is_about_the_normal_one():
    values = np.repeat([0.0, 1.0], [120, 280])
    found = statistics.bootstrap(values, resamples=4000)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert found.value == pytest.approx(0.7)
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.006)
    assert found.n == 400
    assert statistics.bootstrap(values, resamples=4000) == found
    assert statistics.bootstrap(values, resamples=4000, seed=1) != found


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        found = statistics.bootstrap(rng.random(80) < 0.6, resamples=200, seed=trial)
        covered += found.low <= 0.6 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_seeds_widen_the_interval_and_share_their_examples():
    rng = np.random.default_rng(1)
    shared = rng.random(300)
    same = np.stack([shared] * 5)
    one, five = statistics.bootstrap(shared), statistics.bootstrap(same)
    assert (five.low, five.high) == pytest.approx((one.low, one.high))
    apart = same + np.linspace(-0.3, 0.3, 5)[:, None]
    wide = statistics.bootstrap(apart)
    assert wide.value == pytest.approx(one.value)
    assert wide.high - wide.low > 3 * (one.high - one.low)


def test_a_share_that_no_example_shows_is_bounded_by_how_many_there_were():
    # The interval of 0 of 128 that looks at no resample: Clopper and Pearson's.
    told = scipy.stats.binomtest(0, 128).proportion_ci(0.95, "exact").high
    assert statistics.bootstrap(np.zeros((3, 128)), 50) == (0.0, 0.0, pytest.approx(told), 128)
    assert statistics.bootstrap(np.ones(128), 50) == (1.0, pytest.approx(1 - told), 1.0, 128)
    assert statistics.bootstrap([0.3], 50) == (0.3, 0.3, 0.3, 1)
    none = statistics.paired_difference(np.zeros(128), np.zeros(128), 50)
    assert (none.value, none.low, none.high, none.p) == (0, pytest.approx(-told), pytest.approx(told), 1)
    whole = statistics.paired_difference(np.ones(128), np.zeros(128), 50)
    assert (whole.low, whole.high) == (pytest.approx(1 - told), 1)
    # Of figures that are no shares nothing is known beyond what was seen.
    assert statistics.paired_difference(np.full(9, 3.0), np.full(9, 3.0), 50)[:3] == (0, 0, 0)


@pytest.mark.parametrize(("right", "of"), [(1, 128), (2, 128), (9, 128), (119, 128), (5, 12)])
def test_few_successes_or_failures_have_the_exact_interval(right, of):
    found = statistics.bootstrap(np.arange(of) < right, 50)
    told = scipy.stats.binomtest(right, of).proportion_ci(0.95, "exact")
    assert found == (pytest.approx(right / of), pytest.approx(told.low), pytest.approx(told.high), of)
    # 1 of 128 is [0.0, 4.3], 2 of 128 [0.2, 5.5]: a bootstrap says [0.0, 2.3] and [0.0, 3.9].
    three = statistics.bootstrap(np.arange(of) < np.array([[right]] * 3), 50)
    assert three.low <= found.low + 1e-12
    assert three.high >= found.high - 1e-12


def test_intervals_of_rare_shares_cover_the_truth_by_the_exact_binomial():
    """At 3 % of 128 a percentile bootstrap covers 88 % of the time; with ten on either side it is near 95."""
    intervals = [statistics.bootstrap(np.arange(128) < right, 400) for right in range(129)]
    shares = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.95, 0.97, 0.99])
    for share, least in [*((share, 0.95) for share in shares), (0.125, 0.92), (0.5, 0.92)]:
        held = np.array([one.low <= share <= one.high for one in intervals])
        assert (scipy.stats.binom.pmf(np.arange(129), 128, share) * held).sum() >= least


def test_a_contrast_of_four_is_the_difference_of_two_differences_and_may_be_held_against_a_margin():
    rng = np.random.default_rng(5)
    a, b, c, d = (rng.random((3, 200)) < share for share in (0.7, 0.5, 0.6, 0.55))
    found = statistics.contrast([(1, a), (-1, b), (-1, c), (1, d)], 500)
    gap = a.astype(float) - b - c + d
    pair = statistics.paired_difference(gap / 2 + 0.5, np.full((3, 200), 0.5), 500)
    assert found.value == pytest.approx(gap.mean())
    assert (found.low, found.high) == pytest.approx((2 * pair.low, 2 * pair.high))
    assert found.p == pytest.approx(pair.p)
    moved = statistics.contrast([(1, a), (-1, b)], 500, against=0.05)
    plain = statistics.contrast([(1, a), (-1, b)], 500)
    assert moved[:3] == pytest.approx(plain[:3])
    assert moved.p == pytest.approx(statistics.contrast([(1, a.astype(float) - 0.05), (-1, b)], 500).p)
    with pytest.raises(DataError, match="not paired"):
        statistics.contrast([(1, a), (-1, b[:, :5])], 50)


def test_the_share_of_a_damage_that_is_repaired_has_an_interval_only_where_there_is_a_damage():
    rng = np.random.default_rng(6)
    damage = rng.choice([-1.0, 0.0, 1.0], 600, p=[0.1, 0.5, 0.4])
    half = statistics.share_of_difference(damage / 2, damage, 300)
    assert half[:3] == pytest.approx((0.5, 0.5, 0.5))
    apart = statistics.share_of_difference(rng.choice([0.0, 1.0], 600, p=[0.9, 0.1]), damage, 300)
    assert apart.low < apart.value < apart.high < 0.7
    assert np.isnan(statistics.share_of_difference(damage, rng.choice([-1.0, 1.0], 600), 300).low)
    assert np.isnan(statistics.share_of_difference(damage, -damage, 300).value)


def test_pairing_finds_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(2)
    base = rng.normal(size=200)
    a, b = base + 0.1 + 0.05 * rng.normal(size=200), base
    found = statistics.paired_difference(a, b)
    assert found.low > 0.08
    assert found.high < 0.12
    assert 0 < found.p <= 2 / 1001
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert found.low > 0
    assert statistics.bootstrap(a).low < statistics.bootstrap(b).high
    back = statistics.paired_difference(b, a)
    assert back.value == pytest.approx(-found.value)
    assert back.high < 0


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(3)
    p = [statistics.paired_difference(rng.normal(size=60), rng.normal(size=60), 200).p for _ in range(200)]
    assert np.mean(np.asarray(p) < 0.1) == pytest.approx(0.1, abs=0.07)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    same = statistics.paired_difference(np.ones(9), np.ones(9), 50)
    assert (same.p, same.effect) == (1.0, 0.0)
    assert same.low <= 0 <= same.high


def test_a_plain_difference_stands_after_correction_over_a_long_table():
    rng = np.random.default_rng(3)
    a, b = rng.random(400) < 0.8, rng.random(400) < 0.5
    found = statistics.paired_difference(a, b, resamples=200)
    gap = a.astype(float) - b
    z = gap.mean() / (gap.std() / 20)
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf(z), rel=20)
    assert found.p < 0.05 / 200 < 2 / 201
    faint = statistics.paired_difference(b, np.roll(b, 1), resamples=200)
    assert faint.p >= 2 / 201


@pytest.mark.parametrize(("better", "worse", "among"), [(18, 1, 128), (12, 0, 128), (40, 6, 384)])
def test_a_p_value_that_no_resample_reaches_is_mcnemars(better, worse, among):
    a = np.arange(among) < better
    b = (np.arange(among) >= better) & (np.arange(among) < better + worse)
    found = statistics.paired_difference(a, b, resamples=100)
    chi = (better - worse) ** 2 / (better + worse)
    assert found.p == pytest.approx(scipy.stats.chi2.sf(chi, 1))
    assert found.p > 0.3 * scipy.stats.binomtest(better, better + worse).pvalue


@pytest.mark.parametrize(("better", "worse"), [(5, 0), (9, 0), (7, 2), (1, 1)])
def test_a_p_value_of_few_examples_is_no_less_than_the_exact_one(better, worse):
    """Right and wrong answers of few pictures, one question each or three: the sign test's, not the bootstrap's."""
    a = np.arange(12) < better
    b = (np.arange(12) >= better) & (np.arange(12) < better + worse)
    exact = scipy.stats.binomtest(better, better + worse).pvalue
    plain = statistics.paired_difference(a, b, 100)
    assert plain.p >= exact * (1 - 1e-9)
    pictures = statistics.paired_difference(np.repeat(a, 3), np.repeat(b, 3), 100, clusters=np.repeat(np.arange(12), 3))
    assert pictures.p >= exact * (1 - 1e-9)
    if worse == 0:
        assert plain.p == pictures.p == pytest.approx(exact)


def test_few_patients_show_no_difference_by_chance_more_often_than_said():
    """Eight patients whose films change together, either way: the bootstrap alone says "shown" in a tenth of trials."""
    rng, shown, patients = np.random.default_rng(7), 0, np.repeat(np.arange(8), [1, 2, 3, 5, 1, 2, 3, 5])
    for trial in range(300):
        change = rng.choice([-1, 0, 1], 8, p=[0.3, 0.4, 0.3])[patients]
        found = statistics.paired_difference(change > 0, change < 0, 100, trial, clusters=patients)
        shown += (found.low > 0 or found.high < 0) and found.p < 0.05
    assert shown / 300 <= 0.05


def test_the_interval_of_the_calibration_error_holds_it_and_covers_the_truth():
    # Answers 3 points less often right than said. Resamples all lie above the truth, as bins cannot cancel noise.
    rng, covered, percentile = np.random.default_rng(6), 0, 0
    for trial in range(60):
        confidence = rng.beta(4, 5, 300)
        hits = rng.random(300) < np.clip(confidence - 0.03, 0, 1)
        counts = np.concatenate([np.ones((1, 300)), statistics.draw_counts(300, 100, trial)])
        table = metrics.ece(confidence, hits, counts=counts)[:, None]
        found = statistics.bootstrap_metric(table[0], table[1:], 300, reflected=True)
        assert 0 <= found.low <= found.value <= found.high
        covered += found.low <= 0.03 <= found.high
        percentile += np.quantile(table[1:], 0.025) <= 0.03
    assert covered >= 45
    assert percentile < 20


def test_captions_of_one_image_count_as_one_example():
    """Four captions that are always right or wrong together say no more than one would."""
    hits = np.random.default_rng(7).random(60) < 0.4
    one = statistics.bootstrap(hits, 2000)
    four = statistics.bootstrap(np.repeat(hits, 4), 2000, clusters=np.repeat(np.arange(60), 4))
    assert (four.value, four.n) == (pytest.approx(one.value), 60)
    assert (four.low, four.high) == pytest.approx((one.low, one.high))
    assert statistics.bootstrap(np.repeat(hits, 4)).high < four.high - 0.03
    uneven = statistics.bootstrap([1, 0, 0, 1], 50, clusters=["a", "a", "a", "b"])
    assert (uneven.value, uneven.n) == (0.5, 2)
    assert statistics.bootstrap(np.zeros(8), 50, clusters=np.arange(8) // 2) == statistics.bootstrap(np.zeros(4), 50)
    with pytest.raises(DataError, match="clusters"):
        statistics.bootstrap(np.ones(3), clusters=[0, 1])
    with pytest.raises(DataError, match="strata and clusters"):
        statistics.draw_counts(2, 10, strata=[0, 1], clusters=[0, 1])


def test_a_cluster_of_one_example_each_changes_nothing():
    rng = np.random.default_rng(3)
    a, b, alone = rng.random((2, 50)) < 0.6, rng.random((2, 50)) < 0.4, np.arange(50)
    assert statistics.bootstrap(a, 100, clusters=alone) == statistics.bootstrap(a, 100)
    assert statistics.paired_difference(a, b, 100, clusters=alone) == statistics.paired_difference(a, b, 100)


def _of_pictures(rng, pictures, rate=0.6):
    """Right or wrong for 1 to 8 questions about each picture, where pictures differ in how hard they are."""
    clusters = np.repeat(np.arange(pictures), rng.integers(1, 9, pictures))
    ease = np.clip(rate + rng.choice([-0.35, 0.35], pictures), 0, 1)
    return rng.random(len(clusters)) < ease[clusters], clusters


def test_the_spread_over_drawn_pictures_is_that_of_the_ratio_estimator():
    """Closed form (Cochran 1977, section 6.4): the variance is sum over pictures of (their total - mean x size)^2."""
    hits, clusters = _of_pictures(np.random.default_rng(11), 120)
    totals, sizes = np.bincount(clusters, hits), np.bincount(clusters)
    error = np.sqrt(np.square(totals - hits.mean() * sizes).sum()) / len(hits)
    draws = statistics.resampled_means(hits, 4000, clusters=clusters)
    assert draws.std() == pytest.approx(error, rel=0.05)
    assert draws.std() > 1.4 * np.sqrt(hits.var() / len(hits))


def test_intervals_and_p_values_hold_for_several_questions_about_a_picture():
    """The truth is covered about as often as said, and where two methods differ by luck of pictures p is uniform."""
    rng = np.random.default_rng(5)
    covered, shown = np.zeros(2), np.zeros(2)
    for trial in range(150):
        hits, clusters = _of_pictures(rng, 50)
        # Another method, as good on average, better on some pictures and worse on others.
        swing = rng.choice([-1, 1], 50)[clusters] * (rng.random(len(clusters)) < 0.4)
        other = np.clip(hits + swing, 0, 1)
        balanced = (
            np.where(rng.random(50)[clusters] < 0.5, hits, other),
            np.where(rng.random(50)[clusters] < 0.5, hits, other),
        )
        for i, given in enumerate((clusters, None)):
            found = statistics.bootstrap(hits, 150, trial, clusters=given)
            covered[i] += found.low <= 0.6 <= found.high
            shown[i] += statistics.paired_difference(*balanced, 150, trial, clusters=given).p < 0.05
    assert 0.88 <= covered[0] / 150 <= 0.99
    assert covered[1] / 150 < 0.85
    assert shown[0] / 150 <= 0.09
    assert shown[1] > 1.5 * shown[0]


def test_a_clear_difference_over_pictures_has_the_p_value_of_flipped_pictures():
    """Every one of 200 pictures turns all of its three answers right: pictures, not questions, count in the test."""
    clusters = np.repeat(np.arange(200), 3)
    better = np.repeat(np.random.default_rng(2).random(200) < 0.2, 3)
    found = statistics.paired_difference(better, np.zeros(600), 200, clusters=clusters)
    pictures = statistics.paired_difference(better[::3], np.zeros(200), 200)
    assert (found.p, found.n) == (pytest.approx(pictures.p), 200)
    assert statistics.paired_difference(better, np.zeros(600), 200).p < found.p / 1e6


def test_students_interval_over_runs_is_scipys():
    values = [0.02, -0.01, 0.05]
    mean, low, high, p, effect = statistics.student(values)
    told = scipy.stats.ttest_1samp(values, 0)
    assert (mean, p) == (pytest.approx(0.02), pytest.approx(told.pvalue))
    assert (low, high) == pytest.approx(tuple(told.confidence_interval()))
    assert effect == pytest.approx(0.02 / np.std(values, ddof=1))
    assert statistics.student([0.1, 0.1])[:4] == (0.1, 0.1, 0.1, 0.0)
    # A spread below the runs' own sampling error is luck: three runs that agree to the digit show nothing by it.
    own = statistics.sampling_error([(-0.02, 0.0), (-0.02, 0.0), (-0.02, 0.0)])
    assert own == pytest.approx(0.02 / (2 * scipy.stats.norm.ppf(0.975)))
    mean, low, high, p, _ = statistics.student([-0.0078] * 3, least=own)
    assert (mean, high - mean) == (pytest.approx(-0.0078), pytest.approx(own / 3**0.5 * scipy.stats.t.ppf(0.975, 2)))
    assert low < 0 < high
    assert p > 0.05
    assert statistics.student(values, least=0.001) == statistics.student(values)
    with pytest.raises(DataError, match="two or more"):
        statistics.student([0.1])


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.5, 0.9]), [1.0, 1.0])
    assert statistics.holm([]).shape == (0,)


def test_strata_keep_every_class():
    labels = np.array([0] * 50 + [1] * 2)
    counts = statistics.draw_counts(52, 300, strata=labels)
    assert (counts.sum(1) == 52).all()
    assert (counts[:, labels == 1].sum(1) == 2).all()
    plain = statistics.draw_counts(52, 300)
    assert (plain[:, labels == 1].sum(1) == 0).any()
    assert plain.mean() == 1


def test_a_metric_that_resamples_leave_undefined_gets_no_interval():
    draws = np.full((100, 1), np.nan)
    draws[:40] = 0.5
    found = statistics.bootstrap_metric([0.5], draws, 10)
    assert np.isnan([found.low, found.high]).all()
    draws[:90] = np.linspace(0, 1, 90)[:, None]
    found = statistics.bootstrap_metric([0.5], draws, 10)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def test_classification_rows_hold_the_metrics_and_their_intervals():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 90)
    logits = np.eye(3)[labels] + 0.7 * rng.normal(size=(2, 90, 3))
    cell = rows.Cell("joint", 0.1, "ran", "findings", "test", "pgd")
    found = rows.classification_rows(cell, logits, labels, seeds=[0, 7], class_names="abc", resamples=200)
    assert all(tuple(r) == rows.FIELDS for r in found)
    by_name = {(r["metric"], r["seed"]): r for r in found}
    assert len(by_name) == len(found) == 7 + 2 * 4
    for index, seed in enumerate((0, 7)):
        assert by_name["accuracy", seed]["value"] == metrics.correct(logits[index], labels).mean()
        assert by_name["ece", seed]["value"] == pytest.approx(
            float(metrics.ece(metrics.softmax(logits[index]).max(1), metrics.correct(logits[index], labels))[0])
        )
        probabilities = metrics.softmax(logits[index])
        assert by_name["macro_auroc", seed]["value"] == pytest.approx(
            float(metrics.macro_auroc(probabilities, labels)[0])
        )
        balanced = float(metrics.balanced_accuracy(logits[index].argmax(1) == labels, labels)[0])
        assert by_name["balanced_accuracy", seed]["value"] == pytest.approx(balanced)
    for (name, seed), r in by_name.items():
        assert r["n"] == 90
        assert r["low"] < r["high"]
        # The bootstrap of ECE is biased upwards, so that its interval may lie above the value.
        assert name == "ece" or r["low"] <= r["value"] <= r["high"]
        if seed is None and not name.startswith("auroc/"):
            assert r["value"] == pytest.approx(np.mean([by_name[name, s]["value"] for s in (0, 7)]))


@pytest.mark.parametrize("films", [1, 3])
def test_an_auroc_of_0_or_1_is_as_sure_as_its_rarest_class_is_common(films):
    """Every positive below every negative, as under attack: not one resample says anything but 0."""
    labels = np.repeat([1] * 12 + [0] * 30, films)
    clusters = np.repeat(np.arange(42), films)
    for sign, end in ((-1.0, "high"), (1.0, "low")):
        logits = np.stack([sign * (labels == c) + 0.01 * np.arange(len(labels)) / len(labels) for c in (0, 1)], axis=1)
        cell = rows.Cell("joint", 0.1, "ran", "findings", "test")
        found = {
            row["metric"]: row
            for row in rows.classification_rows(
                cell, logits, labels, class_names="ab", resamples=100, clusters=clusters if films > 1 else None
            )
        }
        for name, fewest in (("macro_auroc", 12), ("auroc/a", 12), ("balanced_accuracy", 24), ("accuracy", 42)):
            row, unseen = found[name], statistics.never_seen(fewest)
            assert row["value"] == (sign > 0)
            assert row[end] == pytest.approx(1 - unseen if sign > 0 else unseen)
            assert (row["low"] == row["value"]) == (sign < 0)


def test_a_balanced_accuracy_of_one_class_named_always_is_not_certain():
    labels, cell = np.repeat([0, 1], [12, 30]), rows.Cell("joint", 0.1, "ran", "findings", "test")
    logits = np.stack([np.random.default_rng(0).normal(size=42), np.full(42, 9.0)], axis=1)
    found = {row["metric"]: row for row in rows.classification_rows(cell, logits, labels, resamples=100)}
    balanced, unseen = found["balanced_accuracy"], statistics.never_seen(24)
    assert [balanced[name] for name in ("low", "value", "high")] == pytest.approx([0.5 - unseen, 0.5, 0.5 + unseen])


def test_rows_refuse_what_does_not_fit():
    cell = rows.Cell("joint", 0.1, "ran", "findings", "test")
    with pytest.raises(DataError, match="and 1 seeds do not fit"):
        rows.classification_rows(cell, np.ones((2, 3, 2)), np.zeros(3, int), [1])
    with pytest.raises(DataError, match="1 class names for 2"):
        rows.classification_rows(cell, np.ones((3, 2)), np.zeros(3, int), class_names="a")
    with pytest.raises(DataError, match="name of its metric"):
        rows.row(cell, "", 1.0)


def test_rows_hold_plain_numbers():
    cell = rows.Cell("joint", np.float32(0.5), "lp", "findings", "test", seed=np.int64(3))
    found = rows.row(cell, "accuracy", np.float32(0.25), float("nan"), None, np.int64(4))
    assert found["low"] is None
    assert [type(found[name]) for name in ("ratio", "seed", "value", "n")] == [float, int, float, int]
    assert rows.mean_row(cell, "robust_accuracy", [1, 0, 1, 1], 50)["value"] == 0.75


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: statistics.bootstrap([]), DataError, "none of them 0"),
        (lambda: statistics.bootstrap([np.nan]), DataError, "finite"),
        (lambda: statistics.bootstrap([1.0], resamples=3), ConfigError, "resamples"),
        (lambda: statistics.bootstrap([1.0], level=95), ConfigError, "level"),
        (lambda: statistics.paired_difference([1.0], [1.0, 2.0]), DataError, "not paired"),
        (lambda: statistics.holm([2.0]), DataError, "p values"),
        (lambda: statistics.student([1.0, float("nan")]), DataError, "one finite figure each"),
        (lambda: statistics.draw_counts(3, 10, strata=[1]), DataError, "strata"),
    ],
)
def test_bad_input_is_named(call, error, word):
    with pytest.raises(error, match=word):
        call()
