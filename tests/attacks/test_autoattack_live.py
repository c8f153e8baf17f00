"""Live parity of AutoAttack with its authors' code (the package pyautoattack): one small model, 200 images.

Skips where torch or that package is absent (the optional extra `parity`, and pyautoattack without its dependencies).
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity with AutoAttack's code needs torch: the extra 'parity'")
peer = pytest.importorskip("pyautoattack", reason="parity with AutoAttack's code needs the package pyautoattack")

from experiments.parity import digits  # noqa: E402
from ranjax.attacks import pgd, square  # noqa: E402
from ranjax.attacks.square import Square  # noqa: E402
from ranjax.evaluation import AutoAttack  # noqa: E402

RADII = {"linf": 0.12, "l2": 0.7, "l1": 3.5}
THEIRS = {"apgd_ce": "apgd-ce", "apgd_dlr": "apgd-dlr", "apgd_t": "apgd-t", "fab": "fab", "fab_t": "fab-t"}
THEIRS["square"] = "square"
# On one image of 200 the two may disagree, for their random numbers are not the same.
WITHIN = 1


@pytest.fixture(scope="module")
def bed():
    torch.set_num_threads(1)
    model = digits.torch_model()
    _, _, images, labels = digits.data()
    params = digits.jax_params(model)
    x = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    np.testing.assert_allclose(digits.jax_logits(params, images), model(x).numpy(), atol=1e-4)
    return model, x, torch.from_numpy(labels), params, images, labels


def theirs(bed, norm, version="custom", attacks=None, seed=0):
    """How many images are right after the attacks of the public code."""
    model, x, y = bed[:3]
    attack = peer.AutoAttack(
        model, attacks=attacks, eps=RADII[norm], norm=norm.capitalize(), version=version, seed=seed, device="cpu"
    )
    attack.fab.n_restarts = attack.apgd.n_restarts = 1
    if version == "custom" and norm == "l1":
        attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = True
        attack.apgd_targeted.n_target_classes = 5
    if version == "standard" and norm == "l1":
        attack.apgd.n_restarts = 5
    with torch.no_grad():
        found = attack.run_standard_evaluation(x, y)[0]
        return int((model(found).argmax(1) == y).sum())


def ours(bed, norm, **how):
    params, images, labels = bed[3:]
    attack = AutoAttack((digits.jax_logits, params), RADII[norm], norm, batch_size=200, **how)
    return int(attack.run(images, labels).robust.sum())


@pytest.mark.slow
@pytest.mark.parametrize("norm", RADII)
def test_the_ensemble_leaves_as_many_right_as_the_public_code(bed, norm):
    expected = theirs(bed, norm, "standard")
    assert 10 < expected < 190
    assert abs(ours(bed, norm) - expected) <= WITHIN


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in THEIRS if name != "square"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_attack_alone_leaves_as_many_right_as_the_public_code(bed, norm, name):
    expected = theirs(bed, norm, attacks=[THEIRS[name]])
    found = ours(bed, norm, attacks=(name,))
    assert 10 < expected < 198
    assert abs(found - expected) <= WITHIN


@pytest.mark.slow
def test_square_alone_leaves_as_many_right_as_the_public_code_does_over_its_seeds(bed):
    """A random search: its count moves with the seed, on either side by as much."""
    expected = [theirs(bed, "linf", attacks=["square"], seed=seed) for seed in range(3)]
    found = [ours(bed, "linf", attacks=("square",), seed=seed) for seed in range(3)]
    assert abs(np.mean(found) - np.mean(expected)) <= 2 * WITHIN
    assert min(expected) - WITHIN <= np.median(found) <= max(expected) + WITHIN


@pytest.mark.parametrize("rescale", [False, True])
def test_the_schedule_of_square_is_that_of_the_public_code(rescale):
    attack = peer.square.SquareAttack(lambda x: x, n_queries=5000, eps=0.1, resc_schedule=rescale)
    expected = [attack.p_selection(i) for i in range(5000)]
    np.testing.assert_array_equal(square.shares(Square(0.1, 5000, rescale=rescale)), expected)


@pytest.mark.parametrize(("norm", "power"), [("L2", 2), ("L1", 4)])
def test_the_bump_of_square_is_that_of_the_public_code(norm, power):
    attack = peer.square.SquareAttack(lambda x: x, norm=norm, n_queries=10, eps=0.1)
    attack.init_hyperparam(torch.zeros(1, 1, 8, 8))
    for side in (3, 5, 7, 12):
        found = square.bump(side, power)
        expected = attack.eta(side).numpy()
        assert min(np.abs(found - expected).max(), np.abs(found.T - expected).max()) < 1e-6


def test_a_torch_module_is_attacked_as_the_same_model_in_jax_is(bed):
    model, _, _, params, images, labels = bed
    settings = pgd.PGD(eps=0.1, steps=5)
    one, other = (settings(given, images[:32], labels[:32]) for given in (model, (digits.jax_logits, params)))
    np.testing.assert_allclose(one.clean_loss, other.clean_loss, atol=1e-4)
    # Where a gradient is near 0 its sign may differ.
    assert (np.abs(one.images - other.images) < 1e-4).mean() > 0.99
    assert (one.success != other.success).sum() <= 1
