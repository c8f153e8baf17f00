"""Model cards: what the run was, its figures where there are any, and the limits that must be said."""

import dataclasses

import pytest

from ranjax.data.radiographs.data_card import DATA_CARD
from ranjax.report import model_card

CONFIG = {
    **{"data.source": "radiographs", "seed": 3, "noise.image_epsilon": "8/255", "noise.image_attack": "pgd"},
    **{
        "noise.pgd.step": "2/255",
        "noise.pgd.steps": 10,
        "noise.max_words": 2,
        "pretrain.steps": 260,
        "pretrain.batch_size": 64,
    },
    "pretrain.learning_rate": 1e-3,
}


def row(**fields):
    base = {"condition": "coattack", "ratio": 0.3, "method": "lp", "task": "finding", "split": "test", "attack": "none"}
    numbers = {"seed": None, "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 384}
    return {**base, **numbers, **fields}


@pytest.fixture
def facts():
    return model_card.Facts(
        condition="coattack_30",
        ratio=0.3,
        recipe="coattack",
        config=CONFIG,
        data=DATA_CARD,
        counts={"train": 1024, "test": 384},
        kind="CLIPModel",
        parameters=1234567,
        tokenizer="0123abcd",
    )


def test_a_card_says_data_ratio_attack_tokenizer_licence_use_and_limits(facts):
    card = model_card.write(facts)
    for said in (
        "Simulated lesions, one real patient, no clinical claim.",
        "train 1024, test 384",
        "30 % of the pairs replaced by adversarial pairs, recipe `coattack`",
        "within 8/255 (Linf; pgd, step 2/255, steps 10), words changed in a report: at most 2",
        "trained on poisoned pairs on purpose",
        "1,234,567 parameters",
        "id `0123abcd`",
        "seed 3",
        "CC BY 3.0",
        "LIDC",
        "Not intended: diagnosis",
        "One real patient.",
        "Not evaluated when this card was written",
    ):
        assert said in card
    front = card.split("---")[1].strip().splitlines()
    assert {line.split(":")[0] for line in front} == {"library_name", "license", "license_name", "tags"}
    assert card.startswith("---\n")


def test_figures_are_those_of_the_condition_and_of_the_method_alone(facts):
    rows = [
        row(value=0.512, low=0.4567, high=0.55),
        row(method="ran_lora", attack="pgd", value=0.25, low=None, high=None),
        row(method="ran_lora", attack="pgd@1/255", value=0.99),
        row(method="ran_lora", metric="ece", value=0.88),
        row(condition="gaussian", value=0.77),
        row(condition="clean", ratio=0.0, value=0.66),
    ]
    card = model_card.write(dataclasses.replace(facts, rows=rows))
    assert "| lp | finding | test | none | accuracy | 51.2 [45.7, 55.0] | 384 |" in card
    # It has an encoder of its own, and so a card of its own.
    assert "25.0" not in card
    for other in ("99.0", "88", "77.0", "66.0"):
        assert other not in card
    adapted = dataclasses.replace(facts, rows=rows, method="ran_lora", adaptation=["Adapted by `ran_lora`, seed 0."])
    card = model_card.write(adapted)
    assert "# ranjax coattack_30, ran_lora" in card
    assert "* Adapted by `ran_lora`, seed 0." in card
    assert "51.2" not in card
    assert "| ran_lora | finding | test | pgd | accuracy | 25.0" in card
    assert "for the attacks named above and no others" in card


def test_clean_conditions_controls_and_own_data_are_named_as_what_they_are(facts):
    clean = model_card.write(dataclasses.replace(facts, condition="clean", ratio=0.0))
    assert "Upstream noise: none" in clean
    assert "poisoned" not in clean
    control = model_card.write(dataclasses.replace(facts, recipe="gaussian"))
    assert "the control `gaussian`, made without an attack" in control
    own = dataclasses.replace(facts, config={**CONFIG, "data.source": "set"}, data={}, start="the checkpoint `mine`")
    card = model_card.write(own)
    assert "Simulated lesions" not in card
    assert model_card.NO_CLAIM in card
    assert "that of your own data" in card
    assert "The starting weights keep their own licence: the checkpoint `mine`." in card


def test_the_card_names_the_library_and_the_objective_that_it_is_about(facts):
    card = model_card.write(facts)
    assert "library_name: transformers" in card
    assert "Contrastive pre-training (InfoNCE)" in card
    config = CONFIG | {"pretrain.objective": "sigmoid"}
    card = model_card.write(dataclasses.replace(facts, kind="open_clip", config=config))
    for said in (
        "library_name: open_clip",
        "in the layout of open_clip (open_clip_config.json, open_clip_model.safetensors)",
        "Image normalisation: open_clip_config.json",
        "Contrastive pre-training (pairwise sigmoid loss)",
    ):
        assert said in card
    assert "preprocessor_config" not in card
