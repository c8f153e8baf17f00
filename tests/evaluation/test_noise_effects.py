"""Differences between conditions: which pairs are formed, and which would say nothing of the noise."""

import types

import numpy as np
import pytest

from ranjax.core.errors import DataError
from ranjax.methods.table import METHODS
from ranjax.run.stages.evaluation import evaluated_encoder, noise_effects


def test_noise_is_held_against_the_clean_condition_but_not_by_images_of_the_surrogate():
    rng = np.random.default_rng(0)

    def answers(share):
        return {
            ("finding", "test", attack, method): rng.random((2, 40)) < share
            for attack in ("none", "pgd", "worst@2/255", "transfer")
            for method in ("lp", "ran")
        }

    conditions = [
        noise_effects.Condition("clean", 0.0, answers(0.8)),
        noise_effects.Condition("coattack", 0.3, answers(0.5)),
    ]
    conditions.append(noise_effects.Condition("gaussian", 0.3, answers(0.6)))
    found = noise_effects.effects(conditions, 50, 0)
    assert {(one["kind"], one["attack"]) for one in found} == {
        *(("noise", attack) for attack in ("none", "pgd")),
        *(("recipe", attack) for attack in ("none", "pgd", "transfer")),
        *(("restored", attack) for attack in ("none", "pgd")),
    }
    (one,) = [
        item
        for item in found
        if (item["kind"], item["condition"], item["method"], item["attack"]) == ("noise", "coattack", "lp", "none")
    ]
    key = ("finding", "test", "none", "lp")
    assert one["difference"] == np.mean(conditions[1].answers[key].astype(float) - conditions[0].answers[key])
    assert {item["method"] for item in found if item["kind"] == "restored"} == {"ran"}


def test_a_head_of_another_encoder_is_refused_by_name():
    variables = {"params": {"classifier": {"kernel": np.zeros((5, 28, 8)), "bias": np.zeros((5, 8))}}}
    settings, encoders = METHODS["lp"].settings, [types.SimpleNamespace(width_of=lambda kind, n=n: n) for n in (28, 32)]
    assert evaluated_encoder._deploy_head("lp", settings, variables, encoders[0], 8, questions=False).seeds == 5
    with pytest.raises(DataError, match=r"the head of 'lp' takes 28 features .* the encoder gives 32"):
        evaluated_encoder._deploy_head("lp", settings, variables, encoders[1], 8, questions=False)
