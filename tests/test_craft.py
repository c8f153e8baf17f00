"""The craft stage: every recipe through the pipeline, exact ratios, the same bits on any devices; and verify."""

import contextlib
import io
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from ranjax import models
from ranjax.attacks.text import constraints
from ranjax.cli import console
from ranjax.core import files
from ranjax.core.pixels import GRID
from ranjax.data import noisy_pairs as noise
from ranjax.data.batches import Batches
from ranjax.data.recipe_table import RECIPES
from ranjax.data.store import NoisyStore, StoreWriter
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.run import plan as planning
from ranjax.run.context import Context, Stopped
from ranjax.run.stages import craft, pretrain
from ranjax.run.stages import inputs as common
from ranjax.run.stages import word_candidates as candidates
from ranjax.training.devices import make_mesh, shard_batch
from ranjax.training.loop import split_host

EPSILON = 8 / 255
CONTROLS = tuple(name for name, recipe in RECIPES.items() if recipe.kind == "control")
ATTACKS = tuple(name for name, recipe in RECIPES.items() if recipe.kind == "attack" and not recipe.text)


def tiny(**noise_keys):
    """A config of the least size at which every recipe has something to do."""
    config = configs.default_config()
    data = config.data.radiographs
    config.data.image_size = 32
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 16, 16, 16, 16
    config.pretrain.steps, config.pretrain.batch_size = 6, 16
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.patch_size = 16
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 24
    config.noise.ratios = (0.0, 0.3)
    config.noise.pgd.steps, config.noise.max_words, config.noise.top_k = 2, 1, 2
    config.noise.shard_size = config.noise.batch_size = 2
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    config.noise.update(noise_keys)
    configs.validate(config)
    return config


def run(config, workdir, devices=2, until="craft", stop=lambda: False):
    pipeline.execute(config, workdir, mesh=make_mesh(devices), stop=stop, say=lambda line: None, until=until)


def copy_of(made, workdir):
    """A workdir in which everything up to the clean encoder is done."""
    workdir.mkdir()
    for name in ("prepare", "pretrain", "data"):
        if (made / name).exists():
            shutil.copytree(made / name, workdir / name)
    return workdir


def context_of(config, workdir, recipe="coattack"):
    runs = planning.plan(config)
    this = next(r for r in runs if r.stage == "craft" and r.recipe == recipe)
    return Context(configs.typed(config), workdir, this, runs, "", make_mesh(1), lambda: False, lambda line: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir with coattack's noisy pairs and both controls."""
    workdir = tmp_path_factory.mktemp("craft") / "run"
    run(tiny(controls=CONTROLS), workdir)
    return workdir


def store_of(workdir, recipe=""):
    return NoisyStore.open(workdir / (f"controls/{recipe}" if recipe else "craft") / "store")


def test_noisy_pairs_are_those_that_the_highest_ratio_takes_with_all_of_their_provenance(made):
    config, store = tiny(controls=CONTROLS), store_of(made)
    train = common.data(context_of(config, made)).split("train")
    chosen = noise.select(train.ids, 0.3, config.seed)
    assert set(store.ids) == {name for name, taken in zip(train.ids, chosen) if taken}
    assert len(store) == round(0.3 * len(train.ids))
    for name in store:
        noisy_pair = store[name]
        told = noisy_pair["provenance"]
        assert {"loss_before", "loss_after", "norm", "words_changed", "queries", "success", "surrogate"} <= set(told)
        assert told["attack"] == "coattack"
        assert told["settings"]["pgd"] == {"step": "2/255", "steps": 2}
        assert told["surrogate"] == files.sha256(made / "pretrain/clean/encoder/model.safetensors")
        moved = np.abs(noisy_pair["image"].astype(np.float64) - noisy_pair["clean_image"] / 255.0).max()
        assert 0 < moved <= EPSILON + 1 / GRID
        assert told["success"] == (told["loss_after"] > told["loss_before"])
    assert np.mean([store.provenance(i)["loss_after"] - store.provenance(i)["loss_before"] for i in store]) > 0


def test_recorded_losses_are_those_of_what_is_stored(made):
    for recipe in ("", *CONTROLS):
        store = store_of(made, recipe)
        noisy_pairs = [store[name] for name in store]
        data = common.data(context_of(tiny(controls=CONTROLS), made))
        tokens = data.encode([t["report"] for t in noisy_pairs])
        np.testing.assert_array_equal(tokens.ids, np.stack([t["tokens"] for t in noisy_pairs]))
        images = np.stack([t["image"] for t in noisy_pairs])
        found = craft.pair_losses(context_of(tiny(controls=CONTROLS), made), images, tokens)
        np.testing.assert_allclose(found, [t["provenance"]["loss_after"] for t in noisy_pairs], atol=2e-3)


def test_controls_carry_the_norm_of_an_attack_or_the_words_of_another_and_nothing_else(made):
    signs = store_of(made, "gaussian")
    for name in signs:
        noisy_pair = signs[name]
        moved = np.abs(noisy_pair["image"].astype(np.float64) - noisy_pair["clean_image"] / 255.0)
        inside = (noisy_pair["clean_image"] > 8) & (noisy_pair["clean_image"] < 247)
        np.testing.assert_allclose(moved[inside], EPSILON, atol=2 / GRID)
    moved = store_of(made, "caption_shuffle")
    train = common.data(context_of(tiny(controls=CONTROLS), made)).split("train")
    reports = dict(zip(train.ids, train.reports))
    noisy_pairs = [moved[name] for name in moved]
    assert all(np.array_equal(t["image"], t["clean_image"].astype(np.float32) / np.float32(255)) for t in noisy_pairs)
    assert sorted(t["report"] for t in noisy_pairs) == sorted(reports[t["id"]] for t in noisy_pairs)
    assert any(t["report"] != reports[t["id"]] for t in noisy_pairs)


def first_step(config, context, count):
    """(loss, first moments, share of attacked pairs) of the stage's own step on the first batch of a noisy
    condition.
    """
    data, settings = common.data(context), config.pretrain
    functions, params = pretrain.first_weights(context)
    mesh = make_mesh(count)
    made = pretrain.make_program(functions, params, config, mesh)
    batches = Batches(
        pretrain.upstream(context), settings.batch_size, config.seed, data.tokenizer, config.text.max_length
    )
    batch, _ = split_host(pretrain._batch(batches[0]))
    state, metrics = made.step(made.start(params), shard_batch(batch, mesh), jax.random.key(0))
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    return float(metrics["loss"]), jax.device_get(moments), pretrain.attacked_share(batches, 0)


@pytest.mark.slow
def test_parts_chunks_and_two_devices_together_change_no_gradient_on_noisy_pairs(made):
    config = tiny(controls=CONTROLS)
    runs = planning.plan(config)
    this = next(r for r in runs if r.id == "pretrain/coattack_30")
    context = Context(configs.typed(config), made, this, runs, "", make_mesh(1), lambda: False, lambda line: None)
    loss, moments, share = first_step(config, context, 1)
    assert share > 0.1
    lean = tiny(controls=CONTROLS)
    lean.pretrain.accumulate, lean.pretrain.loss_chunk = 4, 3
    lean_loss, lean_moments, _ = first_step(lean, context, 2)
    assert lean_loss == pytest.approx(loss, rel=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments))
    assert largest > 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), lean_moments, moments)


def verdict(workdir, *arguments):
    """(exit code, what was printed) of `ranjax verify`, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = console.call(["verify", str(workdir), *arguments])
    return code, out.getvalue()


def rewritten(workdir, change, number=0):
    """Writes a shard again with one noisy pair changed, hashes and all, as someone would who wants it to pass."""
    folder = workdir / "craft" / "store"
    store, plan = NoisyStore.open(folder), files.read_json(folder / "store.json")
    names = store.by_shard()[number]
    noisy_pairs = [store[name] for name in names]
    for noisy_pair in noisy_pairs:
        told = noisy_pair["provenance"]
        noisy_pair["provenance"] = {k: v for k, v in told.items() if k not in (*plan["provenance"], "norm")}
    change(noisy_pairs[0])
    for suffix in (".array_record", ".json"):
        (folder / f"shard-{number:05d}{suffix}").unlink()
    kept = ("ids", "shard_size", "epsilon", "provenance")
    StoreWriter(folder, **{name: plan[name] for name in kept}).write(number, noisy_pairs)


@pytest.mark.slow
def test_a_finished_run_verifies_and_a_moved_pixel_word_or_byte_does_not(made, tmp_path):
    code, said = verdict(made)
    assert code == 0, said
    assert said.count("sound") == 6
    assert "14 losses computed again" in said

    workdir = tmp_path / "run"
    shutil.copytree(made, workdir)
    shard = workdir / "craft" / "store" / "shard-00001.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    tokenizer = workdir / "prepare" / "tokenizer.json"
    code, said = verdict(workdir, "--repair")
    assert code == 1
    assert f"{shard} does not match its SHA-256" in said
    assert not shard.exists()
    run(tiny(controls=CONTROLS), workdir)
    assert shard.read_bytes() == whole
    assert verdict(workdir, "--sample=0")[0] == 0

    shard.write_bytes(whole[:100])
    tokenizer.write_text(tokenizer.read_text() + " ")
    code, said = verdict(workdir, "--sample=0")
    assert code == 1
    assert f"{tokenizer} does not match" in said
    assert f"{shard} does not match" in said
    assert "2 faults" in said


@pytest.mark.slow
def test_what_was_written_anew_with_its_hash_is_found_by_its_content(made, tmp_path):
    def other_word(noisy_pair):
        place = int(np.flatnonzero(noisy_pair["tokens"] == tokenizer.pieces("no")[0])[0])
        noisy_pair["tokens"] = noisy_pair["tokens"].copy()
        noisy_pair["tokens"][place] = tokenizer.pieces("with")[0]
        noisy_pair["report"] = tokenizer.decode(noisy_pair["tokens"], noisy_pair["mask"])

    def other_image(noisy_pair):
        noisy_pair["image"] = noisy_pair["clean_image"].astype(np.float32) / np.float32(255)

    def other_source(noisy_pair):
        noisy_pair["clean_image"] = noisy_pair["clean_image"].copy()
        noisy_pair["clean_image"][0, 0, 0] ^= 1

    config = tiny(controls=CONTROLS)
    tokenizer = common.data(context_of(config, made)).tokenizer
    store = store_of(made)
    with_no = next(n for n, ids in store.by_shard().items() if " no " in f" {store[ids[0]]['report']}")
    for change, number, words in (
        (other_word, with_no, "differs from the original by more than the recorded words, or in a protected one"),
        (other_image, 0, "was written down"),
        (other_source, 0, "is not that of the source"),
    ):
        workdir = tmp_path / change.__name__
        shutil.copytree(made, workdir)
        rewritten(workdir, change, number)
        code, said = verdict(workdir)
        assert code == 1
        assert words in said
        assert "another store than the one that this run finished" in said


def test_verify_refuses_what_is_no_run(tmp_path, capsys):
    assert console.call(["verify", str(tmp_path)]) == 2
    assert "a folder of a run, with its config.json" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_bits_on_one_device_and_on_eight(made, tmp_path):
    run(tiny(), copy_of(made, tmp_path / "eight"), devices=8)
    run(tiny(), copy_of(made, tmp_path / "one"), devices=1)
    assert store_of(tmp_path / "eight").fingerprint == store_of(tmp_path / "one").fingerprint
    assert store_of(tmp_path / "eight").fingerprint == store_of(made).fingerprint


@pytest.mark.slow
def test_a_cut_run_keeps_its_finished_shards_and_ends_at_the_same_bits(made, tmp_path):
    workdir, asked = copy_of(made, tmp_path / "cut"), iter(range(10**6))
    # The pipeline asks once before the stage, then the stage asks once a shard.
    with pytest.raises(Stopped, match="pairs crafted"):
        run(tiny(), workdir, stop=lambda: next(asked) >= 3)
    first = sorted((workdir / "craft" / "store").glob("*.array_record"))
    assert first
    times = [path.stat().st_mtime_ns for path in first]
    run(tiny(), workdir)
    assert [path.stat().st_mtime_ns for path in first] == times
    assert store_of(workdir).fingerprint == store_of(made).fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in ATTACKS if name not in ("coattack", "captions")])
def test_every_attack_leaves_noisy_pairs_of_its_kind(recipe, made, tmp_path):
    workdir = copy_of(made, tmp_path / "run")
    run(tiny(recipe=recipe), workdir)
    store = store_of(workdir)
    noisy_pairs = [store[name] for name in store]
    moved = [np.abs(t["image"] - t["clean_image"].astype(np.float32) / np.float32(255)).max() for t in noisy_pairs]
    words = [t["provenance"]["words_changed"] for t in noisy_pairs]
    assert (max(moved) == 0) == ("image" not in RECIPES[recipe].changes)
    assert (max(words) == 0) == ("text" not in RECIPES[recipe].changes)
    # Where captions are rewritten, exchanges are counted, and an exchange may be of several words.
    assert max(words) <= 1 or RECIPES[recipe].text
    if not RECIPES[recipe].needs_target:
        assert np.mean([t["provenance"]["loss_after"] - t["provenance"]["loss_before"] for t in noisy_pairs]) > 0


@pytest.mark.slow
def test_candidates_of_all_sources_are_intersected_and_importance_orders_the_words(made, tmp_path):
    keys = {
        "candidates": ("masked_lm", "neighbours"),
        "masked_lm_steps": 30,
        "masked_lm_k": 20,
        "neighbours": 60,
        "text_search": "importance",
        "similarity": 0.2,
        "max_words": 2,
    }
    config, workdir = tiny(**keys), copy_of(made, tmp_path / "run")
    run(config, workdir)
    assert (workdir / "craft" / "masked_lm" / "model.safetensors").exists()
    context = context_of(config, workdir)
    functions, params = common.encoder(context, "clean")
    allowed = candidates.of_run(context, np.asarray(functions.token_table(params)))
    near = {w: set(_listed(allowed.lexicon, i)) for i, w in enumerate(allowed.lexicon.words)}
    store, changed = store_of(workdir), 0
    reports = dict(zip(*(getattr(common.data(context).split("train"), n) for n in ("ids", "reports"))))
    split = common.data(context).tokenizer.split
    for name in store:
        before, after = split([reports[name]])[0], split([store[name]["report"]])[0]
        assert len(before) == len(after)
        swaps = [(a.lower(), b.lower()) for a, b in zip(before, after) if a.lower() != b.lower()]
        assert len(swaps) == store[name]["provenance"]["words_changed"] <= 2
        assert all(new in near[old] for old, new in swaps)
        changed += len(swaps)
    assert changed


def test_label_words_alone_can_be_let_go(made):
    data = common.data(context_of(tiny(), made))
    stated = data.prepared.classes, data.prepared.label_words
    kept, free = (candidates.protected(configs.typed(tiny(protect_labels=on)).noise, *stated) for on in (True, False))
    label = data.prepared.label_words[0]
    assert kept(label)
    assert not free(label)
    assert all(predicate(word) for predicate in (kept, free) for word in ("no", "left", "3"))


@pytest.mark.slow
def test_words_stay_within_their_share_and_queries_within_their_bound(made, tmp_path):
    config, workdir = tiny(recipe="text_only", max_words=9, share=0.1, max_queries=3), copy_of(made, tmp_path / "run")
    run(config, workdir)
    store, data = store_of(workdir), common.data(context_of(config, workdir, "text_only"))
    reports = dict(zip(*(getattr(data.split("train"), name) for name in ("ids", "reports"))))
    told = {name: store.provenance(name) for name in store}
    assert max(one["queries"] for one in told.values()) == 3
    counts = {name: len(words) for name, words in zip(reports, data.tokenizer.split(list(reports.values())))}
    assert all(one["words_changed"] <= -(-counts[name] // 10) for name, one in told.items())
    assert verdict(workdir)[0] == 0


@pytest.mark.slow
def test_a_thesaurus_allows_its_synonyms_alone(made, tmp_path):
    words = tmp_path / "synonyms.txt"
    words.write_text("opacity, consolidation, effusion\nlarge, small\n")
    config, workdir = tiny(candidates=("thesaurus",), thesaurus=str(words), protect=False), tmp_path / "run"
    copy_of(made, workdir)
    context = context_of(config, workdir)
    functions, params = common.encoder(context, "clean")
    lexicon = candidates.of_run(context, np.asarray(functions.token_table(params))).lexicon
    groups = [set(group) for group in constraints.read_groups(str(words))]
    for i, word in enumerate(lexicon.words):
        for other in _listed(lexicon, i):
            assert any({word, other} <= group for group in groups)


def _listed(lexicon, i):
    return [lexicon.words[j] for j in np.asarray(lexicon.table.lists[i]) if j >= 0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "vision_bert"])
def test_a_checkpoint_of_the_user_goes_through_with_its_tokenizer_at_another_image_size(kind, made, tmp_path):
    weights = made / "pretrain" / "clean" / "encoder"
    if kind == "vision_bert":
        tokenizer, weights = Tokenizer.load(weights), tmp_path / "model"
        bert = models.BertConfig(
            vocab_size=tokenizer.vocab_size, width=24, layers=1, heads=2, mlp_width=48, max_length=60, pooling="pooler"
        )
        image = models.ViTConfig(image_size=32, patch_size=16, width=24, layers=1, heads=2, mlp_width=48)
        config = models.DualEncoderConfig(image=image, text=bert, embed_dim=16, layout="vision-text-dual-encoder")
        models.save(weights, *models.split(models.DualEncoder(config, nnx.Rngs(0))))
        tokenizer.save(weights / "tokenizer.json")
    config = tiny()
    config.model.weights, config.data.image_size = str(weights), 32 if kind == "vision_bert" else 48
    config.pretrain.steps = 2
    configs.validate(config)
    run(config, tmp_path / "run")
    first, second = (
        models.load(folder)[2] for folder in (weights, tmp_path / "run" / "pretrain" / "clean" / "encoder")
    )
    assert type(first) is type(second)
    assert second.image_size == config.data.image_size
    used = Tokenizer.load(tmp_path / "run" / "prepare" / "tokenizer.json")
    assert used.fingerprint == Tokenizer.load(weights).fingerprint
    assert len(store_of(tmp_path / "run")) == 14
