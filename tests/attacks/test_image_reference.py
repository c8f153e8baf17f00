"""PGD against trajectories computed by other implementations: float64 to 1e-9, float32 to 1e-6."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import micro_clip
import numpy as np
import pytest

from ranjax.attacks import losses, pgd
from ranjax.core.math import unit

EPS, STEP = 8 / 255, 2 / 255
KINDS = ("nce", "cos", "text", "next")


def losses_of(params, kind, images):
    """The loss of that kind, chosen at run time so that one program serves all."""
    features = micro_clip.image_features(params["clip"], images)
    text, scale = params["text"], jnp.exp(params["clip"]["logit_scale"])
    branches = (
        lambda f: losses.info_nce_pair(f, text, scale),
        lambda f: losses.cosine(f, params["clean"]),
        lambda f: losses.cosine(f, text) - 1,
        lambda f: 1 - losses.cosine(f, jnp.roll(text, -1, 0)),
    )
    return jax.lax.switch(kind, branches, features)


@jax.jit
def attack(params, kind, images, keys, settings, initial):
    return pgd.pgd(lambda x: losses_of(params, kind, x), images, keys, settings, initial=initial)


image_features, text_features = jax.jit(micro_clip.image_features), jax.jit(micro_clip.text_features)


@jax.jit
def gradient(params, kind, images):
    return jax.grad(lambda x: jnp.mean(losses_of(params, kind, x)))(images)


class Case:
    """The stored pairs with the trained micro model in one precision."""

    def __init__(self, folder, dtype):
        self.dtype, self.stored = np.dtype(dtype), np.load(folder / "pgd_micro.npz")
        clip = micro_clip.load(folder / "clip_micro_trained", dtype)
        self.images = jnp.asarray(self.stored["images_u8"].astype(dtype) / np.asarray(255, dtype))
        self.start = self.images + jnp.asarray(self.stored["noise"].astype(dtype))
        self.mask = jnp.asarray(self.stored["mask"] != 0)
        text, clean = (jnp.asarray(self.value(f"{side}_embeds")) for side in ("text", "image"))
        self.params = {"clip": clip, "text": text, "clean": clean}
        self.keys = jax.random.split(jax.random.key(0), len(self.images))

    def run(self, kind, initial=None, steps=10, epsilon=EPS, step_size=STEP, **more):
        if steps > 1 and "norm" not in more:
            more = {"momentum": 0.0} | more  # without decay the signs are those of the gradient: one program for both
        settings = pgd.PGD(epsilon, step_size, steps, start="none", keep="last", **more)
        initial = self.images if initial is None else initial
        return attack(self.params, KINDS.index(kind), self.images, self.keys, settings, initial)

    def one_by_one(self, kind, initial, steps, **more):
        """The same through single steps: every iterate, and the loss at each."""
        path, trace = [jnp.clip(initial, 0, 1)], []
        for _ in range(steps):
            result = self.run(kind, path[-1], steps=1, **more)
            path.append(result.images)
            trace.append(result.trace[0])
        return np.stack(path), np.stack([*trace, result.trace[1]]).mean(1)

    def value(self, name):
        return self.stored[f"{name}_{self.dtype.name}"]

    def check(self, images, trace, images_name, loss_name):
        wide = self.dtype == np.float64
        assert images.dtype == self.dtype
        np.testing.assert_allclose(images, self.value(images_name), rtol=0, atol=1e-9 if wide else 1e-6)
        np.testing.assert_allclose(trace, self.value(loss_name), rtol=0, atol=1e-9 if wide else 2e-5)


@pytest.fixture(scope="module")
def case64(reference_cases):
    with jax.enable_x64(True):
        yield Case(reference_cases, np.float64)


@pytest.fixture(scope="module")
def case32(reference_cases):
    return Case(reference_cases, np.float32)


def test_embeddings_of_the_independent_forward(case64):
    found = unit(image_features(case64.params["clip"], case64.images))
    np.testing.assert_allclose(found, case64.value("image_embeds"), rtol=0, atol=1e-10)
    ids = jnp.asarray(case64.stored["ids"], jnp.int32)
    found = unit(text_features(case64.params["clip"], ids, case64.mask))
    np.testing.assert_allclose(found, case64.value("text_embeds"), rtol=0, atol=1e-10)


# numerical agreement, float64: losses, final images, every iterate and every gradient
@pytest.mark.parametrize("kind", ["nce", "cos"])
def test_trajectory_in_float64(case64, kind):
    result = case64.run(kind, case64.start)
    case64.check(result.images, result.trace.mean(1), f"adv_{kind}", f"loss_{kind}")
    path, _ = case64.one_by_one(kind, case64.start, 10)
    np.testing.assert_allclose(path, case64.value(f"path_{kind}"), rtol=0, atol=1e-9)
    for iterate, expected in zip(path[:-1], case64.value(f"grads_{kind}")):
        found = gradient(case64.params, KINDS.index(kind), jnp.asarray(iterate))
        assert np.linalg.norm(found - expected) <= 1e-8 * np.linalg.norm(expected)


# numerical agreement, float32
@pytest.mark.parametrize("kind", ["nce", "cos"])
def test_trajectory_in_float32(case32, kind):
    result = case32.run(kind, case32.start)
    case32.check(result.images, result.trace.mean(1), f"adv_{kind}", f"loss_{kind}")


# epsilon 0 is the identity; no start; text-guided; targeted by negation
@pytest.mark.parametrize(
    ("kind", "name", "epsilon"),
    [
        ("nce", "eps0_nce", 0.0),
        ("nce", "nostart_nce", EPS),
        ("text", "nostart_costext", EPS),
        ("next", "target_text", EPS),
    ],
)
def test_cases_of_ten_steps(case64, kind, name, epsilon):
    result = case64.run(kind, epsilon=epsilon)
    case64.check(result.images, result.trace.mean(1), f"case_{name}_adv", f"case_{name}_loss")


# one step is FGSM; a step longer than the ball; a ball larger than the box
@pytest.mark.parametrize(
    ("name", "steps", "epsilon", "step_size"),
    [("fgsm_nce", 1, EPS, EPS), ("bigstep_nce", 3, 2 / 255, 8 / 255), ("eps1_nce", 5, 1.0, 0.25)],
)
def test_cases_step_by_step(case64, name, steps, epsilon, step_size):
    path, trace = case64.one_by_one("nce", case64.images, steps, epsilon=epsilon, step_size=step_size)
    case64.check(path[-1], trace, f"case_{name}_adv", f"case_{name}_loss")
    images = np.asarray(case64.images)
    assert all(np.abs(iterate - images).max() <= epsilon + 1e-12 for iterate in path)


# MI-FGSM and L2, agreement and the ball per image
def test_momentum(case64):
    result = case64.run("nce", momentum=1.0)
    case64.check(result.images, result.trace.mean(1), "case_mifgsm_nce_adv", "case_mifgsm_nce_loss")


def test_l2(case64):
    result = case64.run("nce", epsilon=1.0, step_size=0.25, norm="l2")
    # The stored case divides the gradient of the batch mean by ||g|| + 1e-10; ours is scale-free, hence 1e-8, not 1e-9.
    np.testing.assert_allclose(result.images, case64.value("case_l2_nce_adv"), rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.trace.mean(1), case64.value("case_l2_nce_loss"), rtol=0, atol=1e-6)
    assert float(result.norm.max()) <= 1 + 1e-12


# small steps are monotone
def test_small_steps_rise_monotonically(case64):
    result = case64.run("nce", step_size=0.1 / 255)
    expected = [0.056960, 0.062020, 0.067619, 0.073820, 0.080689, 0.088300]
    np.testing.assert_allclose(result.trace.mean(1)[:6], expected, atol=5e-7)
    assert np.all(np.diff(result.trace.mean(1)[:6]) > 0)


# more budget is not worse
def test_larger_radius_raises_more(case64):
    final = [float(case64.run("nce", epsilon=e / 255, step_size=e / 4 / 255).loss.mean()) for e in (2, 4, 8)]
    np.testing.assert_allclose(final, [0.366, 1.56, 7.03], rtol=5e-3)


# effect: every image under the cosine, the batch mean under InfoNCE
def test_attack_raises_the_loss(case32):
    cosine, nce = case32.run("cos", case32.start), case32.run("nce", case32.start)
    assert np.all(cosine.loss > cosine.clean_loss)
    assert float(nce.loss.mean()) > float(nce.clean_loss.mean())


# joint: the image half of the stored text-then-image attack, image alone and with the attacked text
def test_joint_image_half(case64, reference_cases):
    joint = np.load(reference_cases / "joint_micro.npz")
    ids = jnp.asarray(joint["adv_ids"], jnp.int32)
    attacked = unit(text_features(case64.params["clip"], ids, case64.mask))
    for text, name in ((case64.params["text"], "image_only"), (attacked, "joint")):
        params = case64.params | {"text": text}
        settings = pgd.PGD(EPS, STEP, 10, start="none", keep="last", momentum=0.0)
        result = attack(params, KINDS.index("text"), case64.images, case64.keys, settings, case64.start)
        np.testing.assert_allclose(result.images, joint[f"{name}_adv"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.trace.mean(1), joint[f"{name}_loss"], rtol=0, atol=1e-9)
