"""Frozen-feature training against plain loops, its independence of company, its choice of the epoch, its refusals."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ranjax.core.errors import ConfigError, ConvergenceWarning, DataError
from ranjax.core.keys import stream
from ranjax.methods import head_inputs as adapt_input
from ranjax.methods import head_training as adapt
from ranjax.methods import selection
from ranjax.methods.epochs import unfinished
from ranjax.methods.head_inputs import Examples, prepare
from ranjax.methods.head_training import fit_heads, predict
from ranjax.methods.method_settings import TERMS, Fit, HeadTraining
from ranjax.methods.own_head import fit_method
from ranjax.methods.table import METHODS
from ranjax.objectives import rectification
from ranjax.training.devices import make_mesh

WIDTH, CLASSES, TRAIN, VALIDATION = 6, 3, 44, 31
EPOCHS = 12
FIT = Fit(epochs=EPOCHS, batch_size=8)
# For a fixed number of epochs on features as they are, as references do.
MLP, NMTUNE = (
    dataclasses.replace(METHODS[name].settings, standardised=False, patience=0) for name in ("mlp", "nmtune")
)
LINEAR = HeadTraining(head="linear", learning_rate=1e-2)
# In NMTune's head and on its schedule: one program for all.
RAN = dataclasses.replace(
    METHODS["ran_v1"].settings, head="residual", learning_rate=1e-3, svd_every=1, epochs_share=1.0
)
GROUP = [MLP, NMTUNE, RAN]
# A weight under which it would show if the term came at another step, or once too often.
LAZY = dataclasses.replace(RAN, svd_every=3, epochs_share=0.5, svd=2.0)


def make_split(seed, count, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    features = np.eye(WIDTH)[labels] * 2 + spread * rng.normal(size=(count, WIDTH))
    attacked = features + 0.5 * np.eye(WIDTH)[(labels + 1) % CLASSES]
    return Examples(features.astype(np.float32), labels, attacked.astype(np.float32))


@pytest.fixture(scope="module")
def splits():
    return make_split(0, TRAIN), make_split(1, VALIDATION)


@pytest.fixture(scope="module")
def fitted(splits):
    return fit_heads(GROUP, *splits, classes=CLASSES, seeds=[0, 7], settings=FIT)


def assert_same_head(head, found, wanted, atol=2e-3):
    """By outputs: a bias before a batch norm has no gradient but rounding noise, which AdamW blows up to full steps."""
    rows = make_split(8, 20).features
    for a, b in zip(predict(head, found, rows), predict(head, wanted, rows)):
        np.testing.assert_allclose(a, b, atol=atol)


def epoch_order(seed, epoch, count=TRAIN, batch=8):
    key = jax.random.fold_in(stream(seed, "adapt/shuffle"), epoch)
    return np.asarray(jax.random.permutation(key, count))[: count // batch * batch].reshape(-1, batch)


def test_linear_probe_equals_a_plain_numpy_loop(splits):
    """AdamW, cosine, shuffling and the choice of the epoch, written out in float64."""
    train, validation = splits
    weights = (1.0, 2.0, 0.5)
    settings = dataclasses.replace(FIT, class_weights=weights)
    methods = [LINEAR, LINEAR]
    got = fit_heads(methods, train, validation, classes=CLASSES, seeds=[3], settings=settings)

    start, _ = got.head.init(stream(3, "adapt/init"))
    p = np.concatenate([start["classifier"]["kernel"], start["classifier"]["bias"][None]]).astype(np.float64)
    m, v, count, total = np.zeros_like(p), np.zeros_like(p), 0, EPOCHS * (TRAIN // 8)
    with_one = np.concatenate([train.features, np.ones((TRAIN, 1))], axis=1).astype(np.float64)
    seen, kept = [], []
    for epoch in range(EPOCHS):
        for rows in epoch_order(3, epoch):
            x, y = with_one[rows], train.labels[rows]
            q = np.exp(x @ p)
            q /= q.sum(1, keepdims=True)
            w = np.asarray(weights)[y]
            gradient = x.T @ ((q - np.eye(CLASSES)[y]) * w[:, None]) / w.sum()
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            step = (m / (1 - 0.9 ** (count + 1))) / (np.sqrt(v / (1 - 0.999 ** (count + 1))) + 1e-8)
            rate = 1e-2 * 0.5 * (1 + np.cos(np.pi * count / total))
            p = p - rate * (step + 1e-4 * p)
            count += 1
        logits = np.concatenate([validation.features, np.ones((VALIDATION, 1))], axis=1) @ p
        seen.append((logits.argmax(1) == validation.labels).mean())
        kept.append(p)
    np.testing.assert_allclose(got.history[0, 0], seen, atol=1e-6)
    assert seen[got.chosen[0, 0]] == max(seen)
    wanted = kept[got.chosen[0, 0]]
    found = got.select(0, 0)["params"]["classifier"]
    np.testing.assert_allclose(found["kernel"], wanted[:-1], atol=2e-6)
    np.testing.assert_allclose(found["bias"], wanted[-1], atol=2e-6)


@pytest.mark.parametrize("method", [1, 2], ids=["nmtune", "ran"])
def test_residual_head_equals_a_plain_loop_with_optax(splits, fitted, method):
    assert_equals_a_plain_loop(splits, fitted, method, GROUP[method], EPOCHS)


def test_a_short_schedule_with_a_lazy_term_equals_a_plain_loop(splits):
    fitted = fit_heads([LAZY], *splits, classes=CLASSES, seeds=[0, 7], settings=FIT)
    assert_equals_a_plain_loop(splits, fitted, 0, LAZY, EPOCHS // 2)


def assert_equals_a_plain_loop(splits, fitted, method, settings, epochs):
    train, validation = splits
    head = fitted.head
    params, stats = head.init(stream(7, "adapt/init"))
    total = epochs * (TRAIN // 8)
    optimiser = optax.adamw(optax.cosine_decay_schedule(1e-3, total), weight_decay=1e-4)
    state = optimiser.init(params)

    @jax.jit
    def step(params, stats, state, f, labels, attacked, svd):
        def loss(params):
            z, logits, new = head.apply(params, stats, f, True)
            attacked_outputs = head.apply(params, new, attacked, False)[:2]
            weights = rectification.Weights(**{term: getattr(settings, term) for term in TERMS})._replace(svd=svd)
            return rectification.objective(weights, f, z, logits, labels, attacked_outputs)[0], new

        (_, new), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax does not run under the strict one
            updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), new, state

    histories, count = [], 0
    for epoch in range(epochs):
        for rows in epoch_order(7, epoch):
            every = settings.svd_every
            svd = jnp.float32(every * settings.svd if count % every == 0 else 0.0)
            count += 1
            params, stats, state = step(
                params,
                stats,
                state,
                train.features[rows],
                jnp.asarray(train.labels[rows], jnp.int32),
                train.attacked[rows],
                svd,
            )
        clean, bad = (
            np.asarray(predict(head, {"params": params, "stats": stats}, x)[1]).argmax(1) == validation.labels
            for x in (validation.features, validation.attacked)
        )
        share = settings.attacked_share
        histories.append((1 - share) * clean.mean() + share * bad.mean())
        if epoch == fitted.chosen[method, 1]:
            kept = {"params": params, "stats": stats}
    np.testing.assert_allclose(fitted.history[method, 1], histories, atol=1e-6)
    assert_same_head(head, fitted.select(method, 1), kept)


def test_shapes_and_the_chosen_epoch(splits, fitted):
    _, validation = splits
    assert fitted.history.shape == fitted.clean_history.shape == fitted.attacked_history.shape == (3, 2, EPOCHS)
    assert fitted.chosen.shape == (3, 2)
    assert set(fitted.losses) == set(TERMS)
    assert fitted.losses["svd"].shape == (3, 2, EPOCHS)
    best = np.take_along_axis(fitted.history, fitted.chosen[..., None], axis=-1)[..., 0]
    np.testing.assert_array_equal(best, fitted.history.max(-1))
    z, logits = predict(fitted.head, fitted.variables, validation.features)
    assert z.shape == (3, 2, VALIDATION, WIDTH)
    clean = (np.asarray(logits).argmax(-1) == validation.labels).mean(-1)
    np.testing.assert_allclose(
        clean, np.take_along_axis(fitted.clean_history, fitted.chosen[..., None], -1)[..., 0], atol=1e-6
    )
    one = predict(fitted.head, fitted.select(2, 1), validation.features)[1]
    np.testing.assert_allclose(one, logits[2, 1], atol=1e-6)


def test_a_run_does_not_depend_on_its_company(splits, fitted):
    """Alone, or side by side with the others, or without the terms it does not use: the same head."""
    train, validation = splits
    alone = fit_heads([NMTUNE], *splits, classes=CLASSES, seeds=[7], settings=FIT)
    assert "defence_ce" not in alone.losses
    assert_same_head(fitted.head, alone.select(0, 0), fitted.select(1, 1))
    side_by_side = fit_heads(
        GROUP, *splits, classes=CLASSES, seeds=[0, 7], settings=dataclasses.replace(FIT, parallel=3)
    )
    assert_same_head(fitted.head, side_by_side.variables, fitted.variables)
    again = fit_heads(GROUP, *splits, classes=CLASSES, seeds=[0, 7], settings=FIT)
    jax.tree.map(np.testing.assert_array_equal, again.variables, fitted.variables)
    np.testing.assert_array_equal(again.history, fitted.history)


@pytest.mark.slow
def test_runs_are_shared_out_over_devices(splits, fitted):
    """Five devices for six runs: the last one's second place is filled up and thrown away."""
    mesh = make_mesh(5)
    spread = fit_heads(GROUP, *splits, classes=CLASSES, seeds=[0, 7], settings=FIT, mesh=mesh)
    assert_same_head(fitted.head, spread.variables, fitted.variables)
    np.testing.assert_array_equal(spread.chosen, fitted.chosen)
    np.testing.assert_allclose(spread.history, fitted.history, atol=1e-6)


def test_encoders_are_one_more_axis_and_nothing_compiles_twice(splits, fitted):
    other = (make_split(5, TRAIN), make_split(6, VALIDATION))
    both = [
        Examples(np.stack([a.features, b.features]), a.labels, np.stack([a.attacked, b.attacked]))
        for a, b in zip(splits, other)
    ]
    run = functools.partial(fit_heads, classes=CLASSES, settings=FIT)
    stacked = run([MLP], *both, seeds=[0])
    assert stacked.history.shape == (2, 1, 1, EPOCHS)
    assert_same_head(fitted.head, stacked.select(0, 0, 0), fitted.select(0, 0))
    compiled = adapt._fit._cache_size()
    changed = dataclasses.replace(MLP, ce=0.7, learning_rate=3e-3, weight_decay=0.0)
    run([changed], *(Examples(x.features[::-1], x.labels) for x in both), seeds=[9])
    swapped = run([MLP], *(Examples(x.features[::-1], x.labels) for x in both), seeds=[0])
    assert adapt._fit._cache_size() == compiled
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[1]), stacked.variables, swapped.variables)


def test_the_defence_holds_where_the_plain_head_falls():
    """Two sets of informative directions; the attack swaps the stronger: only a head that saw it leans on the other."""
    rng = np.random.default_rng(3)

    def make(count):
        labels = np.arange(count) % 3
        signal, swapped = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
        noise = 0.2 * rng.normal(size=(count, 6))
        clean, attacked = (noise + np.concatenate([3 * strong, signal], axis=1) for strong in (signal, swapped))
        return Examples(clean.astype(np.float32), labels, attacked.astype(np.float32))

    train, validation, test = make(TRAIN), make(VALIDATION), make(60)
    methods = [dataclasses.replace(method, learning_rate=1e-2) for method in GROUP]
    got = fit_heads(methods, train, validation, classes=3, seeds=[0, 1], settings=FIT)
    clean, bad = (predict(got.head, got.variables, x)[1] for x in (test.features, test.attacked))
    clean, bad = ((np.asarray(x).argmax(-1) == test.labels).mean(-1) for x in (clean, bad))
    assert clean.min() > 0.95
    assert bad[:2].max() < 0.5
    assert bad[2].min() > 0.9


def test_multi_label_with_balanced_weights():
    rng = np.random.default_rng(4)

    def make(count):
        labels = (rng.random((count, 3)) < [0.5, 0.2, 0.1]).astype(int)
        labels[:2] = [[1, 1, 1], [0, 0, 0]]
        return Examples((3 * labels @ np.eye(3, 5) + 0.1 * rng.normal(size=(count, 5))).astype(np.float32), labels)

    train, validation = make(90), make(50)
    settings = Fit(epochs=30, batch_size=16, multi_label=True, metric="auroc", class_weights="balanced")
    lp = dataclasses.replace(LINEAR, learning_rate=0.1)
    got = fit_heads([lp], train, validation, classes=3, seeds=range(5), settings=settings)
    np.testing.assert_allclose(got.history.max(-1), 1.0, atol=1e-6)
    assert got.notes == ()
    assert got.attacked_history is None


def test_plain_tuples_are_examples(splits, fitted):
    plain = fit_heads(GROUP, *map(tuple, splits), classes=CLASSES, seeds=[0, 7], settings=FIT)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.variables, fitted.variables))


def test_more_validation_rows_than_a_chunk_holds(fitted):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(23, WIDTH)), jnp.float32)
    whole = predict(fitted.head, fitted.select(0, 0), rows)[1]
    chunked = adapt._chunked_logits(fitted.head, fitted.select(0, 0), rows, chunk=5)
    np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_a_class_without_validation_examples_is_noted(splits):
    train, validation = splits
    few = Examples(validation.features, np.arange(VALIDATION) % 2)
    _, _, notes = adapt_input.prepare([LINEAR], train, few, CLASSES, False)
    assert notes == ("class 2 has no validation examples and does not count there",)


def nan_features(split):
    features = split.features.copy()
    features[5, 2] = np.nan
    return split._replace(features=features)


BAD_DATA = {
    "nan": (lambda t, v: (nan_features(t), v), r"train features hold nan \(row 5"),
    "nan attacked": (
        lambda t, v: (t._replace(attacked=nan_features(t).features), v),
        "attacked train features hold nan",
    ),
    "width": (lambda t, v: (t, Examples(v.features[:, :4], v.labels)), r"\(1, 4\)"),
    "rows": (lambda t, v: (t, Examples(v.features[:9], v.labels)), r"labels have shape \(31,\)"),
    "attacked shape": (lambda t, v: (t._replace(attacked=t.attacked[:5]), v), "clean ones"),
    "absent class": (lambda t, v: (t._replace(labels=t.labels % 2), v), "class 2 has no training"),
    "outside": (lambda t, v: (t._replace(labels=t.labels - 1), v), r"label -1 in row 0 is not in 0\.\.2"),
    "one class": (lambda t, v: (t, v._replace(labels=v.labels * 0 + 1)), "holds class 1 only"),
    "integers": (lambda t, v: (t._replace(features=t.features.astype(int)), v), "floating-point"),
    "float labels": (lambda t, v: (t._replace(labels=t.labels.astype(float)), v), "integers are needed"),
    "no examples": (lambda t, v: (t.features, v), r"train is a ndarray of 44, Examples\(features, labels\)"),
    "one part": (lambda t, v: (t, (v.features,)), "validation is a tuple of 1"),
    "empty": (lambda t, v: (Examples(t.features[:0], t.labels[:0]), v), r"shape \(0, 6\)"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(splits, case):
    change, word = BAD_DATA[case]
    with pytest.raises(DataError, match=word):
        fit_heads([MLP], *change(*splits), classes=CLASSES, seeds=[0], settings=FIT)


BAD_SETTINGS = {  # functions of the test, since the checks of signatures are on while this module is imported
    "mixed heads": ({"methods": [LINEAR, MLP]}, r"methods\[1\].head"),
    "mixed top_k": (
        {"methods": [MLP, dataclasses.replace(MLP, top_k=5)]},
        "top_k",
    ),
    "mixed schedules": (
        {"methods": [MLP, dataclasses.replace(MLP, svd_every=2)]},
        "svd_every",
    ),
    "no step": ({"methods": lambda: [HeadTraining(svd_every=0)]}, r"methods\[0\].svd_every"),
    "no epochs": ({"methods": lambda: [HeadTraining(epochs_share=0.0)]}, "epochs_share"),
    "unknown head": ({"methods": lambda: [HeadTraining(head="deep")]}, "one of 'linear', 'residual', 'narrow'"),
    "negative weight": ({"methods": lambda: [HeadTraining(svd=-1.0)]}, r"methods\[0\].svd"),
    "no methods": ({"methods": []}, "methods"),
    "seeds twice": ({"seeds": [1, 1]}, "all different"),
    "no seeds": ({"seeds": []}, "at least one"),
    "metric": ({"settings": lambda: Fit(metric="acuracy")}, "did you mean 'accuracy'"),
    "batch": ({"settings": lambda: Fit(batch_size=1)}, "two rows"),
    "epochs": ({"settings": lambda: Fit(epochs=0)}, "epochs"),
    "class weights": ({"settings": lambda: Fit(class_weights=(1.0, 2.0))}, "3 finite numbers"),
    "learning rate": ({"methods": lambda: [HeadTraining(learning_rate=0.0)]}, "learning_rate"),
    "share": ({"methods": lambda: [HeadTraining(attacked_share=2.0)]}, "from 0 to 1"),
    "all methods at once": ({"methods": METHODS}, "a list of HeadTraining"),
    "a name for a method": ({"methods": ["lp"]}, "a list of HeadTraining"),
    "one seed": ({"seeds": 3}, "a list of whole numbers"),
    "half a seed": ({"seeds": [0.5]}, "a list of whole numbers"),
    "half an epoch": ({"settings": lambda: Fit(epochs=1.5)}, "epochs = 1.5"),
    "no Fit": ({"settings": {"epochs": 2}}, "settings = .* a Fit"),
    "no class weights": ({"settings": lambda: Fit(class_weights=None)}, "class_weights = None"),
    "words for class weights": ({"settings": lambda: Fit(class_weights=("a", "b", "c"))}, "3 finite numbers"),
    "a word for a rate": (
        {"methods": lambda: [HeadTraining(learning_rate="1e-3")]},
        r"methods\[0\].learning_rate = '1e-3'",
    ),
    "a share of None": ({"methods": lambda: [HeadTraining(attacked_share=None)]}, "attacked_share = None"),
    "words for a weight": (
        {"methods": lambda: [HeadTraining(mse="one")]},
        r"methods\[0\].mse = 'one': expected a finite number",
    ),
    "no loss": ({"methods": lambda: [HeadTraining(ce=0.0)]}, "at least one weight above 0"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_named(splits, case):
    change, word = BAD_SETTINGS[case]
    change = {name: value() if callable(value) else value for name, value in change.items()}
    arguments = {"methods": [MLP], "seeds": [0], "settings": FIT, **change}
    methods = arguments.pop("methods")
    with pytest.raises(ConfigError, match=word):
        fit_heads(methods, *splits, classes=CLASSES, **arguments)


def test_attacked_features_must_be_there_where_a_method_needs_them(splits):
    train, validation = splits
    with pytest.raises(ConfigError, match=r"methods\[0\].defence_ce"):
        fit_heads([METHODS["ran_v1"].settings], train._replace(attacked=None), validation, classes=CLASSES, seeds=[0])
    with pytest.raises(ConfigError, match="attacked_share"):
        fit_heads([METHODS["ran_v1"].settings], train, validation._replace(attacked=None), classes=CLASSES, seeds=[0])


def test_a_run_that_diverges_is_named(splits):
    wild = dataclasses.replace(LINEAR, learning_rate=1e38)
    settings = dataclasses.replace(FIT, class_weights=(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"methods\[1\].learning_rate"):
        fit_heads([LINEAR, wild], *splits, classes=CLASSES, seeds=[0], settings=settings)


def test_a_search_keeps_what_diverged_and_says_so(splits):
    wild = dataclasses.replace(LINEAR, learning_rate=1e38)
    settings = dataclasses.replace(FIT, class_weights=[1.0, 1.0, 1.0])  # the list is as good as the tuple above
    fitted = fit_heads([LINEAR, wild], *splits, classes=CLASSES, seeds=[0], settings=settings, keep_diverged=True)
    assert fitted.chosen[0, 0] >= 0 == 1 + fitted.chosen[1, 0]
    assert np.isneginf(fitted.history[1]).all()
    assert np.isfinite(fitted.history[0]).all()


def test_features_may_be_bfloat16_and_must_fit_float32(splits):
    train, validation = splits
    halves = train._replace(features=jnp.asarray(train.features, jnp.bfloat16))
    taken = prepare([LINEAR], halves, validation, CLASSES, False)[0].features
    assert taken.dtype == jnp.float32
    assert np.array_equal(taken[0], np.asarray(halves.features, np.float32))
    huge = train._replace(features=np.asarray(train.features, np.float64) * 1e300)
    with pytest.raises(DataError, match="more than float32 can hold"):
        fit_heads([LINEAR], huge, validation, classes=CLASSES, seeds=[0], settings=FIT)


@pytest.mark.parametrize("index", [(4, 0), (0, 2), (-5,), (0, 0, 0)])
def test_a_run_that_is_not_there_is_refused_where_jax_would_take_another(fitted, index):
    axes = fitted.chosen.shape
    with pytest.raises(ConfigError, match=rf"within the axes \({axes[0]}, {axes[1]}\)"):
        fitted.select(*index)
    last = fitted.select(-1, -1)["params"]["classifier"]["bias"]
    assert np.array_equal(last, fitted.select(axes[0] - 1, axes[1] - 1)["params"]["classifier"]["bias"])


def test_predict_refuses_another_width(fitted):
    with pytest.raises(DataError, match=r"\[N, 6\]"):
        predict(fitted.head, fitted.select(0, 0), np.ones((3, 5), np.float32))


def test_selection_metrics_by_hand():
    logits = jnp.asarray([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    labels = jnp.asarray([0, 0, 1, 1])
    assert selection.accuracy(logits, labels) == 0.75
    assert selection.balanced_accuracy(logits, labels) == 0.75
    assert selection.auroc(logits, labels) == 0.75
    hot = jax.nn.one_hot(labels, 2)
    assert selection.auroc(logits, hot, True) == 0.75
    assert selection.balanced_accuracy(logits - 1, hot, True) == 0.75
    assert selection.score("accuracy", logits.at[0, 0].set(jnp.nan), labels, False) == -jnp.inf


STANDARD = dataclasses.replace(MLP, standardised=True)


def test_a_standardised_head_does_not_feel_how_features_are_scaled_and_shifted():
    splits = make_split(0, TRAIN), make_split(1, VALIDATION)
    scale, shift = np.array([0.01, 1, 5, 300, 1, 2], np.float32), np.array([0, 7, -3, 50, 0, 1], np.float32)
    moved = [Examples(x.features * scale + shift, x.labels) for x in splits]
    both = [fit_heads([STANDARD], *given, classes=CLASSES, seeds=[0], settings=FIT) for given in (splits, moved)]
    logits = [
        predict(found.head, found.select(0, 0), given[1].features)[1] for found, given in zip(both, (splits, moved))
    ]
    np.testing.assert_allclose(*logits, atol=2e-3)
    np.testing.assert_array_equal(both[0].history, both[1].history)
    own = both[1].select(0, 0)["stats"]["input"]
    np.testing.assert_allclose(own["mean"], moved[0].features.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own["inverse"], 1 / moved[0].features.std(0), rtol=1e-4)


def test_a_standardised_head_is_one_on_standardised_features():
    train, validation = make_split(0, TRAIN), make_split(1, VALIDATION)
    mean, deviation = train.features.mean(0), train.features.std(0)
    by_hand = [Examples((x.features - mean) / deviation, x.labels) for x in (train, validation)]
    plain = fit_heads([MLP], *by_hand, classes=CLASSES, seeds=[0], settings=FIT)
    found = fit_heads([STANDARD], train, validation, classes=CLASSES, seeds=[0], settings=FIT)
    np.testing.assert_allclose(found.history, plain.history, atol=1e-6)
    one, two = (predict(x.head, x.select(0, 0), y)[1] for x, y in zip((found, plain), (validation[0], by_hand[1][0])))
    np.testing.assert_allclose(one, two, atol=3e-3)  # rounding, and what AdamW makes of it


def test_a_constant_feature_counts_nothing_and_equal_examples_are_refused():
    train, validation = (
        x._replace(features=np.concatenate([x.features, np.full((len(x.labels), 1), 9, np.float32)], 1), attacked=None)
        for x in (make_split(0, TRAIN), make_split(1, VALIDATION))
    )
    found = fit_heads([STANDARD], train, validation, classes=CLASSES, seeds=[0], settings=FIT)
    assert float(found.select(0, 0)["stats"]["input"]["inverse"][-1]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.variables))
    same = train._replace(features=np.ones_like(train.features))
    with pytest.raises(DataError, match="the same for all 44 examples"):
        fit_heads([STANDARD], same, validation, classes=CLASSES, seeds=[0], settings=FIT)


def test_training_ends_when_validation_stops_improving():
    splits, patience = (make_split(0, TRAIN), make_split(1, VALIDATION)), 3
    long = dataclasses.replace(FIT, epochs=60)
    whole = fit_heads([MLP], *splits, classes=CLASSES, seeds=range(3), settings=long)
    stopped = fit_heads(
        [dataclasses.replace(MLP, patience=patience)], *splits, classes=CLASSES, seeds=range(3), settings=long
    )
    assert (whole.epochs == 60).all()
    for seed in range(3):
        trained, chosen = int(stopped.epochs[0, seed]), int(stopped.chosen[0, seed])
        assert trained == chosen + 1 + patience < 60
        # Up to there it is the same training: a long schedule, ended early.
        np.testing.assert_allclose(stopped.history[0, seed, :trained], whole.history[0, seed, :trained], atol=1e-6)
        assert (stopped.history[0, seed, trained:] == -np.inf).all()
        assert np.isnan(stopped.losses["ce"][0, seed, trained:]).all()


def test_a_head_that_was_best_in_its_last_epoch_warns_by_its_method():
    splits, short = (make_split(0, TRAIN), make_split(1, VALIDATION)), dataclasses.replace(FIT, epochs=1)
    patient = dataclasses.replace(MLP, patience=3)
    with pytest.warns(ConvergenceWarning, match=r"^methods\[1\] was best in its last epoch of 1 with 2 of 2 seeds"):
        fit_heads([patient, patient], *splits, classes=CLASSES, seeds=range(2), settings=short)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_heads([patient, patient], *splits, classes=CLASSES, seeds=range(2), settings=short, keep_diverged=True)


def test_a_fixed_number_of_epochs_warns_where_the_last_is_better_than_all_before():
    splits = make_split(0, TRAIN), make_split(1, VALIDATION)
    slow, short = dataclasses.replace(LINEAR, learning_rate=1e-4), dataclasses.replace(FIT, epochs=1)
    with pytest.warns(ConvergenceWarning, match=r"^methods\[0\] was best in its last epoch of 1 with 1 of 1 seeds"):
        fit_heads([slow], *splits, classes=CLASSES, seeds=[0], settings=short)
    history = np.array([[0.2, 0.5, 0.6], [0.5, 0.6, 0.6], [0.7, 0.6, 0.5]], np.float32)
    assert "with 1 of 3 seeds" in unfinished("lp", [2, 2, 0], 3, 0, history)[0]
    assert unfinished("lp", [2, 2, 0], 3, 0) == []
    assert "with 2 of 3 seeds" in unfinished("lp", [2, 2, 0], 3, 5, history)[0]


def softmax_gradient(variables, split):
    """Of the mean cross-entropy of a linear head by kernel and bias, in float64."""
    classifier = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"]["classifier"])
    logits = split.features.astype(np.float64) @ classifier["kernel"] + classifier["bias"]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    error = shares / shares.sum(1, keepdims=True) - np.eye(CLASSES)[split.labels]
    return np.concatenate([split.features.T @ error, error.sum(0, keepdims=True)]) / len(error)


def test_the_gradient_left_is_that_of_the_training_loss(splits):
    train, validation = make_split(0, 40), splits[1]
    slow = dataclasses.replace(LINEAR, learning_rate=3e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = fit_heads([slow], train, validation, classes=CLASSES, seeds=[3], settings=FIT)
    params, stats = found.head.init(stream(3, "adapt/init"))
    begun, kept = (
        np.linalg.norm(softmax_gradient(variables, train))
        for variables in ({"params": params, "stats": stats}, found.select(0, 0))
    )
    assert found.chosen[0, 0] == EPOCHS - 1  # so that the last and the kept weights are the same
    np.testing.assert_allclose(found.gradient[0, 0], kept / begun, rtol=1e-4)


@pytest.mark.parametrize("patience", [0, 3])
def test_a_head_whose_gradient_is_still_large_warns_and_a_finished_one_does_not(splits, patience):
    idle = dataclasses.replace(MLP, learning_rate=1e-7, patience=patience)
    with pytest.warns(ConvergenceWarning, match=r"^methods\[0\] ended while its gradient was large with 2 of 2 seeds"):
        found = fit_heads([idle], *splits, classes=CLASSES, seeds=[0, 7], settings=FIT)
    assert (found.gradient > 0.9).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = dataclasses.replace(METHODS["mlp"], settings=dataclasses.replace(MLP, patience=3))
        done = fit_method(
            method, method.settings, *splits, classes=CLASSES, seeds=[0, 7], shared=dataclasses.replace(FIT, epochs=60)
        )
    assert (done.gradient < 0.8).all()
    assert done.notes == ()
    with pytest.warns(ConvergenceWarning, match="^mlp ended while its gradient was large"):
        left = fit_method(METHODS["mlp"], idle, *splits, classes=CLASSES, seeds=[0, 7], shared=FIT)
    assert any("its gradient was large" in note for note in left.notes)


def test_a_hidden_layer_may_be_held_narrow():
    found = fit_heads(
        [dataclasses.replace(MLP, most_hidden=5)], make_split(0, TRAIN), make_split(1, VALIDATION), classes=CLASSES,
        seeds=[0], settings=FIT,
    )  # fmt: skip
    assert found.select(0, 0)["params"]["expand"]["kernel"].shape == (WIDTH, 5)
