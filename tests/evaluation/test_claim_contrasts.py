"""The contrasts of claims: which heads and encoders stand for a role, and the same figure computed another way."""

import dataclasses

import numpy as np
import pytest

from ranjax.evaluation import statistics
from ranjax.methods.table import METHODS
from ranjax.report import claim_table
from ranjax.run.stages.evaluation import claim_contrasts
from ranjax.run.stages.evaluation.noise_effects import Condition

HEADS = ("lp", "lp_filter", "mlp", "nmtune", "ran")
RIGHT = {"clean": 0.7, 0.1: 0.65, 0.3: 0.5, "pixels": 0.4, "random_init": 0.35}


def condition(name, ratio, seed, attacked=True):
    random, share = np.random.default_rng(seed), RIGHT[ratio or name]
    answers = {}
    for head in HEADS:
        for split in ("test", "ood_test"):
            answers["finding", split, "none", head] = random.random((3, 200)) < share
        if attacked:
            answers["finding", "test", "pgd", head] = random.random((1, 64)) < share / (2 if head == "lp_filter" else 4)
            answers["finding", "test", "pgd@0", head] = random.random((1, 64)) < share
    return Condition(name, ratio, answers)


def conditions(*ratios):
    controls = [condition("pixels", 0.0, 8, attacked=False), condition("random_init", 0.0, 9, attacked=False)]
    noisy = [condition("coattack", ratio, seed) for seed, ratio in enumerate(ratios, start=1)]
    return [condition("clean", 0.0, 0), *noisy, condition("gaussian", 0.3, 7), *controls]


def settings(**changes):
    return {name: dataclasses.replace(METHODS[name].settings, **changes.get(name, {})) for name in HEADS}


def roles(found, validation=None, filtered=True, **changes):
    scores = {"lp": 0.4, "lp_filter": 0.5, "mlp": 0.6, "nmtune": 0.55, "ran": 0.9}
    every = {(one.name, one.ratio): scores for one in found} | (validation or {})
    return claim_contrasts.Roles(found, settings(**changes), every, filtered)


def contrasts(found, **more):
    entries = claim_contrasts.contrasts(roles(found, **more), {"accuracy": 0.125, "majority/test": 0.2}, 100, 0)
    return {entry["endpoint"]: entry for entry in entries}


def test_the_repair_is_the_difference_of_two_differences_on_the_same_images_and_seeds():
    found = conditions(0.1, 0.3)
    entry = contrasts(found)["repairs"]
    clean, most = (one.answers for one in (found[0], found[2]))

    def gap(answers):
        return answers["finding", "test", "none", "ran"].astype(float) - answers["finding", "test", "none", "mlp"]

    assert entry["difference"] == pytest.approx((gap(most) - gap(clean)).mean())
    assert (entry["ratio"], entry["condition"], entry["n"], entry["seeds"]) == (0.3, "coattack", 200, 3)
    assert entry["heads"] == {"ran": "ran", "reference": "mlp"}
    damage = (clean["finding", "test", "none", "mlp"].mean() - most["finding", "test", "none", "mlp"].mean()).item()
    assert entry["share"]["value"] == pytest.approx(entry["difference"] / damage)
    half = contrasts(found)["repairs_half"]
    assert half["difference"] == pytest.approx(entry["difference"] - damage / 2)


def test_a_contrast_of_two_terms_is_the_paired_difference():
    found = conditions(0.3)
    entry = contrasts(found)["uses"]
    pair = (one.answers["finding", "test", "none", "ran"] for one in (found[1], found[-1]))
    plain = statistics.paired_difference(*pair, 100)
    assert (entry["difference"], entry["low"], entry["high"], entry["p"]) == pytest.approx(
        (plain.value, plain.low, plain.high, plain.p)
    )
    assert entry["first"]["value"] == found[1].answers["finding", "test", "none", "ran"].mean()


def test_each_encoder_has_its_own_best_plain_head_and_the_strongest_is_that_of_the_clean_one():
    entry = contrasts(conditions(0.3), validation={("pixels", 0.0): {"lp": 0.7, "mlp": 0.6, "ran": 0.9}})
    assert entry["worth_over_pixels"]["heads"] == {"strongest": "mlp", "plain": "lp"}
    assert entry["worth_over_random"]["heads"] == {"strongest": "mlp", "plain": "mlp"}
    assert entry["damage"]["heads"] == {"strongest": "mlp"}


def test_heads_with_terms_of_a_defence_are_not_plain():
    given = roles(conditions(0.3), mlp={"defence_ce": 1.0})
    clean = given.encoder(claim_table.CLEAN)
    endpoint = claim_table.CLAIMS[0].primary
    assert given.head(claim_table.STRONGEST, clean, endpoint, "none") == "nmtune"
    assert given.head(claim_table.PLAIN, clean, endpoint, "none") == "nmtune"


def test_ran_is_held_against_the_most_accurate_other_head_behind_its_filter():
    entry = contrasts(conditions(0.3))["defends"]
    assert entry["heads"] == {"ran": "ran", "other": "lp_filter"}
    assert (entry["attack"], entry["n"], entry["chance"]) == ("pgd", 64, 0.2)
    # Without a filter every head reads what RAN reads.
    found = conditions(0.3)
    means = {head: found[1].answers["finding", "test", "pgd", head].mean() for head in HEADS if head != "ran"}
    assert contrasts(found, filtered=False)["defends"]["heads"]["other"] == max(means, key=means.get)


@pytest.mark.parametrize(
    ("ratios", "there", "absent"),
    [
        ((0.1, 0.3), {"helps_ood": 0.1, "hurts": 0.3, "repairs": 0.3}, ()),
        ((0.1,), {"helps_ood": 0.1, "repairs": 0.1}, ("hurts",)),
        ((0.3,), {"hurts": 0.3, "repairs": 0.3}, ("helps_ood",)),
    ],
)
def test_the_only_noisy_ratio_speaks_to_the_claim_of_its_size(ratios, there, absent):
    found = contrasts(conditions(*ratios))
    assert {name: found[name]["ratio"] for name in there} == there
    assert not {*absent} & {*found}


def test_without_noise_heads_are_compared_on_the_clean_encoder_and_nothing_is_said_of_noise():
    found = contrasts([one for one in conditions() if one.name != "gaussian"])
    assert found["costs_nothing"]["ratio"] == 0
    assert {"worth_over_pixels", "uses", "defends"} <= set(found)
    assert not {"damage", "repairs", "hurts", "helps_ood"} & set(found)


def test_controls_and_heads_that_a_run_lacks_are_left_out():
    found = contrasts([one for one in conditions(0.3) if one.name not in ("pixels", "random_init")])
    assert not {"worth_over_pixels", "worth_over_random", "uses"} & set(found)
    assert "damage" in found


def test_rans_counterpart_is_the_plain_head_of_its_kind_that_has_most_in_common_with_it():
    names = ("lp", "lp_filter", "ridge", "ridge_tokens", "ridge_copies", "robust_ridge", "ran")
    found = conditions(0.3)
    given = claim_contrasts.Roles(found, {name: METHODS[name].settings for name in names}, {}, True)
    ran, copies, tokens = (METHODS[name].settings for name in ("ran", "ridge_copies", "ridge_tokens"))
    assert ran.copies == copies.copies != tokens.copies
    endpoint = claim_table.CLAIMS[0].primary
    assert given.head(claim_table.COUNTERPART, found[1], endpoint, "none") == "ridge_copies"
    without = {name: METHODS[name].settings for name in names if name != "ridge_copies"}
    fewer = claim_contrasts.Roles(found, without, {}, True)
    assert fewer.head(claim_table.COUNTERPART, found[1], endpoint, "none") == "ridge_tokens"
