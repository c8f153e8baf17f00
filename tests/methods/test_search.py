"""The search is the same for every method: a factor on its rate, one on its own terms or, without any, on its decay."""

import dataclasses

import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.methods import search
from ranjax.methods.method_settings import TERMS
from ranjax.methods.table import METHODS, settings_of
from ranjax.run.config import default_config

HERE, THERE = search.Variant(1.0, 1.0), search.Variant(2.0, 3.0)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.family in ("head", "tower")])
def test_methods_vary_in_rate_and_in_terms_or_decay(name):
    first = settings_of(default_config().adapt, name)
    varied = search.varied(first, THERE)
    assert search.varied(first, HERE) == first
    for rate in ("learning_rate", "head_learning_rate"):
        assert getattr(varied, rate, 0) == 2 * getattr(first, rate, 0)
    if not hasattr(first, "ce"):  # a closed form: there is no rate, and validation chooses its penalty
        assert varied == first
        return
    # A term stays as it is where it is the whole loss, and clean cross-entropy always does.
    fixed = "ce" if first.ce else "defence_ce" if first.defence_ce else "defence_kl"
    own = [term for term in (*TERMS, "pull") if term != fixed and getattr(first, term, 0)]
    assert varied.weight_decay == first.weight_decay * (1 if own else 3)
    for term in TERMS:
        assert getattr(varied, term) == getattr(first, term) * (3 if term in own else 1)
    assert getattr(varied, "pull", 0) == 3 * getattr(first, "pull", 0)


@pytest.mark.parametrize(
    ("terms", "fixed", "decay"),
    [
        (("ce", "svd", "defence_ce"), "ce", 1),
        (("defence_ce", "defence_kl"), "defence_ce", 1),
        (("defence_ce",), "", 3),
        (("defence_kl",), "", 3),
    ],
)
def test_strength_never_multiplies_the_whole_loss_which_adamw_would_not_feel(terms, fixed, decay):
    weights = {term: 0.5 * (term in terms) for term in TERMS}
    first, varied = (
        search.varied(dataclasses.replace(METHODS["ran_lora"].settings, **weights), point) for point in (HERE, THERE)
    )
    factors = {t: getattr(varied, t) / getattr(first, t) for t in terms}
    assert factors == {t: pytest.approx(1 if t == fixed or len(terms) == 1 else 3) for t in terms}
    assert varied.weight_decay == decay * first.weight_decay


@pytest.mark.parametrize(
    ("method", "name", "value", "words"),
    [
        ("lora", "rank", 8, "1 to 7"),
        ("ran_lora", "rank", 8, "1 to 7"),
        ("lora", "targets", (r"^vision/.*/kernel$", "^vison/"), "'^vison/'"),
        ("lora", "targets", ("scale$",), "some matrix"),
        ("fft", "trainable", ("^visual_projection/",), "'^visual_projection/'"),
    ],
)
def test_what_finds_nothing_to_train_in_an_encoder_is_refused_before_that_is_trained(method, name, value, words):
    params = {"vision": {"mlp": {"kernel": np.ones((8, 16), np.float32), "scale": np.ones(8, np.float32)}}}
    adapt = default_config().adapt
    adapt.lora.targets = adapt.ran_lora.targets = ("^vision/.*/kernel$",)
    adapt.fft.trainable = ("^vision/",)
    adapt.methods = ("lp", "ran", "ttc", "lora", "ran_lora", "fft")
    search.check_scopes(adapt, params)
    adapt[method][name] = value
    with pytest.raises(ConfigError) as error:
        search.check_scopes(adapt, params)
    assert error.value.key == f"adapt.{method}.{name}"
    assert words in str(error.value)
    adapt.methods = ("lp", "ran", "ttc")
    search.check_scopes(adapt, params)  # methods that train no tower ignore its keys
