"""Robust accuracy by radius and attack: a linear model's closed form, the CSV read back, and what is refused."""

import csv
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.attacks import pgd
from ranjax.core.errors import ConfigError, DataError
from ranjax.evaluation.robust_accuracy import robust_accuracy
from ranjax.evaluation.white_box import WhiteBox

RADII = ("1/255", "4/255", 0.02)
LENGTHS = np.array([1 / 255, 4 / 255, 0.02])


def logits_fn(params, images):
    return images.reshape(images.shape[0], -1) @ params


@pytest.fixture(scope="module")
def case():
    """Images far from 0 and 1, and by how much each one's label leads, in radii of the Linf ball."""
    rng = np.random.default_rng(3)
    images = (0.4 + 0.2 * rng.random((11, 2, 3, 1))).astype(np.float32)
    head = rng.normal(size=(6, 2))
    head[:, 0] += ((images.reshape(11, 6) @ (head[:, 1] - head[:, 0])).mean()) / 3  # about half on each side
    gap = images.reshape(11, 6) @ (head[:, 0] - head[:, 1])
    labels = (gap < 0).astype(np.int64)
    labels[4] = 1 - labels[4]
    lead = gap * (1 - 2 * labels) / np.abs(head[:, 0] - head[:, 1]).sum()
    return jnp.asarray(head, jnp.float32), images, labels, lead


@pytest.fixture(scope="module")
def attacks():
    """One that finds the worst case of a linear model, and one that hardly moves."""
    full = pgd.PGD(0.1, 0.05, 4, start="none")
    weak = pgd.PGD(0.1, 1e-4, 1, start="none")
    return {"full": WhiteBox(logits_fn, full, batch_size=8), "weak": WhiteBox(logits_fn, weak, batch_size=8)}


def test_each_attack_and_their_worst_are_the_closed_form_and_stand_in_the_csv(case, attacks, tmp_path):
    params, images, labels, lead = case
    names = [f"image, {i}" for i in range(11)]  # a comma in an id stays within its cell
    found = robust_accuracy(logits_fn, params, images, labels, epsilons=RADII, attacks=attacks, ids=names, batch_size=8)
    np.testing.assert_array_equal(found.clean, lead > 0)
    np.testing.assert_array_equal(found.survived["full"], lead[None] > LENGTHS[:, None])
    np.testing.assert_allclose(found.accuracy, (lead[None] > LENGTHS[:, None]).mean(1))
    assert 0 < found.accuracy[-1] < found.accuracy[0] < found.clean.mean() < 1
    assert (found.survived["weak"] >= found.survived["full"]).all()
    assert found.survived["weak"].sum() > found.survived["full"].sum()
    assert found.interval(1).low <= found.accuracy[1] <= found.interval(1).high
    found.write_csv(tmp_path / "robust.csv")
    with (tmp_path / "robust.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == names
    for row, one, label in zip(rows, lead, labels):
        assert (row["label"], row["clean"]) == (str(label), str(int(one > 0)))
        assert row["worst@4/255"] == row["full@4/255"] == str(int(one > 4 / 255))
        broken = [radius for radius, length in zip((0, *RADII), (0, *LENGTHS)) if one <= length]
        assert row["broken_at"] == (str(broken[0]) if broken else "")
    last = str(found).splitlines()[-1].split()
    assert last == ["worst", *(f"{100 * share:.1f}" for share in (found.clean.mean(), *found.accuracy))]


def test_the_standard_attacks_find_a_linear_models_worst_case(case):
    params, images, labels, lead = case
    found = robust_accuracy(logits_fn, params, images, labels, epsilons=RADII[1:2], batch_size=16)
    assert set(found.survived) == {"apgd_ce", "apgd_t", "square"}
    assert found.notes == ()
    np.testing.assert_array_equal(found.worst[0], lead > 4 / 255)
    alone = robust_accuracy(logits_fn, params, images, labels, epsilons=RADII[1:2], attacks=("apgd_ce",), batch_size=16)
    assert set(alone.survived) == {"apgd_ce"}
    np.testing.assert_array_equal(alone.survived["apgd_ce"], found.survived["apgd_ce"])


def rounded_inputs(params, images):
    """Sees 33 grey levels, and has no gradient by its input."""
    return logits_fn(params, jnp.round(32 * images) / 32)


def rounded_outputs(params, images):
    return jnp.round(8 * logits_fn(params, images)) / 8 + jnp.asarray([[0, 1e-3]])


@pytest.fixture(scope="module")
def coarse_case():
    """A linear model, its weights of one sign a patch; images lean to their class, too far for a random start."""
    rng = np.random.default_rng(0)
    one = np.kron(rng.permutation([-1.0, 1.0] * 8).reshape(4, 4), np.ones((2, 2))).reshape(64)
    head = np.stack([one, -one], axis=1)
    labels = np.arange(12) % 2
    lean = np.sign(head[:, labels] - head[:, 1 - labels]).T
    images = 0.5 + 0.04 * lean + rng.uniform(-0.02, 0.02, (12, 64))
    return jnp.asarray(head, jnp.float32), images.reshape(12, 8, 8, 1).astype(np.float32), labels


@pytest.mark.parametrize("model", [rounded_inputs, rounded_outputs])
@pytest.mark.parametrize("attacks", [("standard",), ("pgd",)])
def test_of_a_model_that_hides_its_gradients_no_figure_comes_without_a_warning(coarse_case, model, attacks):
    """PGD, which follows nothing, leaves most right; Square breaks them, and says so. By PGD alone it is said, too."""
    params, images, labels = coarse_case
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = robust_accuracy(model, params, images, labels, epsilons=(0.1,), attacks=attacks, batch_size=16)
    said = [str(one.message).removeprefix("robust accuracy: ") for one in caught if one.category is UserWarning]
    assert tuple(said) == found.notes
    assert "right images have a gradient of exactly 0" in said[0]
    assert f"WARNING: {said[0]}" in str(found)
    if attacks == ("standard",):
        assert said[1].startswith("Square alone broke")
        assert found.survived["square"].mean() < 0.5 < found.survived["apgd_ce"].mean()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"epsilons": "4/255"}, ConfigError, "a list of radii"),
        ({"epsilons": (0.02, 0.01)}, ConfigError, "rising"),
        ({"epsilons": (8,)}, ConfigError, "Written in 0-255"),
        ({"epsilons": (8,), "norm": "l2"}, ConfigError, "the root of an image's 6 numbers"),
        ({"epsilons": ()}, ConfigError, "at least one radius"),
        ({"attacks": {}}, ConfigError, "at least one"),
        ({"attacks": ("pdg",)}, ConfigError, r"attacks = 'pdg': expected an attack .*did you mean 'pgd'"),
        ({"images": 200.0}, DataError, r"expected \[0, 1\]"),
        ({"labels": np.full(11, 2)}, DataError, r"labels lie in 2\.\.2, the model has classes 0\.\.1"),
        ({"labels": np.zeros(3, int)}, DataError, "for each of 11 images"),
        ({"ids": ["a"] * 11}, DataError, "11 ids, 1 of them different"),
    ],
)
def test_what_does_not_fit_is_refused(case, attacks, change, kind, words):
    params, images, labels, _ = case
    given = {"epsilons": RADII, "attacks": attacks, **change}
    images = images * given.pop("images", 1)
    with pytest.raises(kind, match=words):
        robust_accuracy(logits_fn, params, images, given.pop("labels", labels), **given)
