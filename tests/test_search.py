"""The search is the same for every method: a factor on its rate, one on its own terms or, without any, on its decay."""

import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.methods.head_methods import METHODS
from ranjax.methods.tower_methods import TUNED
from ranjax.run.config import default_config
from ranjax.run.stages import search_grid as adapt_search
from ranjax.run.stages.adapted_encoder import method_of, tuned_of

HERE, THERE = adapt_search.Variant(1.0, 1.0), adapt_search.Variant(2.0, 3.0)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_heads_vary_in_rate_and_in_terms_or_decay(name):
    first = method_of(default_config().adapt, name)
    moved = adapt_search.varied(first, THERE)
    assert adapt_search.varied(first, HERE) == first
    assert moved.learning_rate == 2 * first.learning_rate
    own = {term: w for term, w in first.weights._asdict().items() if term != "ce" and w} if first.weights.ce else {}
    assert moved.weight_decay == first.weight_decay * (1 if own else 3)
    assert moved.weights == first.weights._replace(**{term: 3 * w for term, w in own.items()})


@pytest.mark.parametrize("name", sorted(TUNED))
def test_methods_of_the_encoder_vary_alike(name):
    config = default_config().adapt
    method = tuned_of(config, name)
    first, moved = (adapt_search.tune_settings(config, method, point) for point in (HERE, THERE))
    for rate in ("learning_rate", "lora_rate", "head_rate"):
        assert getattr(moved, rate) == 2 * getattr(first, rate)
    own = method.objective in ("ran", "pmg_aft")
    assert moved.weight_decay == first.weight_decay * (1 if own else 3)
    assert (moved.pull, moved.weights.mse, moved.weights.ce) == (3, 3 * first.weights.mse, first.weights.ce)


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
    config = default_config().adapt
    config.lora_terms = terms
    method = tuned_of(config, "ran_lora")
    first, moved = (adapt_search.tune_settings(config, method, point) for point in (HERE, THERE))
    factors = {t: getattr(moved.weights, t) / getattr(first.weights, t) for t in terms}
    assert factors == {t: pytest.approx(1 if t == fixed or len(terms) == 1 else 3) for t in terms}
    assert moved.weight_decay == decay * first.weight_decay


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lora_rank", 8, "1 to 7"),
        ("lora_targets", (r"^vision/.*/kernel$", "^vison/"), "'^vison/'"),
        ("lora_targets", ("scale$",), "some matrix"),
        ("tune_trainable", ("^visual_projection/",), "'^visual_projection/'"),
    ],
)
def test_what_finds_nothing_to_train_in_an_encoder_is_refused_before_that_is_trained(key, value, words):
    params = {"vision": {"mlp": {"kernel": np.ones((8, 16), np.float32), "scale": np.ones(8, np.float32)}}}
    adapt = default_config().adapt
    adapt.lora_targets, adapt.tune_trainable = ("^vision/.*/kernel$",), ("^vision/",)
    adapt.methods = ("lp", "ran", "ttc", "lora", "ran_lora", "fft")
    adapt_search.check_scopes(adapt, params)
    adapt[key] = value
    with pytest.raises(ConfigError) as error:
        adapt_search.check_scopes(adapt, params)
    assert error.value.key == f"adapt.{key}"
    assert words in str(error.value)
    adapt.methods = ("lp", "ran", "ttc")
    adapt_search.check_scopes(adapt, params)  # who trains no tower does not care
