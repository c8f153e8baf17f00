"""The claims of the abstract: verdicts by interval and corrected p, on the claimed side, over one run or several."""

import numpy as np
import pytest
import scipy.stats

from ranjax.report import accuracy_sections as sections
from ranjax.report import page
from ranjax.report import paper_claims as abstract


def effect(ratio, difference, low, high, p, method="lp", split="test", attack="pgd"):
    return {
        "kind": "noise", "condition": "coattack", "ratio": ratio, "method": method, "task": "finding", "split": split,
        "attack": attack, "metric": "accuracy", "difference": difference, "low": low, "high": high, "p": p, "n": 100,
    }  # fmt: skip


def comparison(other, difference, low, high, p, attack="pgd"):
    return {
        "condition": "coattack", "ratio": 0.3, "a": "ran", "b": other, "task": "finding", "split": "test",
        "attack": attack,
        "metric": "accuracy", "difference": difference, "low": low, "high": high, "p": p, "n": 100,
    }  # fmt: skip


def results(**changes):
    found = {
        "effects": [effect(0.1, 0.1, 0.05, 0.15, 0.001), effect(0.3, -0.2, -0.3, -0.1, 0.001)],
        "comparisons": [comparison("lp", 0.1, -0.01, 0.2, 0.06), comparison("mlp", -0.2, -0.3, -0.1, 0.001)],
    }
    return found | changes


def verdicts(runs):
    return {(one.claim, one.measured.split(":")[0]): one.verdict for one in abstract.claims(runs)}


def test_a_split_of_one_class_speaks_to_no_claim():
    far = [effect(0.1, 0.1, 0.05, 0.15, 0.001, split=split, attack="none") for split in ("test", "ood_test")]
    far += [effect(0.3, 0.1, 0.05, 0.15, 0.001, split=split, attack="none") for split in ("test", "ood_test")]
    area = {"metric": "macro_auroc", "split": "ood_test"}
    held = [one.measured for one in abstract.claims([results(effects=far, rows=[{**area, "value": 0.6}])])]
    left = [one.measured for one in abstract.claims([results(effects=far, rows=[{**area, "value": None}])])]
    assert any("out of domain" in words for words in held)
    assert left == [words for words in held if "out of domain" not in words]


def test_a_claim_is_shown_only_on_its_own_side_and_the_opposite_is_said():
    found = verdicts([results()])
    assert found[abstract.HELPS, "LP, 10 % noise less none"] == abstract.SHOWN
    assert found[abstract.HURTS, "LP, 30 % noise less none"] == abstract.SHOWN
    assert found[abstract.DEFENDS, "RAN less LP at 30 % noise"] == abstract.NOT_SHOWN
    assert found[abstract.DEFENDS, "RAN less MLP at 30 % noise"] == abstract.OPPOSITE
    flipped = results(effects=[effect(0.1, -0.1, -0.15, -0.05, 0.001), effect(0.3, 0.2, 0.1, 0.3, 0.001)])
    assert {one.verdict for one in abstract.claims([flipped]) if one.item.get("kind")} == {abstract.OPPOSITE}


@pytest.mark.parametrize(("ratio", "claim"), [(0.1, abstract.HELPS), (0.3, abstract.HURTS)])
def test_the_only_noisy_ratio_speaks_to_the_claim_of_its_size(ratio, claim):
    (one,) = abstract.claims([results(effects=[effect(ratio, 0.1, 0.05, 0.15, 0.001)], comparisons=[])])
    assert one.claim == claim


def test_p_is_corrected_over_all_claims():
    # 0.02 times 4 claims is no longer below 0.05, whatever the interval says.
    weak = results(effects=[effect(0.1, 0.1, 0.05, 0.15, 0.02), effect(0.3, -0.2, -0.3, -0.1, 0.02)])
    weak["comparisons"] = [comparison("lp", 0.1, 0.01, 0.2, 0.02), comparison("mlp", 0.2, 0.1, 0.3, 0.02)]
    found = abstract.claims([weak])
    assert [one.p_holm for one in found] == pytest.approx([0.08] * 4)
    assert {one.verdict for one in found} == {abstract.NOT_SHOWN}


def test_several_runs_are_pooled_by_students_interval_over_runs():
    values = [0.10, 0.14, 0.06]
    runs = [results(effects=[effect(0.1, value, value - 0.02, value + 0.02, 0.9)], comparisons=[]) for value in values]
    (one,) = abstract.claims(runs)
    reference = scipy.stats.ttest_1samp(values, 0.0)
    interval = reference.confidence_interval(0.95)
    assert (one.item["low"], one.item["high"]) == pytest.approx((interval.low, interval.high))
    assert one.item["p"] == pytest.approx(reference.pvalue)
    assert one.item["effect"] == pytest.approx(np.mean(values) / np.std(values, ddof=1))
    assert one.runs == 3
    assert one.verdict == abstract.SHOWN
    # Runs that agree more closely than their own test images allow show nothing by that.
    alike = [results(effects=[effect(0.1, 0.01, -0.01, 0.03, 0.9)], comparisons=[]) for _ in range(3)]
    (luck,) = abstract.claims(alike)
    assert luck.item["low"] < 0 < luck.item["high"]
    assert luck.verdict == abstract.NOT_SHOWN
    assert not abstract.claims([runs[0], results(effects=[], comparisons=[])])
    assert abstract.claims([{"effects": [], "comparisons": []}]) == []


def test_what_a_part_of_ran_is_worth_is_told_by_run_and_over_runs():
    def without(term, difference, p):
        return comparison(f"ran_v1_without_{term}", difference, difference - 0.02, difference + 0.02, p)

    runs = [
        results(comparisons=[comparison("lp", 0.1, 0.0, 0.2, 0.01), without("filter", d, 0.001), without("mse", 0, 1)])
        for d in (0.10, 0.11, 0.12)
    ]
    one = sections.ablation_differences(runs[:1])
    assert [(item["b"], item["p_holm"]) for item in one] == [
        ("ran_v1_without_filter", 0.002),
        ("ran_v1_without_mse", 1.0),
    ]
    shown = sections.ablation_table(one).markdown()
    assert "| 30 % | low-pass filter | ▲ 10.0 [8.0, 12.0] |" in shown
    assert "| 30 % | consistency | ○ 0.0 [" in shown
    three = sections.ablation_differences(runs)[0]
    assert (three["difference"], three["n"]) == (pytest.approx(0.11), 3)
    assert three["low"] < 0.11 - 0.02  # Student's over three runs, which vary by their own sampling error at least
    assert sections.ablation_table(sections.ablation_differences([results()])) is None


def test_on_the_page_each_claim_stands_over_its_lines():
    found = abstract.claims([results()])
    html, _ = page.build(results(), {})
    html = html.partition('<section id="claims"')[2].partition("</section>")[0]
    names = list(dict.fromkeys(one.claim for one in found))
    assert html.count('class="title"') == len(names) > 1
    assert [html.index(f">{name}<") for name in names] == sorted(html.index(f">{name}<") for name in names)
    assert html.count("<td></td>") == 0
    assert "| Claim | Measured |" in sections.claims_table(found).markdown()
