"""The pipeline: its plan, what decides a stage, what is skipped, refused, set aside, and locked."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from ranjax.core import files, lock
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run import plan as planning
from ranjax.run.context import PARTS, Context, Stopped


@pytest.fixture
def config():
    return configs.default_config()


def _execute(config, workdir, runs, monkeypatch, **options):
    monkeypatch.setattr(pipeline, "plan", lambda config: runs)
    said = []
    options = {"stop": lambda: False, **options}
    pipeline.execute(config, workdir, mesh=None, say=said.append, **options)
    return said


def _stage(name, ran, needs=(), keys=("seed",), condition=""):
    def run(context):
        ran.append(context.stage_run.id)
        return {"ran": len(ran)}

    return planning.StageRun(name, condition, 0.0, needs, keys, run)


def test_the_plan_walks_from_left_to_right_and_each_run_finds_what_it_needs(config):
    runs = planning.plan(config)
    ids = [run.id for run in runs]
    assert ids[:3] == ["prepare", "pretrain/clean", "craft"]
    assert ids[-1] == "report"
    assert "pretrain/coattack_10" in ids
    assert "evaluate/coattack_30" in ids
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(ids[:place])


def test_a_clean_grid_crafts_nothing(config):
    configs.override(config, "noise.ratios", "(0.0,)")
    assert "craft" not in [run.id for run in planning.plan(config)]


@pytest.mark.parametrize(
    ("key", "text", "moved", "kept"),
    [
        ("adapt.epochs", "7", "adapt/clean", "pretrain/coattack_30"),
        ("noise.max_words", "1", "pretrain/coattack_10", "pretrain/clean"),
        ("pretrain.steps", "9", "craft", "prepare"),
        ("data.radiographs.test", "64", "prepare", None),
        ("evaluate.apgd_ce.steps", "3", "report", "adapt/coattack_10"),
    ],
)
def test_a_key_moves_the_fingerprints_of_what_it_decides_and_of_what_stands_on_that(config, key, text, moved, kept):
    before = planning.fingerprints(config, planning.plan(config))
    configs.override(config, key, text)
    after = planning.fingerprints(config, planning.plan(config))
    assert before[moved] != after[moved]
    assert kept is None or before[kept] == after[kept]


@pytest.mark.parametrize("key", ["pretrain.log_every", "data.set.data_dir", "data.dir", "devices"])
def test_keys_that_decide_no_result_move_nothing(config, key):
    before = planning.fingerprints(config, planning.plan(config))
    configs.override(config, key, "3")
    assert before == planning.fingerprints(config, planning.plan(config))


def test_another_ratio_keeps_the_pretraining_of_the_ratios_below(config):
    before = planning.fingerprints(config, planning.plan(config))
    configs.override(config, "noise.ratios", "(0.0, 0.2, 0.3)")
    after = planning.fingerprints(config, planning.plan(config))
    assert before["pretrain/coattack_30"] == after["pretrain/coattack_30"]


def test_what_is_done_is_skipped_and_what_was_cut_off_is_taken_up_again(config, tmp_path, monkeypatch):
    ran = []
    first, second = _stage("prepare", ran), _stage("report", ran, ("prepare",))

    def cut(context):
        (context.folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _execute(config, tmp_path, (first, dataclasses.replace(second, run=cut)), monkeypatch)
    assert ran == ["prepare"]
    assert not (tmp_path / "report" / "manifest.json").exists()
    said = _execute(config, tmp_path, (first, second), monkeypatch)
    assert ran == ["prepare", "report"]
    assert (tmp_path / "report" / "half").exists()
    assert any("prepare: done before, skipped" in line for line in said)
    assert files.read_json(tmp_path / "report" / "manifest.json")["ran"] == 2


def test_a_stop_between_stages_says_where_it_stands(config, tmp_path, monkeypatch):
    ran = []
    runs = (_stage("prepare", ran), _stage("report", ran))
    with pytest.raises(Stopped, match="before report"):
        _execute(config, tmp_path, runs, monkeypatch, stop=lambda: bool(ran))
    assert ran == ["prepare"]


def test_a_workdir_of_another_config_is_refused_naming_key_then_and_now_and_nothing_is_touched(
    config, tmp_path, monkeypatch
):
    ran = []
    runs = (_stage("prepare", ran, keys=("seed", "adapt")), _stage("report", ran, ("prepare",)))
    _execute(config, tmp_path, runs, monkeypatch)
    before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*.json"))
    configs.override(config, "adapt.epochs", "7")
    with pytest.raises(ConfigError, match=r"adapt\.epochs: 40 then, 7 now.*--redo"):
        _execute(config, tmp_path, runs, monkeypatch)
    assert before == sorted((p, p.read_bytes()) for p in tmp_path.rglob("*.json"))
    assert ran == ["prepare", "report"]


def test_redo_sets_the_stages_that_differ_aside_and_loses_nothing(config, tmp_path, monkeypatch):
    ran = []
    runs = (_stage("prepare", ran), _stage("adapt", ran, ("prepare",), ("adapt",), "clean"))
    _execute(config, tmp_path, runs, monkeypatch)
    old = (tmp_path / "adapt" / "clean" / "manifest.json").read_bytes()
    configs.override(config, "adapt.epochs", "7")
    _execute(config, tmp_path, runs, monkeypatch, redo=True)
    assert ran == ["prepare", "adapt/clean", "adapt/clean"]
    assert (tmp_path / "superseded" / "1" / "adapt" / "clean" / "manifest.json").read_bytes() == old


def test_a_second_run_on_one_workdir_is_refused_with_the_firsts_process(tmp_path):
    with lock.locked(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"):  # noqa: SIM117
        with lock.locked(tmp_path):
            pass
    with lock.locked(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="can be written"), lock.locked(tmp_path / "run"):
        pass


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="--workdir"), lock.locked(tmp_path / "run"):
        pass


def test_importing_ranjax_is_light():
    heavy = {"jax", "orbax", "transformers", "tensorflow", "matplotlib"}
    code = f"import sys, ranjax, ranjax.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_controls_get_conditions_of_their_own_and_leave_the_others_as_they_were(config):
    before = planning.fingerprints(config, planning.plan(config))
    configs.override(config, "noise.controls", "('image_only',)")
    runs = planning.plan(config)
    after = planning.fingerprints(config, runs)
    ids = [run.id for run in runs]
    assert {"controls/image_only", "pretrain/image_only_10", "evaluate/image_only_30"} <= set(ids)
    assert len(ids) == len(set(ids))
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(ids[:place])
    assert all(after[name] == before[name] for name in before if name != "report")
    assert after["craft"] != after["controls/image_only"]
    assert after["pretrain/image_only_10"] != after["pretrain/coattack_10"]
    configs.override(config, "noise.recipe", "image_only")
    configs.override(config, "noise.controls", "('',)")
    alone = planning.fingerprints(config, planning.plan(config))
    assert alone["pretrain/image_only_30"] == after["pretrain/image_only_30"]


def test_a_stage_of_a_control_sees_its_own_recipe(config, tmp_path, monkeypatch):
    configs.override(config, "noise.controls", "('image_only',)")
    seen = {}

    def run(context):
        seen[context.stage_run.id] = (context.config.noise.recipe, context.craft_id)
        return {}

    runs = tuple(dataclasses.replace(run_, run=run) for run_ in planning.plan(config))
    _execute(config, tmp_path, runs, monkeypatch)
    assert seen["pretrain/image_only_10"] == ("image_only", "controls/image_only")
    assert seen["pretrain/coattack_10"] == ("coattack", "craft")
    assert seen["report"] == ("coattack", "craft")


def test_controls_may_keep_to_some_of_the_ratios(config):
    configs.override(config, "noise.controls", "('gaussian',)")
    every = planning.fingerprints(config, planning.plan(config))
    configs.override(config, "noise.control_ratios", "(0.0, 0.3)")
    configs.validate(config)
    some = planning.fingerprints(config, planning.plan(config))
    assert set(every) - set(some) == {f"{stage}/gaussian_10" for stage in ("pretrain", "adapt", "evaluate")}
    assert all(every[name] == some[name] for name in some if name != "report")
    configs.override(config, "noise.control_ratios", "(0.0, 0.2)")
    with pytest.raises(ConfigError, match=r"control_ratios.*0\.2"):
        configs.validate(config)


def test_a_recipe_is_not_its_own_control(config):
    configs.override(config, "noise.controls", "('coattack',)")
    with pytest.raises(ConfigError, match="controls"):
        configs.validate(config)


def test_what_a_stage_run_keeps_outlives_it_until_it_is_forgotten(config, tmp_path):
    run = _stage("evaluate", [])
    context = Context(configs.typed(config), tmp_path, run, (run,), "f", None, lambda: False, print)
    made = []

    def make():
        made.append(1)
        return {"hits": np.array([True, False]), "loss": np.float32([1.5, 2.5])}

    for _ in range(2):
        found = context.checkpointed_arrays("test ttc@8/255 0", make)
        np.testing.assert_array_equal(found["hits"], [True, False])
        np.testing.assert_array_equal(found["loss"], np.float32([1.5, 2.5]))
    assert made == [1]
    assert [path.name for path in (context.folder / PARTS).iterdir()] == ["test-ttc-8-255-0.safetensors"]
    assert not files.hashes(context.folder, skip=pipeline.NOT_LISTED)
    context.clear_arrays()
    context.clear_arrays()
    context.checkpointed_arrays("test ttc@8/255 0", make)
    assert made == [1, 1]


def test_work_between_two_batches_stops_naming_the_run_that_is_on(config, tmp_path):
    run = _stage("evaluate", [])
    asked = []
    context = Context(configs.typed(config), tmp_path, run, (run,), "f", None, lambda: bool(asked), print)
    context.poll()
    asked.append(1)
    # A program that an earlier run compiled polls for it.
    context.shared["running"] = "evaluate/coattack_30"
    with pytest.raises(Stopped, match="evaluate/coattack_30, between two batches"):
        context.poll()
