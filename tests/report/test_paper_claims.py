"""The claims: one primary endpoint each, secondary ones corrected, and what a bed cannot tell, over runs too."""

import json

import numpy as np
import pytest
import scipy.stats

from ranjax.report import accuracy_sections as sections
from ranjax.report import bed_verdict, claim_sections, claim_table, interval_notes, page, pooling
from ranjax.report import paper_claims as claims

from . import fake


def contrast(name, difference, half=0.01, p=0.001, **more):
    endpoint = next(one for one in claim_table.endpoints() if one.name == name)
    stand = {"plain": "mlp", "strongest": "mlp", "reference": "mlp", "probe": "lp", "other": "lp_filter"}
    heads = {term.head: stand.get(term.head, term.head) for term in endpoint.terms} | more.pop("heads", {})
    return {
        "endpoint": name, "condition": "coattack", "ratio": 0.3, "heads": heads, "task": endpoint.task,
        "split": endpoint.split, "attack": "pgd" if endpoint.attack == "main" else "none", "metric": endpoint.metric,
        "margin": endpoint.margin, "difference": difference, "low": difference - half, "high": difference + half,
        "p": p, "effect": 0.5, "n": 1536, "seeds": 5, "first": {"value": 0.25, "low": 0.21, "high": 0.29},
        "chance": 0.125, **more,
    }  # fmt: skip


GOOD_BED = (
    contrast("worth_over_pixels", 0.14, 0.02),
    contrast("worth_over_random", 0.13, 0.02),
    contrast("damage", 0.12, 0.02),
)


def results(*items, bed=GOOD_BED, **more):
    return {"contrasts": [*bed, *items], **more}


def verdicts(*runs):
    return {one.endpoint.name: one.verdict for one in claims.claims(runs)}


def test_every_claim_has_one_primary_endpoint_and_no_two_endpoints_share_a_name():
    names = [one.name for one in claim_table.endpoints()]
    assert len(set(names)) == len(names)
    found = claims.claims([results()])
    assert [one.claim.name for one in found] == [claim.name for claim in claim_table.CLAIMS]
    assert all(one.is_primary and one.verdict == claims.NOT_RUN for one in found)
    bed = {figure.name for figure in claim_table.BED}
    assert all({*claim.bed, *claim.premise} <= bed for claim in claim_table.CLAIMS)


def test_a_claim_is_shown_only_on_its_own_side_of_its_margin_and_the_opposite_is_said():
    assert verdicts(results(contrast("hurts", -0.1)))["hurts"] == claims.SHOWN
    assert verdicts(results(contrast("hurts", 0.1)))["hurts"] == claims.OPPOSITE
    assert verdicts(results(contrast("hurts", -0.1, 0.2)))["hurts"] == claims.NOT_SHOWN
    assert verdicts(results(contrast("hurts", -0.1, p=0.06)))["hurts"] == claims.NOT_SHOWN
    # A loss of less than a point is no cost; one of more is the opposite.
    assert verdicts(results(contrast("costs_nothing", -0.002, 0.007)))["costs_nothing"] == claims.SHOWN
    assert verdicts(results(contrast("costs_nothing", -0.002, 0.009)))["costs_nothing"] == claims.NOT_SHOWN
    assert verdicts(results(contrast("costs_nothing", -0.05, 0.01)))["costs_nothing"] == claims.OPPOSITE


def test_a_defence_is_shown_only_where_it_stands_above_chance_itself():
    low = {"value": 0.15, "low": 0.11, "high": 0.19}
    assert verdicts(results(contrast("defends", 0.1)))["defends"] == claims.SHOWN
    assert verdicts(results(contrast("defends", 0.1, first=low)))["defends"] == claims.CHANCE
    assert verdicts(results(contrast("defends", 0.1, chance=0.3)))["defends"] == claims.CHANCE
    # Clean accuracy of the same claim is no matter of chance.
    assert verdicts(results(contrast("term_clean", 0.0, first=low)))["term_clean"] == claims.SHOWN
    (one,) = [
        one for one in claims.claims([results(contrast("defends", 0.1, first=low))]) if one.endpoint.name == "defends"
    ]
    assert "RAN less LP (filter) at 30 % noise" in one.sentence()
    assert "it stands at 15.0 [11.0, 19.0] %, chance 12.5 %" in one.sentence()


def test_a_primary_endpoint_stands_by_itself_and_secondary_ones_are_corrected_among_themselves():
    items = [contrast("defends", 0.1, p=0.04), contrast("ood", 0.1, p=0.04)]
    items += [contrast(name, 0.1, p=0.02) for name in ("uses_pixels", "defends_over_plain", "uses_ood")]
    found = {one.endpoint.name: one for one in claims.claims([results(*items)])}
    assert "p_holm" not in found["defends"].item
    assert found["defends"].verdict == found["ood"].verdict == claims.SHOWN
    assert found["defends_over_plain"].item["p_holm"] == pytest.approx(0.06)
    assert found["defends_over_plain"].verdict == claims.NOT_SHOWN


def test_a_secondary_endpoint_that_is_the_primary_one_again_counts_once():
    items = [contrast("defends", 0.1), contrast("defends_over_filter", 0.1, p=0.04), contrast("uses_ood", 0.1, p=0.04)]
    found = {one.endpoint.name: one for one in claims.claims([results(*items)])}
    assert "defends_over_filter" not in found
    assert found["uses_ood"].item["p_holm"] == pytest.approx(0.04)
    items[0]["heads"]["other"] = "ridge"
    assert "defends_over_filter" in verdicts(results(*items))


@pytest.mark.parametrize(
    ("difference", "half", "verdict"),
    [
        (0.06, 0.02, claims.SHOWN),
        (0.005, 0.015, "RAN does not repair the noise"),
        (0.01, 0.04, claims.CANNOT_TELL),
        (-0.06, 0.04, "RAN does not repair the noise"),
    ],
)
def test_a_repair_is_shown_denied_by_a_narrow_interval_or_left_open(difference, half, verdict):
    assert verdicts(results(contrast("repairs", difference, half)))["repairs"] == verdict


def test_a_head_that_is_as_good_on_a_random_encoder_ignores_the_upstream():
    assert verdicts(results(contrast("uses", 0.0, 0.015)))["uses"] == "RAN ignores the upstream"
    assert verdicts(results(contrast("uses", 0.05, 0.015)))["uses"] == claims.SHOWN
    weak = (GOOD_BED[0], contrast("worth_over_random", 0.04, 0.02), GOOD_BED[2])
    assert verdicts(results(contrast("uses", 0.0, 0.015), bed=weak))["uses"] == claims.CANNOT_TELL


@pytest.mark.parametrize(
    "weak",
    [
        contrast("worth_over_pixels", 0.09, 0.01),  # less than 10 points
        contrast("worth_over_random", 0.12, 0.08),  # lower end at 4
        contrast("damage", 0.04, 0.01),  # less than 5
    ],
)
def test_a_bed_that_fails_its_verdict_cannot_tell_whether_noise_is_repaired(weak):
    bed = [weak if one["endpoint"] == weak["endpoint"] else one for one in GOOD_BED]
    run = results(contrast("repairs", 0.005, 0.015), contrast("defends", -0.001), bed=bed)
    found = verdicts(run)
    assert found["repairs"] == claims.CANNOT_TELL
    assert found["defends"] == claims.NOT_SHOWN  # this is about heads, and any bed can tell
    verdict = bed_verdict.judge([run])
    assert [one.figure.name for one in verdict.figures.values() if not one.passes] == [weak["endpoint"]]
    assert verdict.lines()[0].startswith("This bed cannot tell whether RAN repairs upstream noise")


def test_nothing_is_repaired_where_no_damage_is_shown():
    bed = (*GOOD_BED[:2], contrast("damage", 0.01, 0.02))
    assert verdicts(results(contrast("repairs", 0.05), bed=bed))["repairs"] == claims.CANNOT_TELL


def test_the_verdict_says_what_pre_training_is_worth_what_noise_costs_and_how_small_a_repair_shows():
    run = results(contrast("repairs", 0.01, 0.023))
    verdict = bed_verdict.judge([run])
    first, worth, damage, repair = verdict.lines()
    assert first == "This bed can tell whether RAN repairs upstream noise."
    assert "14.0 [12.0, 16.0] points over raw pixels (at least 10, lower end above 5: passes)" in worth
    assert "13.0 [11.0, 15.0] points over a random encoder" in worth
    assert damage.startswith("30 % upstream noise costs 12.0 [10.0, 14.0] points")
    assert "a repair of at least 2.3 points" in repair
    document = json.loads(json.dumps(verdict.document()))
    assert document["least_repair"] == pytest.approx(0.023)
    assert document["figures"]["damage"]["passes"] is True
    # Without a control nothing passes in silence.
    lone = bed_verdict.judge([results(bed=GOOD_BED[1:])])
    assert "was not compared with raw pixels" in lone.lines()[0]
    assert bed_verdict.judge([{"contrasts": []}]) is None


def test_where_moderate_noise_costs_out_of_domain_it_is_said_whose_line_that_agrees_with():
    found = [one.sentence() for one in claims.claims([results(contrast("helps_ood", -0.04))])]
    assert any("agrees with NMTune's line (arXiv 2403.06869)" in words for words in found)


def test_a_share_of_the_damage_stands_beside_the_repair():
    half = {"value": 0.55, "low": 0.31, "high": 0.8}
    found = [one.sentence() for one in claims.claims([results(contrast("repairs", 0.06, share=half))])]
    assert any("55 [31, 80] % of what the noise costs the plain head" in words for words in found)


def test_a_split_of_one_class_speaks_to_no_claim():
    area = {"metric": "macro_auroc", "split": "ood_test"}
    items = [contrast("ood", 0.1), contrast("defends", 0.1)]
    assert verdicts(results(*items, rows=[{**area, "value": 0.6}]))["ood"] == claims.SHOWN
    assert verdicts(results(*items, rows=[{**area, "value": None}]))["ood"] == claims.NOT_RUN


def test_several_runs_are_pooled_by_students_interval_over_runs_and_held_against_the_margin():
    values = [0.004, 0.002, -0.001]
    runs = [results(contrast("costs_nothing", value, 0.001, p=0.9)) for value in values]
    (one,) = [one for one in claims.claims(runs) if one.endpoint.name == "costs_nothing"]
    reference = scipy.stats.ttest_1samp(values, -0.01)
    interval = reference.confidence_interval(0.95)
    assert (one.item["low"], one.item["high"]) == pytest.approx((interval.low, interval.high))
    assert one.item["p"] == pytest.approx(reference.pvalue)
    assert one.item["effect"] == pytest.approx(np.mean(values) / np.std(values, ddof=1))
    assert (one.runs, one.verdict) == (3, claims.SHOWN)
    # Runs that agree more closely than their own test images allow show nothing by that.
    alike = [results(contrast("hurts", -0.01, 0.02, p=0.9)) for _ in range(3)]
    assert verdicts(*alike)["hurts"] == claims.NOT_SHOWN
    assert verdicts(runs[0], results())["costs_nothing"] == claims.NOT_RUN
    assert claims.claims([{"contrasts": []}]) == []


def test_over_runs_the_heads_of_a_role_may_differ_and_shares_are_of_means():
    runs = [
        results(contrast("repairs", 0.06, share={"value": 0.5, "low": 0.1, "high": 0.9}, heads={"reference": head}))
        for head in ("mlp", "nmtune")
    ]
    (one,) = [one for one in claims.claims(runs) if one.endpoint.name == "repairs"]
    assert "RAN less MLP or NMTune at 30 % noise" in one.measured
    assert one.item["share"]["value"] == pytest.approx(0.5)
    assert bed_verdict.judge(runs).figures["damage"].item["runs"] == 2


def comparison(other, difference, low, high, p):
    return {
        "condition": "coattack", "ratio": 0.3, "a": "ran", "b": other, "task": "finding", "split": "test",
        "attack": "pgd", "metric": "accuracy", "difference": difference, "low": low, "high": high, "p": p, "n": 100,
    }  # fmt: skip


def test_what_a_part_of_ran_is_worth_is_told_by_run_and_over_runs():
    def without(term, difference, p):
        return comparison(f"ran_v1_without_{term}", difference, difference - 0.02, difference + 0.02, p)

    runs = [
        {"comparisons": [comparison("lp", 0.1, 0.0, 0.2, 0.01), without("filter", d, 0.001), without("mse", 0, 1)]}
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


def test_the_page_begins_with_the_verdict_then_has_each_claim_as_a_sentence_then_the_rest():
    controls = [
        fake.row(condition=name, ratio=0.0, method=method, value=value)
        for name, value in (("pixels", 0.35), ("random_init", 0.36))
        for method in ("lp", "ran")
    ]
    rows = [*controls, fake.row(condition="clean", ratio=0.0), fake.row(condition="coattack", ratio=0.3)]
    run = results(contrast("defends", 0.1), contrast("repairs", 0.01, 0.05), rows=rows)
    html, files = page.build(run, {})
    places = [html.index(f'<section id="{name}"') for name in ("verdict", "claims", "findings")]
    assert places == sorted(places)
    verdict = html[places[0] : places[1]]
    assert "This bed can tell whether RAN repairs upstream noise." in verdict
    assert '<th scope="col">Raw pixels</th>' in verdict
    assert "Random encoder" in verdict
    claimed = html[places[1] : places[2]]
    assert claimed.count('<li class="shown">') == 1
    assert claimed.count('<li class="unknown">') == 1
    assert "smallest difference that this table could have shown" in claimed
    assert {"data/verdict.csv", "data/claims.csv", "data/controls.csv"} <= set(files)
    # Controls are no condition without noise: no other table has them.
    assert "Raw pixels" not in html[places[2] :]
    told = claim_sections.terminal_claims(run)
    assert max(map(len, told.splitlines())) <= 100
    assert "✓ RAN defends against attacks: shown." in told
    assert claim_sections.terminal_claims({"rows": []}) == ""
    assert "| Claim | Measured |" in claim_sections.claims_table(claims.claims([run])).markdown()


def test_the_smallest_difference_that_a_table_could_have_shown_is_half_an_interval():
    items = [contrast("defends", 0.1, 0.02), contrast("ood", 0.1, 0.05)]
    assert "is 2.0 to 5.0 points, from line to line" in interval_notes.least_shown(items)
    assert interval_notes.least_shown([]) == ""


def test_runs_of_several_seeds_have_verdict_claims_and_controls_over_runs():
    def run(seed, **more):
        cells = [("pixels", 0.0, 0.35), ("random_init", 0.0, 0.36), ("clean", 0.0, 0.5), ("coattack", 0.3, 0.4)]
        rows = [fake.row(condition=name, ratio=ratio, value=value + seed / 100) for name, ratio, value in cells]
        return results(contrast("defends", 0.1), rows=rows, config={"seed": seed}, **more)

    written = pooling.markdown([run(0), run(1)], ["a", "b"])
    titles = [line.strip("*") for line in written.splitlines() if line.startswith("**")]
    assert titles[:2] == ["What this bed can tell", "The claims"]
    heads = written.partition("Accuracy of every head on every encoder, in domain, clean (%)")[2]
    assert "| Method | Raw pixels | Random encoder | No noise | 30 % noise |" in heads
    assert "| LP | 35.5 [" in heads
    main = written.partition("**Accuracy (%)**")[2]
    assert main.count("| 0 % | LP |") == 1
    old = pooling.markdown([{**run(seed), "contrasts": []} for seed in (0, 1)], ["a", "b"])
    assert "The claims" not in old
