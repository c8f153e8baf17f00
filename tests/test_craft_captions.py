"""Crafting with rewritten captions: every noisy caption is false, is one of its rewrites, and says so in its record."""

import numpy as np
import pytest
from test_craft import context_of, run, store_of, tiny, verdict

from ranjax.core.errors import ConfigError
from ranjax.data import noisy_pairs as noise
from ranjax.data.captions import radiograph_reading as reading
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run.stages import caption_checks, caption_rewrites
from ranjax.run.stages import inputs as common
from ranjax.training.devices import make_mesh


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir with noisy pairs whose captions are false and whose images are as they were."""
    workdir = tmp_path_factory.mktemp("captions") / "run"
    run(tiny(recipe="keywords", controls=("caption_shuffle",)), workdir, devices=1)
    return workdir


def facts(config, workdir):
    data = common.data(context_of(config, workdir, "keywords"))
    train = data.split("train")
    known = caption_rewrites.facts_of(data.prepared.splits["train"], train.ids)
    return {name: (report, fact) for name, report, fact in zip(train.ids, train.reports, known)}


def test_every_noisy_caption_is_false_by_the_exact_findings_and_its_record_says_what_changed(made):
    config, store = tiny(recipe="keywords", controls=("caption_shuffle",)), store_of(made)
    known = facts(config, made)
    assert set(store.ids) == {i for i, taken in zip(known, noise.select(list(known), 0.3, config.seed)) if taken}
    for name in store:
        pair, (report, fact) = store[name], known[name]
        told = pair["provenance"]
        assert not reading.false_sentences(reading.read(report), fact)
        assert reading.false_sentences(reading.read(pair["report"]), fact)
        assert told["meaning"] == "contradict"
        assert told["false"] is True
        assert told["left"] == ""
        assert 1 <= len(told["exchanges"]) <= 2
        assert told["words_changed"] > 0
        assert told["queries"] > 1
        assert np.array_equal(pair["image"], pair["clean_image"].astype(np.float32) / np.float32(255))
    assert any(store.provenance(name)["labels_changed"] for name in store)


def test_the_text_taken_is_the_one_of_the_lowest_cosine(made):
    config = tiny(recipe="keywords", controls=("caption_shuffle",))
    context, store = context_of(config, made, "keywords"), store_of(made)
    data, known = common.data(context), facts(config, made)
    rewriter = caption_rewrites.of_run(context, caption_checks.RECIPES["keywords"])
    from ranjax.run.stages import craft

    for name in store.ids[:4]:
        pair, (report, fact) = store[name], known[name]
        texts = [rewrite.text for rewrite in rewriter(name, report, fact).rewrites]
        images = np.repeat(pair["clean_image"][None], len(texts), axis=0)
        losses = craft.pair_losses(context, images, data.encode(texts))
        chosen = texts.index(pair["report"])
        assert losses[chosen] == pytest.approx(losses.max(), abs=1e-5)
        assert pair["provenance"]["loss_after"] == pytest.approx(losses[chosen], abs=2e-3)


def test_shuffled_captions_are_judged_as_well(made):
    store = store_of(made, "caption_shuffle")
    told = [store.provenance(name) for name in store]
    assert all(one["meaning"] == "contradict" for one in told)
    assert any(one["false"] for one in told)


def test_a_run_of_false_captions_verifies_and_a_true_one_in_its_place_does_not(made):
    code, said = verdict(made)
    assert code == 0, said
    config = tiny(recipe="keywords", controls=("caption_shuffle",))
    context, store = context_of(config, made, "keywords"), store_of(made)
    checks, known = caption_checks.CaptionChecks(context), facts(config, made)
    pair = store[store.ids[0]]
    report = known[pair["id"]][0]
    assert checks.fault(pair, report) is None
    assert "none of the rewrites" in checks.fault(pair | {"report": report}, report)
    other = pair["provenance"] | {"labels_changed": not pair["provenance"]["labels_changed"]}
    assert "its record says another labels_changed" in checks.fault(pair | {"provenance": other}, report)


def test_a_regime_that_a_recipe_cannot_have_is_refused_and_one_that_it_can_have_decides_its_captions():
    with pytest.raises(
        ConfigError, match=r"noise.meaning = .*keep.*'recipe' or 'contradict' with the recipe 'keywords'"
    ):
        tiny(recipe="keywords", meaning="keep")
    config = configs.typed(tiny(recipe="coattack", meaning="contradict"))
    from ranjax.data.recipe_table import RECIPES
    from ranjax.run.schema import noise_keys

    found = {name: noise_keys.text_of(config, RECIPES[name]) for name in ("coattack", "image_only", "gaussian")}
    assert found == {"coattack": "keywords", "image_only": "", "gaussian": ""}
    assert noise_keys.text_of(configs.typed(tiny()), RECIPES["coattack"]) == "words"
    assert noise_keys.recorded(config)["keywords"]["changes"] == 2


def test_settings_of_the_exchange_count_where_a_regime_uses_them():
    config = tiny(meaning="contradict")
    config.noise.keywords.changes = 1
    assert not [note for note in configs.notes(config) if "keywords" in note]
    config.noise.meaning = "keep"
    assert [note for note in configs.notes(config) if "noise.keywords.changes" in note]


@pytest.mark.slow
def test_both_sides_can_be_attacked_with_false_captions(made, tmp_path):
    from test_craft import copy_of

    workdir = copy_of(made, tmp_path / "run")
    run(tiny(recipe="coattack", meaning="contradict"), workdir, devices=1)
    store = store_of(workdir)
    for name in store:
        told = store.provenance(name)
        assert told["false"]
        assert told["norm"] > 0
    assert verdict(workdir)[0] == 0


def test_captions_that_a_user_brings_are_taken_by_id_and_the_others_are_left_and_counted(made, tmp_path):
    config, known = tiny(recipe="keywords", controls=("caption_shuffle",)), facts(tiny(recipe="keywords"), made)
    chosen = [name for name, taken in zip(known, noise.select(list(known), 0.3, config.seed)) if taken]
    path = tmp_path / "captions.csv"
    lines = [f'{name},"No acute disease, {number}."' for number, name in enumerate(chosen[:-2])]
    lines += [f'{chosen[-1]},"{known[chosen[-1]][0]}"', "another id,A caption."]
    path.write_text("\n".join(["id,caption", *lines]))
    from test_craft import copy_of

    brought, said = tiny(), []
    brought.noise.recipe, brought.noise.captions.file = "captions", str(path)
    workdir = copy_of(made, tmp_path / "run")
    pipeline.execute(brought, workdir, mesh=make_mesh(1), stop=lambda: False, say=said.append, until="craft")
    store = store_of(workdir)
    assert len(store) == len(chosen)
    for number, name in enumerate(chosen):
        told = store.provenance(name)
        if number < len(chosen) - 2:
            assert store[name]["report"] == f"No acute disease, {number}."
            assert told["exchanges"]
        else:
            assert store[name]["report"] == known[name][0]
            assert told["exchanges"] == []
    lefts = [store.provenance(name)["left"] for name in chosen[-2:]]
    assert lefts == ["no caption of this id in the file", "the file's caption has the original's words"]
    assert any("1 of the 14 captions" in line for line in said)
    assert any("captions left as they are: 1 (no caption of this id" in line for line in said)
    assert verdict(workdir)[0] == 0


def test_a_recipe_of_captions_without_a_file_is_refused():
    with pytest.raises(ConfigError, match=r"noise.captions.file = '': expected a CSV"):
        tiny(recipe="captions")
