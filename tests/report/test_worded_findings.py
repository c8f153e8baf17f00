"""Findings are read off intervals, and "no difference shown" is one of them."""

import pytest

from ranjax.report import worded_findings as findings

from . import fake


def _sentences(results):
    return [one.text for one in findings.headlines(results)]


def _sentence(comparison, **results):
    return _sentences({"comparisons": [comparison], **results})[0]


def test_above():
    said = _sentence(fake.comparison(0.031, 0.012, 0.050))
    assert said == (
        "At 30 % noise RAN is above LP by 3.1 points of attacked accuracy on the test set (95 % interval 1.2 to 5.0)."
    )


def test_below_is_worded_by_its_size():
    said = _sentence(fake.comparison(-0.031, -0.050, -0.012, attack="none", ratio=0.0, condition="clean"))
    assert said == (
        "Without upstream noise RAN is below LP by 3.1 points of clean accuracy on the test set "
        "(95 % interval 1.2 to 5.0)."
    )


@pytest.mark.parametrize(("low", "high"), [(-0.008, 0.011), (0.0, 0.02), (-0.02, 0.0)])
def test_an_interval_that_holds_zero_shows_no_difference(low, high):
    said = _sentence(fake.comparison(0.002, low, high, p=0.001))
    assert "no difference between RAN and LP is shown in attacked accuracy on the test set" in said
    assert f"(95 % interval {100 * low:.1f} to {100 * high:.1f} points)" in said


def test_other_metrics_have_their_own_unit():
    said = _sentence(fake.comparison(0.031, 0.012, 0.050, metric="auroc", split="ood_test"))
    assert (
        "RAN is above LP by 0.031 attacked AUROC on the out-of-domain test set (95 % interval 0.012 to 0.050)" in said
    )


def test_nothing_is_worded_without_an_interval():
    assert (
        _sentences({"comparisons": [fake.comparison(0.1, None, None)], "rows": [fake.row(low=None, high=None)]}) == []
    )
    assert _sentences({}) == []


def test_every_finding_but_the_caution_has_an_interval(results):
    found = findings.headlines(results)
    assert {finding.topic for finding in found} == {
        "The attack",
        "Without a head",
        "Upstream noise",
        "Between methods",
        "Reading these findings",
    }
    for finding in found[:-1]:
        assert "95 % interval" in finding.text


def test_caution_counts_all_comparisons(results):
    last = findings.headlines(results)[-1]
    kept = findings.judged(results["comparisons"])
    assert last.verdict == "caution"
    assert f"Of all {len(kept)}" in last.text
    assert "by chance" in last.text
    assert "Holm" in last.text


def test_choice_does_not_look_at_outcomes(results):
    """Turning every difference round changes the verdicts, not which comparisons are worded."""
    turned = {**results, "comparisons": [_turned(item) for item in results["comparisons"]]}
    first = [finding for finding in findings.headlines(results) if finding.topic == "Between methods"]
    second = [finding for finding in findings.headlines(turned) if finding.topic == "Between methods"]
    opposite = {"above": "below", "below": "above", "none": "none"}
    assert [opposite[finding.verdict] for finding in first] == [finding.verdict for finding in second]
    assert "above" in {finding.verdict for finding in first}


def _turned(item):
    return {**item, "difference": -item["difference"], "low": -item["high"], "high": -item["low"]}


def test_condition_and_attack_are_named_where_they_vary():
    items = [
        fake.comparison(0.1, 0.05, 0.15),
        fake.comparison(0.1, 0.05, 0.15, condition="gaussian"),
        fake.comparison(0.1, 0.05, 0.15, attack="apgd"),
    ]
    said = _sentences({"comparisons": items})
    assert "(condition joint)" in said[0]
    assert "attacked (PGD) accuracy" in said[0]
    assert "(condition gaussian)" in said[1]


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.30, 0.27, 0.33, "is above chance"),
        (0.05, 0.03, 0.07, "is below chance"),
        (0.13, 0.10, 0.16, "is not shown to differ from chance"),
    ],
)
def test_zero_shot_against_chance(value, low, high, words):
    row = fake.row(method="zero_shot", value=value, low=low, high=high)
    said = [one.text for one in findings.headlines({"rows": [row], "chance": {"accuracy": 0.125}})]
    assert any(words in text and "chance 12.5 %" in text for text in said)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.75, 0.80, "is above that"), (0.50, 0.60, "is below that"), (0.60, 0.70, "is not shown to differ from that")],
)
def test_upstream_noise_is_worded_as_different_only_where_intervals_lie_apart(low, high, words):
    noisy = fake.row(condition="joint", ratio=0.1, value=(low + high) / 2, low=low, high=high)
    said = _sentences({"rows": [fake.row(), noisy]})
    assert len(said) == 1
    assert f"At 10 % noise the clean accuracy of LP {words} without upstream noise" in said[0]


@pytest.mark.parametrize(
    ("p", "verdict", "words"),
    [(0.01, "below", "is below that"), (0.04, "none", "is not shown to differ from that")],
)
def test_upstream_noise_is_judged_in_pairs_and_after_correction(p, verdict, words):
    """The two intervals overlap; the pairs tell, unless a second test makes 0.04 too little."""
    noisy = fake.row(condition="joint", ratio=0.1, value=0.67, low=0.63, high=0.71)
    pair = {"kind": "noise", "condition": "joint", "ratio": 0.1, "method": "lp", "task": noisy["task"], "split": "test"}
    pair |= {"attack": "none", "metric": "accuracy", "difference": -0.03, "low": -0.05, "high": -0.01, "p": p}
    other = {**pair, "split": "ood_test", "low": -0.05, "high": 0.01, "p": 0.5}
    (found,) = findings.headlines({"rows": [fake.row(), noisy], "effects": [pair, other]})
    assert found.verdict == verdict
    assert f"LP {words} without upstream noise" in found.text
    assert "paired difference -3.0 points (95 % interval -5.0 to -1.0)" in found.text
    assert ("does not stand after correction" in found.text) is (verdict == "none")


def test_a_difference_that_falls_to_the_correction_is_not_called_one():
    items = [fake.comparison(0.031, 0.012, 0.050, p=0.04, b=b) for b in ("lp", "mlp")]
    kept = findings.judged(items)
    assert [(item["alone"], item["verdict"]) for item in kept] == [("above", "none")] * 2
    said = _sentences({"comparisons": items})
    assert "no difference between RAN and LP is shown" in said[0]
    assert "(95 % interval 1.2 to 5.0 points; it does not stand after correction)" in said[0]
    assert "2 intervals lie above zero" in said[-1]
    assert "0 stand at 5 %" in said[-1]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.05, 0.10, "lowers the accuracy"), (0.64, 0.70, "shows no difference"), (0.80, 0.85, "does not lower")],
)
def test_the_attack_is_worded_by_what_it_did(low, high, words):
    hit = fake.row(attack="pgd", value=(low + high) / 2, low=low, high=high)
    assert words in _sentences({"rows": [fake.row(), hit]})[0]


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [([0.01, 0.04, None, 0.03], [0.03, 0.06, None, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([], [])],
)
def test_holm_against_hand_computed_values(p_values, corrected):
    items = [{"p": p} for p in p_values]
    findings.correct(items)
    known = [item["p_holm"] for item in items if "p_holm" in item]
    assert known == pytest.approx([p for p in corrected if p is not None])
    assert ["p_holm" in item for item in items] == [p is not None for p in corrected]
