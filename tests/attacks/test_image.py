"""What must hold of every image attack, on a hand-written classifier; each test names the idea it checks."""

from __future__ import annotations

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_images as toy
from hypothesis import strategies

from ranjax.attacks import ImageAttack, ascend, input_checks, jitted, losses, pgd, projections, starts, steps
from ranjax.attacks.ascent import batch_axis

hypothesis.settings.register_profile("few", max_examples=15, deadline=None, derandomize=True, database=None)
few = hypothesis.settings.get_profile("few")
PARAMS, IMAGES, KEYS = toy.make_params(), toy.make_images(), toy.make_keys()
LABELS = toy.labels_of(PARAMS, IMAGES)
PGD = pgd.PGD("8/255", "2/255", 6)
RADII = (0.0, 1 / 255, 8 / 255, 0.5, 1.0)

run = jitted(toy.loss, PGD)  # one program per structure of the settings: epsilon and step are arguments


def attack(settings, images=IMAGES, keys=KEYS, labels=LABELS, **more):
    return run(PARAMS, images, keys, labels, settings=settings, **more)


# ball; box, exactly, with pixels at 0 and 1; epsilon 0 is the identity; a step beyond the ball; a ball beyond the box
@hypothesis.settings(few)
@hypothesis.given(
    epsilon=strategies.sampled_from(RADII),
    step=strategies.sampled_from([0.5 / 255, 0.1, 1.0]),
    start_and_norm=strategies.sampled_from([("uniform", "linf"), ("uniform", "l2"), ("none", "linf")]),
    seed=strategies.integers(0, 2**31),
)
def test_ball_and_box(epsilon, step, start_and_norm, seed):
    start, norm = start_and_norm
    keys = toy.make_keys(seed=seed)
    result = attack(pgd.PGD(epsilon, step, 6, norm=norm, start=start), keys=keys)
    delta = np.asarray(result.images) - IMAGES
    length = np.abs(delta).max((1, 2, 3)) if norm == "linf" else np.sqrt(np.square(delta).sum((1, 2, 3)))
    assert length.max() <= epsilon + 1e-6
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    np.testing.assert_allclose(result.norm, length, atol=1e-6)
    if epsilon == 0:
        assert np.array_equal(result.images, IMAGES)


# the best loss never falls with the steps; keep-best: the result's loss is the highest on its trace
def test_best_loss_is_monotone_and_on_the_trace():
    fewer, more = (attack(pgd.PGD("8/255", "6/255", n, start="none")) for n in (3, 6))
    np.testing.assert_array_equal(fewer.trace, more.trace[:4])  # the same path, cut short
    assert np.all(more.loss >= fewer.loss)
    np.testing.assert_array_equal(fewer.clean_loss, fewer.trace[0])
    for result in (fewer, more):
        path, success = np.asarray(result.trace), np.asarray(result.success)
        np.testing.assert_array_equal(result.loss[~success], path.max(0)[~success])
        np.testing.assert_array_equal(toy.loss(PARAMS, result.images, LABELS)[1], success)


# restarts: never worse per image than any single run of the same keys, and kept per image
def test_restarts_keep_the_worst_case_per_image():
    settings = pgd.PGD(0.3, 0.2, 3, restarts=3)
    many = jax.jit(lambda p, x, k: pgd.pgd(lambda a: toy.loss(p, a, LABELS)[0], x, k, settings))(PARAMS, IMAGES, KEYS)

    @jax.jit
    def one(params, images, keys, number):
        from ranjax.attacks.ascent import _run, fold_in

        start_keys, own = fold_in(keys, 2 * number), fold_in(keys, 2 * number + 1)
        inside = lambda a: projections.linf(jnp.full((1, 1, 1, 1), 0.3))(a, images)  # noqa: E731
        first = inside(starts.uniform_linf(jnp.full((1, 1, 1, 1), 0.3))(start_keys, images))
        follow = lambda a: toy.loss(params, a, LABELS)[0]  # noqa: E731
        return _run(follow, images, own, steps.sign(0.2), inside, first, 3, "best", 1, None)

    single = np.stack([one(PARAMS, jnp.asarray(IMAGES), KEYS, jnp.uint32(n)).raised for n in range(3)])
    np.testing.assert_array_equal(many.loss, single.max(0))
    assert len(set(single.argmax(0).tolist())) > 1


# success first: an iterate that is misclassified is kept before one of higher loss that is right
def test_success_comes_before_loss():
    def loss(images):  # rises with brightness, but only the dark half succeeds
        bright = jnp.mean(images, axis=(1, 2, 3))
        return bright, bright < 0.5

    dark = jnp.full((2, *toy.SHAPE), 0.45, jnp.float32)
    settings = pgd.PGD(0.3, 0.1, 3, start="none")
    result = jax.jit(lambda x, k: pgd.pgd(loss, x, k, settings))(dark, toy.make_keys(2))
    assert np.all(result.success)
    np.testing.assert_allclose(result.images, dark, atol=1e-6)


# the whole batch: best_batch returns iterates that stood together
def test_best_batch_keeps_one_moment():
    def loss(images):
        return toy.features(PARAMS, images)[:, 0]

    result = jax.jit(lambda x, k: pgd.pgd(loss, x, k, pgd.PGD(0.3, 0.3, 5, start="none", keep="best_batch")))(
        IMAGES, KEYS
    )
    mean = np.asarray(result.trace).mean(1)
    np.testing.assert_array_equal(result.loss, result.trace[mean.argmax()])


# no steps: the projected start, and without a start the image itself
def test_no_steps():
    assert np.array_equal(attack(pgd.PGD(0.1, 0.1, 0, start="none")).images, IMAGES)
    total, settings = lambda x: jnp.sum(x, (1, 2, 3)), pgd.PGD(0.1, 0.1, 0)
    start = jax.jit(lambda x, k: pgd.pgd(total, x, k, settings, initial=x + 1))(IMAGES, KEYS)
    assert start.trace.shape == (1, toy.BATCH)
    np.testing.assert_allclose(start.images, np.clip(IMAGES + 0.1, 0, 1), atol=1e-6)


# FGSM is one step of PGD without a start; MI-FGSM without decay takes the same signs as BIM
def test_named_settings():
    fgsm = attack(pgd.fgsm("8/255"))
    same = attack(pgd.PGD(8 / 255, 8 / 255, 1, start="none", keep="last"))
    np.testing.assert_array_equal(fgsm.images, same.images)
    np.testing.assert_array_equal(
        attack(pgd.mi_fgsm("8/255", 6, decay=0.0)).images, attack(pgd.bim("8/255", 8 / 255 / 6, 6)).images
    )
    assert np.array_equal(attack(pgd.fgsm(0.0)).images, IMAGES)


# targeted: the target's loss falls, and equals the untargeted attack on the negated loss
def test_targeted():
    target = (LABELS + 1) % toy.CLASSES

    @jax.jit
    def both(params, images, keys):
        up, down = (pgd.PGD("8/255", "2/255", 6, start="none", targeted=way) for way in (False, True))
        one = pgd.pgd(lambda x: toy.loss(params, x, target)[0], images, keys, down)
        other = pgd.pgd(lambda x: -toy.loss(params, x, target)[0], images, keys, up)
        return one, other

    one, other = both(PARAMS, IMAGES, KEYS)
    assert np.all(one.loss < one.clean_loss)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.trace, -other.trace)
    np.testing.assert_array_equal(one.loss, one.trace.min(0))


# vanishing gradient: a model that ignores the image leaves it bit-equal under every rule, with no NaN
def test_constant_model_changes_nothing():
    @jax.jit
    def run(images, keys):
        settings = [
            pgd.PGD(0.1, 0.05, 3, start="none", keep="last", **more) for more in ({}, {"norm": "l2"}, {"momentum": 1.0})
        ]
        return [pgd.pgd(lambda x: jnp.sum(x, (1, 2, 3)) * 0, images, keys, each) for each in settings]

    for result in run(IMAGES, KEYS):
        assert np.array_equal(result.images, IMAGES)
        assert np.all(result.gradient_norm == 0)
        assert np.all(result.finite)


# cosine to the clean embedding: refused without a random start; finite and inside where it is asked for by hand
def test_label_free_losses_need_a_random_start():
    settings = pgd.PGD("8/255", "2/255", 4)
    for name in losses.NEEDS_RANDOM_START:
        with pytest.raises(ValueError, match="'none': expected 'uniform'"):
            pgd.embedding_attack(lambda x: x, IMAGES, KEYS, pgd.bim("8/255", "2/255", 4), name)

    @jax.jit
    def run(params, images, keys):
        features = lambda x: toy.features(params, x)  # noqa: E731
        by_hand = lambda x: losses.cosine(features(x), features(images))  # noqa: E731
        return (
            pgd.embedding_attack(features, images, keys, settings),
            pgd.pgd(by_hand, images, keys, pgd.bim("8/255", "2/255", 4)),
        )

    result, by_hand = run(PARAMS, IMAGES, KEYS)
    assert np.all(result.loss > result.clean_loss)
    assert np.all(np.isfinite(by_hand.images))
    assert float(by_hand.norm.max()) <= 8 / 255 + 1e-6


# NaN for one image: it comes back clean and is named; the others are as without it
def test_nan_rows_come_back_clean():
    poison = jnp.asarray(np.where(np.arange(toy.BATCH) == 3, np.nan, 1).astype(np.float32))
    settings = pgd.PGD("8/255", "2/255", 3, start="none")
    both = jax.jit(lambda p, x, k, scale: pgd.pgd(lambda a: scale * toy.loss(p, a, LABELS)[0], x, k, settings))
    hurt, well = both(PARAMS, IMAGES, KEYS, poison), both(PARAMS, IMAGES, KEYS, jnp.ones_like(poison))
    others = np.arange(toy.BATCH) != 3
    assert np.array_equal(hurt.images[3], IMAGES[3])
    assert np.array_equal(np.asarray(hurt.finite), others)
    np.testing.assert_array_equal(hurt.images[others], well.images[others])


# inputs are left alone; the same key gives the same bits, another one others
def test_determinism_and_untouched_inputs():
    images = toy.make_images()
    first, again, other = attack(PGD), attack(PGD, images=images), attack(PGD, keys=toy.make_keys(seed=9))
    assert np.array_equal(images, IMAGES)
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


# the random start is uniform in the ball, two-sided, and for l2 in volume
def test_starts_are_uniform():
    images, keys, radius = jnp.full((500, 4, 4, 1), 0.5), toy.make_keys(500), jnp.full((1, 1, 1, 1), 0.1)
    all_starts = (starts.uniform_linf, starts.uniform_l2, starts.surface_linf, starts.surface_l2)
    drawn = jax.jit(lambda k, x: [start(radius)(k, x) - x for start in all_starts])(keys, images)
    cube, ball, surface, sphere = (np.asarray(part) / 0.1 for part in drawn)
    draw = cube
    assert abs(draw.mean()) < 3 * 3**-0.5 / draw.size**0.5
    assert 0.99 < draw.max() <= 1 + 1e-6
    assert -1 - 1e-6 <= draw.min() < -0.99
    length = np.linalg.norm(ball.reshape(500, -1), axis=1)
    volume = length**16
    assert abs(volume.mean() - 0.5) < 3 * 12**-0.5 / 500**0.5
    assert length.max() <= 1 + 1e-5
    np.testing.assert_allclose(np.abs(surface).max((1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(sphere.reshape(500, -1), axis=1), 1, rtol=1e-4)


# batch independence: any permutation, any sub-batch, and a last batch that is padded, when the key goes with the row
def test_batches_do_not_matter(float64):
    params, images = toy.make_params(dtype=np.float64), toy.make_images(17, dtype=np.float64)
    keys, labels = toy.make_keys(17), toy.labels_of(params, images)
    one_batch = jitted(toy.loss, PGD)

    def batched(params, images, keys, labels):  # 8 at a time, the last batch filled up by repetition
        parts = []
        for first in range(0, len(images), 8):
            index = np.minimum(np.arange(first, first + 8), len(images) - 1)
            parts.append(one_batch(params, images[index], keys[index], labels[index]))
        count = len(images)
        return ImageAttack(
            *(
                np.concatenate(fields)[:count] if batch_axis(name) == 0 else np.concatenate(fields, -1)[..., :count]
                for name, fields in zip(ImageAttack._fields, zip(*parts))
            )
        )

    whole, cut = one_batch(params, images, keys, labels), batched(params, images, keys, labels)
    for one, other in zip(whole, cut):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    order = np.random.default_rng(0).permutation(17)
    mixed = batched(params, images[order], keys[order], labels[order])
    np.testing.assert_allclose(mixed.images, cut.images[order], rtol=0, atol=1e-12)
    single = batched(params, images[4:5], keys[4:5], labels[4:5])
    np.testing.assert_allclose(single.images[0], cut.images[4], rtol=0, atol=1e-12)


# mask: what it does not free stays bit-equal, random start included
def test_mask():
    mask = np.random.default_rng(3).random(toy.SHAPE) < 0.5
    result = attack(pgd.PGD(0.5, 0.2, 6), mask=mask)
    assert np.array_equal(result.images[:, ~mask], IMAGES[:, ~mask])
    assert not np.array_equal(result.images[:, mask], IMAGES[:, mask])


# epsilon per pixel and per example; other shapes are refused
def test_epsilon_arrays():
    radii = np.linspace(0, 0.2, toy.BATCH, dtype=np.float32).reshape(-1, 1, 1, 1)
    radii = radii * (np.random.default_rng(3).random(toy.SHAPE) < 0.5)
    result = attack(pgd.PGD(radii.astype(np.float32), 0.1, 6))
    assert np.all(np.abs(result.images - IMAGES) <= radii + 1e-6)
    assert np.array_equal(np.asarray(result.images)[radii == 0], IMAGES[radii == 0])
    images = jnp.asarray(IMAGES)
    for shape in [(), (1,), (4, 4, 1), (1, 1, 1), (toy.BATCH, 1, 1, 1), IMAGES.shape]:
        assert input_checks.broadcast_per_example(np.full(shape, 0.1), images, "epsilon").ndim == 4
    for shape in [(toy.BATCH,), (3, 1, 1, 1), (4, 4, 2), (1, 1, 1, 1, 1)]:
        with pytest.raises(ValueError, match="broadcasts"):
            attack(pgd.PGD(np.full(shape, 0.1, np.float32), 0.1, 6))
    with pytest.raises(ValueError, match="one radius per example"):
        attack(pgd.PGD(radii[0], 0.1, 6, norm="l2"))


# normalisation lives in the model: attacking through it equals attacking normalised inputs with epsilon / std; and a
# model of 0..255 is attacked as well through a factor of 255
def test_normalisation_and_other_bounds():
    settings = pgd.PGD("8/255", "2/255", 4, start="none", keep="last")

    @jax.jit
    def through(shift, scale, params):
        loss = lambda x: toy.loss(params, (x - shift) / scale, LABELS)[0]  # noqa: E731
        return pgd.pgd(loss, IMAGES, KEYS, settings).images

    gradient = jax.jit(jax.grad(lambda x: toy.loss(PARAMS, x, LABELS)[0].sum()))
    mean, std = np.float32(0.4), np.float32(0.25)
    x = clean = (IMAGES - mean) / std
    for _ in range(4):  # by hand, in normalised units
        x = x + 2 / 255 / std * np.sign(gradient(x))
        x = np.clip(clean + np.clip(x - clean, -8 / 255 / std, 8 / 255 / std), (0 - mean) / std, (1 - mean) / std)
    np.testing.assert_allclose((through(mean, std, PARAMS) - mean) / std, x, atol=1e-5)
    wide = PARAMS | {"w1": PARAMS["w1"] / 255}  # takes (x - 0.5) as 255 (x - 0.5)
    found = through(np.float32(0.5 - 0.5 / 255), np.float32(1 / 255), wide)
    np.testing.assert_allclose(found, through(np.float32(0), np.float32(1), PARAMS), atol=1e-5)


# one pair: InfoNCE is exactly 0 with a zero gradient, and the image comes back as it was
def test_info_nce_of_a_single_pair():
    text = toy.features(PARAMS, jnp.asarray(IMAGES[1:2]))
    settings = pgd.PGD("8/255", "2/255", 3, start="none", keep="last")
    loss = lambda x: losses.info_nce_pair(toy.features(PARAMS, x), text, 10.0)  # noqa: E731
    result = jax.jit(lambda x, k: pgd.pgd(loss, x, k, settings))(IMAGES[:1], KEYS[:1])
    assert np.all(np.asarray(result.trace) == 0)
    assert np.array_equal(result.images, IMAGES[:1])


# the layout of the axes after the batch does not matter
def test_layout():
    def moved(params, images, labels):
        return toy.loss(params, jnp.moveaxis(images, 1, 3), labels)

    settings = pgd.PGD("8/255", "2/255", 6, start="none")
    first = jitted(moved, settings)(PARAMS, np.moveaxis(IMAGES, 3, 1), KEYS, LABELS)
    np.testing.assert_array_equal(np.moveaxis(first.images, 1, 3), attack(settings).images)


# compiled equals uncompiled; a second call, with other numbers too, does not compile again
def test_jit(float64):
    params, images = toy.make_params(dtype=np.float64), toy.make_images(dtype=np.float64)
    traces = []

    def loss(params, images, labels):
        traces.append(1)
        return toy.loss(params, images, labels)

    settings = pgd.PGD("8/255", "2/255", 6, start="none")
    compiled = jitted(loss, settings)
    result = compiled(params, images, KEYS, LABELS)
    count = len(traces)
    compiled(params, images * 0.5, KEYS, LABELS, settings=pgd.PGD(0.2, 0.01, 6, start="none"))
    assert len(traces) == count
    with jax.disable_jit():
        eager = pgd.pgd(lambda x: toy.loss(params, x, LABELS), images, KEYS, pgd.PGD("8/255", "2/255", 6, start="none"))
    np.testing.assert_allclose(result.images, eager.images, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.trace, eager.trace, rtol=0, atol=1e-9)


# the parts are replaceable: Adam ascent within the same projection
def test_composition_with_an_optax_optimiser():
    radius = jnp.full((1, 1, 1, 1), 8 / 255)

    @jax.jit
    def run(images, keys):
        return ascend(
            lambda x: toy.loss(PARAMS, x, LABELS)[0],
            images,
            keys,
            rule=optax.chain(optax.adam(0.02), optax.scale(-1.0)),
            projection=projections.linf(radius),
            start=starts.clean,
            measure=projections.linf_norm,
            steps=5,
        )

    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats
        result = run(IMAGES, KEYS)
    assert np.all(result.loss > result.clean_loss)
    assert float(result.norm.max()) <= 8 / 255 + 1e-6


# a bfloat16 gradient with a float32 score: inside the ball, scored exactly, nearly as strong
def test_bfloat16_gradient():
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)

    def surrogate(x):
        return toy.loss(low, x.astype(jnp.bfloat16), LABELS)[0].astype(jnp.float32)

    def exact(x):
        return toy.loss(PARAMS, x, LABELS)[0]

    result = jax.jit(lambda x, k: pgd.pgd(exact, x, k, PGD, surrogate=surrogate))(IMAGES, KEYS)
    assert result.images.dtype == jnp.float32
    np.testing.assert_allclose(result.loss, exact(result.images), rtol=1e-5)
    assert float(result.norm.max()) <= 8 / 255 + 1e-6
    full = attack(PGD)
    assert float(result.loss.mean()) > 0.9 * float(full.loss.mean())
