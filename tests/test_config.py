"""The configuration: every key documented and checked, wrong values refused with key, value, what is allowed."""

import dataclasses
import re

import pytest

from ranjax.core.errors import ConfigError
from ranjax.methods.table import settings_of
from ranjax.run import config as configs
from ranjax.run.schema import adapt_keys


@pytest.fixture
def config():
    return configs.default_config()


def test_defaults_are_valid_and_every_key_says_what_it_means(config):
    configs.validate(config)
    for key in configs.KEYS:
        assert key.meaning.endswith((".", "?")), key.name
    assert len(configs.BY_NAME) == len(configs.KEYS)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pretrain.steps", "500", 500),
        ("pretrain.steps", "1e3", 1000),
        ("pretrain.learning_rate", "3e-4", 3e-4),
        ("noise.protect", "false", False),
        ("noise.ratios", "(0.0, 0.5)", (0.0, 0.5)),
        ("noise.ratios", "0,0.05", (0.0, 0.05)),
        ("noise.image_epsilon", "4/255", "4/255"),
        ("adapt.methods", "('lp', 'ran')", ("lp", "ran")),
        ("adapt.methods", "lp, ran", ("lp", "ran")),
    ],
)
def test_override_reads_text_as_the_keys_type(config, name, text, expected):
    configs.override(config, name, text)
    assert configs.flatten(config)[name] == expected
    configs.validate(config)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pretrain.step", "5", "did you mean 'pretrain.steps'?"),
        ("pretrain.steps", "many", "a whole number"),
        ("pretrain.steps", "1.5", "a whole number"),
        ("pretrain.steps", "0", "at least 1"),
        ("noise.image_epsilon", "8", "not 0 to 255"),
        ("noise.image_epsilon", "-0.1", "pixel units"),
        ("noise.image_epsilon", "1/0", "pixel units"),
        ("noise.ratios", "(0.1, 0.3)", "begin with 0.0"),
        ("noise.ratios", "(0.0, 0.3, 0.1)", "rise"),
        ("noise.recipe", "coatack", "coattack"),
        ("noise.protect", "maybe", "true or false"),
        ("adapt.methods", "('lp', 'rann')", "'ran'"),
        ("adapt.methods", "lp,zero_shot", "another method: it is always evaluated"),
        ("data.image_size", "inf", "a whole number"),
        ("pretrain.learning_rate", "nan", "above 0"),
        ("pretrain.learning_rate", "inf", "a finite number"),
        ("adapt.ran_v1.mse", "inf", "a finite number"),
        ("adapt.lp.penalties", "(1.0, -1.0)", "different numbers above 0"),
        ("adapt.mlp.features", "token", "did you mean 'tokens'?"),
        ("adapt.step", "0", "above 0"),
        ("seed", "1e20", "from 0 to 4294967295"),
        ("pretrain.trainable", "('vision/(',)", "regular expressions"),
        ("adapt.lora.targets", "('',)", "at least one regular expression"),
    ],
)
def test_what_is_not_allowed_is_refused_with_key_value_and_what_is(config, name, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        configs.override(config, name, text)
    assert str(error.value).startswith(name)
    assert error.value.key == name


@pytest.mark.parametrize(
    ("keys", "named", "words"),
    [
        (
            {"adapt.ran_v1.mse": "0", "adapt.methods": "ran_v1,ran_v1_without_mse"},
            "adapt.methods",
            "here adapt.ran_v1.mse = 0.0",
        ),
        ({"adapt.filter": "0", "adapt.methods": "ran_v1_without_filter"}, "adapt.methods", "here adapt.filter = 0.0"),
        ({"adapt.filter": "0", "adapt.methods": "lp,lp_filter"}, "adapt.filter", "holds 'lp_filter'"),
        (
            {"adapt.methods": "ran_lora_without_mse"},
            "adapt.methods",
            "a part that RAN (LoRA) has to leave out; here adapt.ran_lora.mse = 0.0",
        ),
        (
            {"adapt.methods": "ran_lora", "adapt.ran_lora.defence_ce": "0", "adapt.ran_lora.defence_kl": "0"},
            "adapt.methods",
            "at least one weight above 0 among adapt.ran_lora",
        ),
        (
            {"adapt.methods": "ran_lora_without_defence_kl", "adapt.ran_lora.defence_ce": "0"},
            "adapt.methods",
            "at least one weight above 0",
        ),
    ],
)
def test_a_method_that_lacks_what_it_is_about_is_refused(config, keys, named, words):
    for key, text in keys.items():
        configs.override(config, key, text)
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        configs.validate(config)
    assert error.value.key == named


@pytest.mark.parametrize(
    ("key", "value"), [("noise.ratios", ("0.1",)), ("adapt.search_rates", (True,)), ("adapt.lora.targets", (1,))]
)
def test_a_tuple_of_another_type_is_refused(config, key, value):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match="values of type") as error:
        configs.validate(config)
    assert error.value.key == key


def test_sizes_that_given_weights_decide_are_named_and_no_others(config):
    assert configs.notes(config) == []
    for name in ("embed_dim", "vit.width", "text_transformer.layers"):
        configs.override(config, f"model.{name}", "64")
    assert configs.notes(config) == []
    configs.override(config, "model.weights", "clip")
    said = configs.notes(config)
    assert len(said) == 3
    assert "model.embed_dim = 64 is not used: model.weights = 'clip' decides it" in said
    configs.override(config, "model.weights", "")
    configs.override(config, "model.text_weights", "bert")
    assert configs.notes(config) == [
        "model.text_transformer.layers = 64 is not used: model.text_weights = 'bert' decides it"
    ]
    configs.override(config, "model.image_weights", "resnet")
    assert [note.split()[0] for note in configs.notes(config)] == ["model.text_transformer.layers", "model.vit.width"]


def test_a_variant_has_its_bases_settings_but_for_what_it_changes(config):
    config.adapt.ran_lora.ce, config.adapt.ran_v1.cov, config.adapt.lp.penalties = 1.0, 0.5, (0.25, 2.0)
    config.adapt.methods = (
        *("lp", "lp_filter", "ran_wide", "ran_v1_without_mse", "ran_lora", "ran_lora_without_defence_kl"),
    )
    configs.validate(config)
    lp, filtered, wide, ablated, whole, less = (settings_of(config.adapt, name) for name in config.adapt.methods)
    assert filtered == dataclasses.replace(lp, filtered=True)
    assert lp.penalties == (0.25, 2.0)
    assert (wide.cov, wide.head, wide.learning_rate) == (0.5, "residual", 1e-3)
    assert (ablated.cov, ablated.mse) == (0.5, 0.0)
    assert less == dataclasses.replace(whole, defence_kl=0.0)
    assert list(whole.terms) == ["ce", "defence_ce", "defence_kl"]


@pytest.mark.parametrize(("old", "new"), sorted(adapt_keys.RENAMED.items()))
def test_an_old_key_of_a_method_is_refused_with_its_new_name(config, old, new):
    with pytest.raises(ConfigError, match=re.escape(new)) as error:
        configs.override(config, old, "1")
    assert error.value.key == old
    named = re.findall(r"adapt\.[a-z_.]+\b", new)
    assert all(name in configs.BY_NAME or name == "adapt.methods" for name in named)


@pytest.mark.parametrize("key", ["model.image_tower", "model.text_tower", "noise.recipe"])
def test_one_entry_has_to_be_named_where_a_run_needs_one(config, key):
    configs.override(config, key, "")
    with pytest.raises(ConfigError, match=rf"^{key} = '': expected an? \w+ \("):
        configs.validate(config)


def test_a_whole_checkpoint_and_a_text_tower_exclude_each_other(config):
    config.model.weights = config.model.text_weights = "somewhere"
    with pytest.raises(ConfigError, match=r"model\.text_weights = 'somewhere': expected empty where"):
        configs.validate(config)


def test_a_config_file_with_a_wrong_type_or_a_missing_key_is_refused(config):
    with config.unlocked():
        config.pretrain = type(config)({"steps": 5})
    with pytest.raises(ConfigError, match=r"pretrain\.batch_size"):
        configs.validate(config)
    config = configs.default_config()
    with config.unlocked():
        config["stepz"] = 3
    with pytest.raises(ConfigError, match="stepz"):
        configs.validate(config)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model.vit.heads": "5"}, "model.vit.heads"),
        ({"model.vit.patch_size": "7"}, "model.vit.patch_size"),
        ({"pretrain.batch_size": "100000"}, "pretrain.batch_size"),
        ({"data.source": "set"}, "data.set.name"),
        ({"data.source": "set", "data.set.name": "table"}, "data.set.data_dir"),
        ({"data.source": "prepared"}, "data.prepared.dir"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(config, changes, name):
    for key, text in changes.items():
        configs.override(config, key, text)
    with pytest.raises(ConfigError) as error:
        configs.validate(config)
    assert error.value.key == name


def test_describe_lists_every_key_with_its_value_and_meaning(config):
    configs.override(config, "pretrain.steps", "77")
    text = configs.describe(config)
    for key in configs.KEYS:
        assert key.name in text
        assert key.meaning in text
    choices = text.split("adapt.class_weights = ")[1].splitlines()[2]
    assert choices == "    Allowed: one of 'none', 'balanced'."
    assert (
        "names out of 'zero_shot', 'lp', 'lp_filter', 'ridge', 'mlp'"
        in text.split("adapt.methods = ")[1].splitlines()[2]
    )
    assert f"pretrain.steps = 77  [steps]  (default {configs.BY_NAME['pretrain.steps'].default})" in text


def test_load_names_what_is_wrong_with_a_config_file(tmp_path):
    with pytest.raises(ConfigError, match="that exists"):
        configs.load(str(tmp_path / "ran.py"))
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="get_config"):
        configs.load(str(empty))
    plain = tmp_path / "plain.py"
    plain.write_text("from ranjax.run.config import default_config as get_config\n")
    assert configs.load(str(plain)) == configs.default_config()
    with pytest.raises(ConfigError, match="no argument"):
        configs.load(f"{plain}:smoke")


def test_settings_of_a_method_that_is_not_fitted_are_named(config):
    for name in ("lora.rank", "ran_v1.cov", "lp.penalties"):
        configs.override(config, f"adapt.{name}", "3")
    assert configs.notes(config) == [
        "adapt.ran_v1.cov = 3.0 is not used: adapt.methods does not name 'ran_v1'",
        "adapt.lora.rank = 3 is not used: adapt.methods does not name 'lora'",
    ]
    # A variant has its base's settings; a probe that defence examples attack is a linear one.
    config.adapt.methods = ("at_lora", "lora_filter", "ran_v1_without_mse")
    assert [note.split()[0] for note in configs.notes(config)] == ["adapt.lp.penalties"]
    config.adapt.defence_source = "probe"
    assert configs.notes(config) == []
