"""Conditions without pre-training: their place in the plan, their encoders, and the methods that are fitted on them."""

import jax
import numpy as np
import pytest

from experiments.reliability import tiny
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run import plan as planning
from ranjax.run.context import context_of
from ranjax.run.stages import condition_encoders
from ranjax.run.stages.pretrain import first_weights
from ranjax.training.devices import make_mesh


@pytest.fixture
def config():
    return configs.default_config()


def fingerprints(config):
    return planning.fingerprints(config, planning.plan(config))


def test_each_control_is_adapted_and_evaluated_from_the_prepared_set_alone(config):
    runs = {run.id: run for run in planning.plan(config)}
    for name in ("pixels", "random_init"):
        assert f"pretrain/{name}" not in runs
        assert runs[f"adapt/{name}"].needs == ("prepare",)
        assert runs[f"evaluate/{name}"].needs == ("prepare", f"adapt/{name}")
        assert runs[f"evaluate/{name}"].ratio == 0
        assert f"evaluate/{name}" in runs["report"].needs


def test_controls_come_and_go_without_touching_other_conditions(config):
    before = fingerprints(config)
    configs.override(config, "adapt.controls", "()")
    configs.validate(config)
    after = fingerprints(config)
    gone = {f"{stage}/{name}" for stage in ("adapt", "evaluate") for name in ("pixels", "random_init")}
    assert set(before) - set(after) == gone
    assert all(after[name] == before[name] for name in after if name != "report")


@pytest.mark.parametrize(
    ("key", "text", "moved", "kept"),
    [
        ("pretrain.steps", "9", (), ("pixels", "random_init")),
        ("noise.max_words", "1", (), ("pixels", "random_init")),
        ("model.vit.width", "64", ("random_init",), ("pixels",)),
        ("adapt.epochs", "7", ("pixels", "random_init"), ()),
    ],
)
def test_a_control_is_decided_by_what_it_is_made_of(config, key, text, moved, kept):
    before = fingerprints(config)
    configs.override(config, key, text)
    after = fingerprints(config)
    assert all(before[f"adapt/{name}"] != after[f"adapt/{name}"] for name in moved)
    assert all(before[f"evaluate/{name}"] == after[f"evaluate/{name}"] for name in kept)


def test_methods_without_a_head_have_no_controls(config):
    configs.override(config, "adapt.methods", "('lora',)")
    assert not planning.controls(config)


@pytest.mark.parametrize(
    ("text", "words"), [("('pixel',)", "did you mean 'pixels'"), ("('pixels','pixels')", "different names")]
)
def test_a_control_that_is_unknown_or_named_twice_is_refused(config, text, words):
    with pytest.raises(ConfigError, match=rf"adapt\.controls.*{words}"):
        configs.override(config, "adapt.controls", text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny run's config and workdir, prepared and no more."""
    config, workdir = tiny.get_config(), tmp_path_factory.mktemp("controls")
    configs.override(config, "adapt.methods", "('lp','ran','lora')")
    mesh = make_mesh(1)
    pipeline.execute(config, workdir, mesh=mesh, stop=lambda: False, say=lambda line: None, until="prepare")
    return config, workdir, mesh


def context(prepared, run_id):
    config, workdir, mesh = prepared
    run = next(run for run in planning.plan(configs.typed(config)) if run.id == run_id)
    return context_of(config, workdir, run, mesh, {})


def test_the_random_encoder_is_the_one_before_the_first_step(prepared):
    _, first = first_weights(context(prepared, "pretrain/clean"))
    functions, params = condition_encoders.condition_encoder(context(prepared, "adapt/random_init"), "random_init")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, params))
    assert functions.config.embed_dim == prepared[0].model.embed_dim


def test_heads_alone_are_fitted_on_a_control(prepared):
    here = context(prepared, "adapt/pixels")
    assert list(condition_encoders.methods_of(here, "pixels")) == ["lp", "ran"]
    assert list(condition_encoders.methods_of(here, "clean")) == ["lp", "ran", "lora"]
