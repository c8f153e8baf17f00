"""Targets through the pipeline: stored, the same for every ratio and through a cut, checked again by verify."""

import numpy as np
import pytest

from ranjax.data import noisy_pairs as noise
from ranjax.data.target_pairs import same_class
from ranjax.evaluation.retrieval import unit
from ranjax.run.context import Stopped
from ranjax.run.stages import inputs as common

import test_craft as base  # isort: skip

CONFIG = {"recipe": "targeted"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("targets") / "run"
    base.run(base.tiny(**CONFIG), workdir)
    return workdir


def told(workdir):
    store = base.store_of(workdir)
    return {name: store.provenance(name) for name in store}


def test_each_noisy_pair_names_a_target_of_another_class_and_how_near_it_came(made):
    context, store = base.context_of(base.tiny(**CONFIG), made, "targeted"), base.store_of(made)
    data = common.data(context)
    train, held = data.split("train"), data.targets("train") > 0.5
    place = {name: i for i, name in enumerate(train.ids)}
    functions, params = common.encoder(context, "clean")

    def embedded(images):
        return np.asarray(unit(common.image_features(context, functions, params, images)))

    chosen = embedded(np.stack([train.images[place[name]] for name in store]))
    for row, (name, one) in enumerate(told(made).items()):
        target = one["target"]
        assert not same_class(held[place[name]], held[place[target]])
        attacked = embedded(store[name]["image"][None])[0]
        goal = embedded(train.images[place[target]][None])[0]
        np.testing.assert_allclose(one["target_cosine"], attacked @ goal, atol=1e-3)
        np.testing.assert_allclose(one["own_cosine"], attacked @ chosen[row], atol=1e-3)
        np.testing.assert_allclose(one["target_cosine_before"], chosen[row] @ goal, atol=1e-5)
        assert one["success"] == (one["target_cosine"] > one["own_cosine"])
        near = sum(attacked @ other > one["target_cosine"] + 1e-3 for i, other in enumerate(chosen))
        far = sum(attacked @ other > one["target_cosine"] - 1e-3 for i, other in enumerate(chosen))
        assert near < one["target_rank"] <= far + 1
        assert store[name]["report"] == train.reports[place[name]]
    assert np.mean([one["target_cosine"] - one["target_cosine_before"] for one in told(made).values()]) > 0
    assert base.verdict(made)[0] == 0


@pytest.mark.slow
def test_a_smaller_ratio_has_the_same_targets_and_a_cut_run_ends_at_the_same_bits(made, tmp_path):
    few = base.copy_of(made, tmp_path / "few")
    base.run(base.tiny(**CONFIG, ratios=(0.0, 0.1)), few)
    every = told(made)
    assert {name: one["target"] for name, one in told(few).items()} == {n: every[n]["target"] for n in told(few)}
    assert 0 < len(told(few)) < len(every)
    cut, asked = base.copy_of(made, tmp_path / "cut"), iter(range(10**6))
    with pytest.raises(Stopped):
        base.run(base.tiny(**CONFIG), cut, stop=lambda: next(asked) >= 10)
    assert 0 < len(list((cut / "craft" / "store").glob("*.array_record"))) < 7
    base.run(base.tiny(**CONFIG), cut)
    assert base.store_of(cut).fingerprint == base.store_of(made).fingerprint


@pytest.mark.slow
def test_verify_finds_another_target_and_a_cosine_or_success_that_is_not_so(made, tmp_path):
    def other_target(noisy_pair):
        train = common.data(base.context_of(base.tiny(**CONFIG), made, "targeted")).split("train")
        told = noisy_pair["provenance"]
        told["target"] = next(name for name in train.ids if name not in (told["target"], noisy_pair["id"]))

    def other_success(noisy_pair):
        told = noisy_pair["provenance"]
        told["success"] = not told["success"]

    def other_cosine(noisy_pair):
        noisy_pair["provenance"]["target_cosine"] += 0.1

    for change, words in (
        (other_target, "its own is"),
        (other_success, "has success"),
        (other_cosine, "has target_cosine"),
    ):
        workdir = base.copy_of(made, tmp_path / change.__name__)
        base.shutil.copytree(made / "craft", workdir / "craft")
        base.shutil.copy(made / "config.json", workdir)
        base.rewritten(workdir, change)
        code, said = base.verdict(workdir)
        assert code == 1
        assert words in said


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["pgd", "apgd_ce"])
def test_l2_balls_random_targets_and_apgd(made, tmp_path, attack):
    workdir = base.copy_of(made, tmp_path / "run")
    config = base.tiny(**CONFIG, l2_epsilon="1", image_attack=attack)
    config.noise.targeted.target = "random"
    base.run(config, workdir)
    store = base.store_of(workdir)
    delta = [store[name]["image"].astype(np.float64) - store[name]["clean_image"] / 255 for name in store]
    assert 0.5 < max(np.linalg.norm(x) for x in delta) <= 1 + 1e-3
    assert np.mean([one["target_cosine"] - one["target_cosine_before"] for one in told(workdir).values()]) > 0
    assert base.verdict(workdir)[0] == 0


def test_selection_of_pairs_does_not_move_with_the_recipe(made):
    context = base.context_of(base.tiny(**CONFIG), made, "targeted")
    ids = common.data(context).split("train").ids
    assert set(told(made)) == {ids[i] for i in np.flatnonzero(noise.select(ids, 0.3, 0))}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["image_first", "text_first"])
def test_false_captions_go_with_images_towards_the_target(made, tmp_path, order):
    workdir, config = base.copy_of(made, tmp_path / "run"), base.tiny(recipe="targeted_keywords")
    config.noise.targeted_keywords.order = order
    base.run(config, workdir)
    alone, store = told(made), base.store_of(workdir)
    for name, one in told(workdir).items():
        assert one["target"] == alone[name]["target"]
        assert one["meaning"] == "contradict"
        assert one["false"] is True
        assert one["settings"]["targeted_keywords"] == {"target": "other_class", "order": order}
        same = np.array_equal(store[name]["image"], base.store_of(made)[name]["image"])
        assert same or order == "text_first"
    assert base.verdict(workdir)[0] == 0
