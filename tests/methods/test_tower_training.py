"""Tuning of the image tower: what each scope trains and leaves alone, that it learns, and that it is deterministic."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax.attacks import pgd
from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation import metrics
from ranjax.methods import tower_inputs as tune_input
from ranjax.methods import tower_methods as tuned
from ranjax.methods import tower_step as tune_step
from ranjax.methods.epochs import unfinished
from ranjax.methods.method_settings import TERMS
from ranjax.methods.table import METHODS
from ranjax.methods.tower_training import Diverged, _dividing, tune
from ranjax.models import DualEncoder, clip, input_filter, split
from ranjax.objectives import robust
from ranjax.run import config as configs
from ranjax.training.devices import make_mesh

CLASSES, SIZE = 3, 8


@pytest.fixture(scope="module")
def encoder():
    config = clip(
        vocab_size=8, eos_id=1, image_size=SIZE, patch_size=4, vision_width=16, vision_layers=1, vision_heads=2,
        text_width=8, text_layers=1, text_heads=1, max_length=4, embed_dim=8,
    )  # fmt: skip
    return split(DualEncoder(config, nnx.Rngs(0)))


@pytest.fixture(scope="module")
def splits(encoder):
    """Images whose class is the place of a bright bar: any head can tell them apart."""
    functions, params = encoder
    rng = np.random.default_rng(0)

    def make(count):
        labels = np.arange(count, dtype=np.int32) % CLASSES
        images = rng.integers(60, 120, (count, SIZE, SIZE, 1)).astype(np.uint8)
        for image, label in zip(images, labels):
            image[:, label * 2 : label * 2 + 2] += 80
        original = functions.image_features(params, jnp.asarray(images, jnp.float32) / 255)
        return tuned.Images(images, labels, np.asarray(original))

    return make(48), make(24)


SETTINGS = tuned.TowerFit(epochs=4, batch_size=16, attack=pgd.PGD("2/255", "1/255", 2))
TUNED = {
    name: dataclasses.replace(
        method.settings,
        learning_rate=1e-2 if method.settings.scope == "lora" else 3e-3,
        head_learning_rate=3e-2,
    )
    for name, method in METHODS.items()
    if method.family == "tower" and not method.leaves_out
}


def task():
    prompts = np.random.default_rng(1).normal(size=(CLASSES, 8)).astype(np.float32)
    return tuned.Task(jnp.asarray(prompts), jnp.float32(10.0))


def fit(encoder, splits, name, settings=SETTINGS, seed=0, mesh=None):
    return tune(*encoder, TUNED[name], *splits, task(), seed=seed, settings=settings, mesh=mesh)


@pytest.fixture(scope="module")
def lora(encoder, splits):
    return fit(encoder, splits, "lora")


def test_lora_learns_the_task_and_moves_the_image_tower_alone(encoder, splits, lora):
    functions, params = encoder
    assert max(lora.history) > 0.7
    assert lora.losses[-1] < lora.losses[0]
    merged = tuned.encoder_of(TUNED["lora"], params, lora.trained)
    moved = {
        "/".join(str(k.key) for k in path)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(params))
        if not np.array_equal(a, b)
    }
    assert moved
    assert all(name.startswith("vision/") and name.endswith("/kernel") for name in moved)
    head = tuned.head_of(TUNED["lora"], 8, CLASSES)
    classify = tune_step.logits_of(functions, TUNED["lora"], head)
    images = jnp.asarray(splits[1].images, jnp.float32) / 255
    right = np.argmax(classify(merged, task(), lora.trained, images), 1) == splits[1].labels
    assert right.mean() == pytest.approx(lora.history[lora.chosen])
    assert lora.chosen == int(np.argmax(lora.history)) or lora.history[lora.chosen] == max(lora.history)


@pytest.mark.slow  # two programs of their own
def test_a_tower_that_hardly_moved_keeps_its_gradient_and_one_that_learns_does_not(encoder, splits):
    idle = dataclasses.replace(TUNED["lora"], learning_rate=1e-7, head_learning_rate=1e-7)
    still = tune(*encoder, idle, *splits, task(), seed=0, settings=SETTINGS)
    assert unfinished("lora", [still.chosen], 4, 0, gradient=[still.gradient])
    longer = fit(encoder, splits, "lora", dataclasses.replace(SETTINGS, epochs=16))
    assert longer.gradient < 0.6 < still.gradient
    assert not unfinished("lora", [longer.chosen], 16, 0, gradient=[longer.gradient])


def test_an_epoch_is_chosen_by_the_metric_that_is_asked_for(encoder, splits, lora):
    found = fit(encoder, splits, "lora", dataclasses.replace(SETTINGS, metric="auroc"))
    assert found.losses == lora.losses  # trained alike
    assert found.history != lora.history
    functions, params = encoder
    merged = tuned.encoder_of(TUNED["lora"], params, found.trained)
    classify = tune_step.logits_of(functions, TUNED["lora"], tuned.head_of(TUNED["lora"], 8, CLASSES))
    images = jnp.asarray(splits[1].images, jnp.float32) / 255
    logits = classify(merged, task(), found.trained, images)
    assert metrics.macro_auroc(np.asarray(jax.nn.softmax(logits)), splits[1].labels)[0] == pytest.approx(
        found.history[found.chosen], abs=1e-6
    )


def test_the_same_seed_gives_the_same_bits_and_another_does_not(encoder, splits, lora):
    again, other = fit(encoder, splits, "lora"), fit(encoder, splits, "lora", seed=1)
    assert all(map(np.array_equal, jax.tree.leaves(again.trained), jax.tree.leaves(lora.trained)))
    assert not all(map(np.array_equal, jax.tree.leaves(other.trained), jax.tree.leaves(lora.trained)))


def test_wrong_input_is_refused(encoder, splits):
    train, validation = splits
    short = tuned.Images(*(x[train.labels < 2] for x in train))
    with pytest.raises(DataError, match="class 2 has no training examples"):
        fit(encoder, (short, validation), "lora")
    with pytest.raises(DataError, match="validation holds class 1 only"):
        fit(encoder, (train, tuned.Images(*(x[validation.labels == 1] for x in validation))), "lora")
    broken = train.original.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match=r"train features hold a number that is not finite \(row 3; 1 rows"):
        fit(encoder, (train._replace(original=broken), validation), "lora")
    with pytest.raises(ConfigError, match=r"adapt\.tower\.batch_size = 1"):
        fit(encoder, splits, "lora", dataclasses.replace(SETTINGS, batch_size=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TUNED if name != "lora"])
def test_every_method_lowers_its_loss_within_its_scope(encoder, splits, name):
    functions, params = encoder
    found, method = fit(encoder, splits, name), TUNED[name]
    assert found.losses[-1] < found.losses[0]
    merged = tuned.encoder_of(method, params, found.trained)
    same = {top: all(map(np.array_equal, *map(jax.tree.leaves, (merged[top], params[top])))) for top in params}
    assert same["text"]
    assert same["text_projection"]
    assert same["vision"] == (method.scope == "head")
    assert ("head" in found.trained) == (method.head != "prompts")
    if method.objective == "fare":
        # By hand: the loss of FARE at the start, with x' = x, is 0, so it starts small and stays about the attack's.
        clean = functions.image_features(params, jnp.asarray(splits[0].images, jnp.float32) / 255)
        assert float(robust.fare(clean, jnp.asarray(splits[0].original))) == pytest.approx(0.0, abs=1e-9)
    if method.objective not in ("clean", "fare"):  # FARE learns from no labels
        assert max(found.history) > 1 / CLASSES


@pytest.mark.slow
def test_several_labels_are_learned_attacked_and_weighted(encoder, splits):
    settings = dataclasses.replace(SETTINGS, multi_label=True, sigma=0.0)
    hot = [part._replace(labels=np.eye(CLASSES, dtype=np.float32)[part.labels]) for part in splits]
    weighted = task()._replace(weights=jnp.full(CLASSES, CLASSES - 1.0))
    found = tune(*encoder, TUNED["ran_live"], *hot, weighted, seed=0, settings=settings)
    assert found.losses[-1] < found.losses[0]
    assert 0 <= min(found.history) <= max(found.history) <= 1  # shares of single answers
    lacking = hot[0]._replace(labels=hot[0].labels * np.float32([1, 1, 0]))
    with pytest.raises(DataError, match="class 2 has no positive training examples"):
        tune(*encoder, TUNED["ran_lora"], lacking, hot[1], weighted, seed=0, settings=settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "ran_lora", "ran_live", "pmg_aft"])
def test_two_devices_find_what_one_finds(encoder, splits, name):
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=16)
    one, two = (fit(encoder, splits, name, settings, mesh=make_mesh(count)) for count in (1, 2))
    np.testing.assert_allclose(two.losses, one.losses, rtol=1e-5)
    assert two.history == one.history
    if TUNED[name].scope != "full":
        # In a whole tower some gradients are 0 but for rounding, as those of keys' biases, which Adam blows up.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), two.trained, one.trained)


def test_what_all_fits_share_is_read_from_a_config_in_either_form():
    config = configs.default_config()
    config.adapt.tower.epochs, config.adapt.tower.step, config.adapt.filter = 3, "3/255", 2.5
    found = tuned.tower_fit(config.adapt)
    assert (found.epochs, found.batch_size, found.attack.step_size, found.sigma) == (3, 64, 3 / 255, 2.5)
    assert tuned.tower_fit(configs.typed(config).adapt) == found


def test_a_batch_goes_to_as_many_devices_as_divide_it():
    assert [_dividing(make_mesh(8), size).size for size in (16, 12, 7, 9)] == [8, 6, 7, 3]
    assert _dividing(None, 16).size == 1


R = dataclasses.replace
BAD = {
    "label outside": ({"train": lambda x: x._replace(labels=x.labels + 1)}, DataError, "train label 3 in row 2"),
    "label below": ({"validation": lambda x: x._replace(labels=x.labels - 1)}, DataError, "validation label -1"),
    "fewer labels": ({"train": lambda x: x._replace(labels=x.labels[:5])}, DataError, r"labels have shape \(5,\)"),
    "fewer images": ({"train": lambda x: x._replace(images=x.images[:5])}, DataError, r"\(5,\) is needed"),
    "0 to 255": ({"train": lambda x: x._replace(images=x.images * 1.0)}, DataError, r"\[0, 1\] is needed"),
    "width": ({"train": lambda x: x._replace(original=x.original[:, :3])}, DataError, r"\(48, 8\)"),
    "prompts' width": ({"task": lambda x: x._replace(prompts=x.prompts[:, :3])}, DataError, r"\[classes, 8\]"),
    "NaN prompts": ({"task": lambda x: x._replace(prompts=x.prompts * np.nan)}, DataError, "prompts hold"),
    "class weights": ({"task": lambda x: x._replace(weights=np.ones(2))}, ConfigError, "3 finite numbers"),
    "scope": ({"method": lambda x: R(x, scope="loar")}, ConfigError, "did you mean 'lora'"),
    "objective": ({"method": lambda x: R(x, objective="x")}, ConfigError, "one of 'clean'"),
    "head": ({"method": lambda _: R(TUNED["fft"], head="prompts")}, ConfigError, "method.head = 'prompts'"),
    "no term": ({"method": lambda _: R(TUNED["ran_lora"], **dict.fromkeys(TERMS, 0.0))}, ConfigError, "at least one"),
    "a name": ({"method": "lora"}, ConfigError, r"METHODS\['lora'\]"),
    "epochs": ({"settings": lambda x: R(x, epochs=0)}, ConfigError, "epochs = 0"),
    "rate": ({"method": lambda x: R(x, learning_rate=-1.0)}, ConfigError, "learning_rate = -1.0"),
    "weight": ({"method": lambda _: R(TUNED["pmg_aft"], pull=float("nan"))}, ConfigError, "pull = nan"),
    "metric": ({"settings": lambda x: R(x, metric="auc")}, ConfigError, "did you mean 'auroc'"),
    "pattern": ({"method": lambda x: R(x, targets=("(",))}, ConfigError, "regular expressions"),
    "seed": ({"seed": 0.5}, ConfigError, "seed = 0.5"),
    "no TowerFit": ({"settings": {"epochs": 2}}, ConfigError, "settings = .* a TowerFit"),
    "no attack": ({"settings": lambda x: R(x, attack=None)}, ConfigError, "attack = None"),
    "a word for a rate": ({"method": lambda x: R(x, learning_rate="1e-3")}, ConfigError, "learning_rate = '1e-3'"),
    "no embeddings": (
        {"train": lambda x: tuple(x[:2])},
        DataError,
        r"train is a tuple of 2, Images\(images, labels, o",
    ),
    "no task": ({"task": None}, DataError, r"Task\(prompts, scale\)"),
    "words for weights": ({"task": lambda x: x._replace(weights="balanced")}, ConfigError, "weights = 'balanced'"),
    "sizes": ({"validation": lambda x: x._replace(images=x.images[:, :4])}, DataError, "one shape is needed"),
    "0 for prompts": (
        {"method": TUNED["tecoa"], "task": lambda x: x._replace(prompts=x.prompts * 0)},
        DataError,
        "class 0 is 0 throughout",
    ),
    "target": ({"method": lambda x: R(x, targets="^vison/")}, ConfigError, r"method\.targets = '\^vison/'"),
    "rank": ({"method": lambda x: R(x, rank=99)}, ConfigError, r"method\.rank = 99"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_name_before_anything_compiles(encoder, splits, case):
    change, kind, words = BAD[case]
    given = {"method": TUNED["lora"], "train": splits[0], "validation": splits[1], "task": task(), "seed": 0}
    given |= {"settings": SETTINGS}
    for name, new in change.items():
        given[name] = new(given[name]) if callable(new) else new
    with pytest.raises(kind, match=words):
        tune(*encoder, given.pop("method"), given.pop("train"), given.pop("validation"), given.pop("task"), **given)


class Foreign:
    """An encoder of other people's: one matrix, behind the filter or not."""

    config = types.SimpleNamespace(embed_dim=8)

    def __init__(self, filters):
        self.filters = filters

    def image_features(self, params, images):
        if self.filters and input_filter.NAME in params:
            images = input_filter.apply(params[input_filter.NAME], images)
        return images.reshape(images.shape[0], -1) @ params["kernel"]


def test_an_encoder_of_other_people_is_taken_where_it_is_one(splits):
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(SIZE * SIZE, 8)), jnp.float32)

    def check(functions, name="ran_live", kernel=kernel):
        return tune_input.check(functions, {"kernel": kernel}, TUNED[name], *splits, task(), 0, SETTINGS)

    assert check(Foreign(filters=True)) == ()
    assert check(Foreign(filters=False), "lora") == ()
    with pytest.raises(ConfigError, match=r"method\.filtered = True.* input_filter\.apply") as error:
        check(Foreign(filters=False))
    assert error.value.key == "method.filtered"
    with pytest.raises(ConfigError, match=r"gives \(1, 8\) for one image, not \(1, 5\)"):
        check(Foreign(filters=True), kernel=kernel[:, :5])


@pytest.mark.usefixtures("unchecked")
def test_a_function_is_no_encoder(splits):
    with pytest.raises(ConfigError, match=r"image_features\(params, images\) and config\.embed_dim"):
        tune_input.check(Foreign(filters=True).image_features, {}, TUNED["ran_live"], *splits, task(), 0, SETTINGS)


def test_a_fit_that_diverges_names_its_rates(encoder, splits):
    functions, params = encoder
    broken = jax.tree.map(lambda x: x * jnp.nan, params)
    with pytest.raises(Diverged, match=r"learning_rate = 0\.01 and head_learning_rate = 0\.03: lower"):
        fit((functions, broken), splits, "lora")


@pytest.mark.slow
def test_a_fit_whose_only_step_diverges_is_told_by_its_outputs(encoder, splits):
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=48)
    method = dataclasses.replace(TUNED["lora"], learning_rate=1e30)
    with pytest.raises(Diverged, match=r"finite after no epoch with learning_rate = 1e\+30"):
        tune(*encoder, method, *splits, task(), seed=0, settings=settings)


def test_training_ends_when_validation_stops_improving(encoder, splits):
    settings = dataclasses.replace(SETTINGS, epochs=12, patience=2)
    # Labels of validation that nothing learnt can help with.
    train, validation = splits
    splits = train, validation._replace(labels=np.random.default_rng(0).permutation(validation.labels))
    found = fit(encoder, splits, "lora", settings)
    whole = fit(encoder, splits, "lora", dataclasses.replace(settings, patience=0))
    assert len(whole.history) == 12
    assert len(found.history) == found.chosen + 1 + 2 < 12
    np.testing.assert_allclose(found.history, whole.history[: len(found.history)], atol=1e-6)


def test_fare_learns_from_images_without_labels(encoder, splits):
    train, validation = splits
    shuffled = train._replace(labels=train.labels[::-1])
    with_labels, without, others = (
        fit(encoder, (given, validation), "fare") for given in (train, train._replace(labels=None), shuffled)
    )
    for one in (without, others):
        for a, b in zip(jax.tree.leaves(with_labels.trained), jax.tree.leaves(one.trained), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match="labels"):
        fit(encoder, (train._replace(labels=None), validation), "tecoa")
