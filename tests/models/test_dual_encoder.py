import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_encoder import TINY, seeded

from ranjax.core.errors import ConfigError
from ranjax.models import DualEncoder, DualEncoderFunctions, split
from ranjax.models.layers import Block, Linear, Stack, take_position
from ranjax.models.towers.bert import BertConfig, PostNormBlock


def test_features_have_the_contract_s_shapes_and_dtypes(tiny, batch, encode):
    functions, params = tiny
    image, text = encode(functions, params, *batch)
    assert image.shape == text.shape == (3, 10)
    assert image.dtype == text.dtype == jnp.float32
    assert functions.token_table(params).shape == (40, 12)
    assert np.isfinite(image).all()
    assert np.isfinite(text).all()


def test_functions_are_static_arguments_and_compile_once(batch, encode):
    functions, params = seeded(TINY, 1)
    again = DualEncoderFunctions(dataclasses.replace(TINY))
    assert functions == again
    assert hash(functions) == hash(again)
    encode(functions, params, *batch)
    before = encode._cache_size()
    encode(again, jax.tree.map(lambda p: p + 1, params), *batch)
    assert encode._cache_size() == before


def test_params_are_a_plain_nested_dict_of_float32_arrays(tiny):
    _, params = tiny

    def check(node):
        for key, value in node.items():
            assert isinstance(key, str)
            if isinstance(value, dict):
                check(value)
            else:
                assert isinstance(value, jax.Array)
                assert value.dtype == jnp.float32

    check(params)


def test_given_embeddings_stand_in_for_the_token_table(tiny, batch, encode):
    functions, params = tiny
    _, tokens, mask = batch
    rows = functions.token_table(params)[tokens]
    given = jax.jit(functions.text_features)(params, tokens, mask, rows)
    np.testing.assert_allclose(given, encode(functions, params, *batch)[1], atol=1e-6)


def test_nothing_behind_the_first_eos_counts(tiny, batch, encode):
    functions, params = tiny
    images, tokens, mask = batch
    noisy = tokens.at[0, 3:].set(jnp.asarray([39, 7, 39, 5, 3], jnp.int32))
    text = encode(functions, params, images, noisy, mask.at[0, 3:].set(True))[1]
    np.testing.assert_allclose(text, encode(functions, params, images, tokens, mask)[1], atol=1e-6)


def test_masked_tokens_do_not_count(tiny, batch, encode):
    functions, params = tiny
    images, tokens, mask = batch
    hidden = mask.at[2, 3].set(False)
    first = encode(functions, params, images, tokens, hidden)[1]
    second = encode(functions, params, images, tokens.at[2, 3].set(5), hidden)[1]
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_text_without_eos_is_pooled_at_its_last_token(batch):
    from ranjax.models.towers.text_transformer import pooling_positions

    tokens = jnp.asarray([[3, 4, 39, 39], [3, 4, 5, 0], [39, 1, 2, 3]], jnp.int32)
    mask = jnp.asarray([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(pooling_positions(tokens, mask, 39, "eos"), [2, 2, 0])
    np.testing.assert_array_equal(pooling_positions(tokens, mask, 2, "highest_id"), [2, 2, 0])


def test_an_example_does_not_depend_on_its_batch(tiny, batch, encode):
    functions, params = tiny
    image, text = encode(functions, params, *batch)
    order = np.array([2, 0, 1])
    shuffled = encode(functions, params, *(part[order] for part in batch))
    np.testing.assert_allclose(shuffled[0], image[order], atol=1e-6)
    np.testing.assert_allclose(shuffled[1], text[order], atol=1e-6)


def test_patches_and_matmul_equal_a_strided_convolution():
    from ranjax.models.towers.vision_transformer import patches

    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.random((2, 6, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.random((3 * 3 * 3, 4)), jnp.float32)
    convolved = jax.lax.conv_general_dilated(
        images, kernel.reshape(3, 3, 3, 4), (3, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(patches(images, 3) @ kernel, convolved.reshape(2, 4, 4), rtol=1e-5)


def test_a_grey_image_is_repeated_for_a_colour_tower(batch):
    config = dataclasses.replace(
        TINY, image=dataclasses.replace(TINY.image, channels=3), pixel_mean=None, pixel_std=None, grey_to_rgb=True
    )
    model = nnx.eval_shape(lambda: DualEncoder(config, nnx.Rngs(0)))
    model.log_scale = nnx.Param(jnp.zeros((), jnp.float32))
    grey = model.normalise(batch[0])
    assert grey.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(grey, model.normalise(jnp.concatenate([batch[0]] * 3, axis=-1)))


def test_normalisation_is_inside(tiny, batch, encode):
    _, params = tiny
    images, tokens, mask = batch
    plain = DualEncoderFunctions(dataclasses.replace(TINY, pixel_mean=(0.0,), pixel_std=(1.0,)))
    inside = encode(tiny[0], params, images, tokens, mask)[0]
    np.testing.assert_allclose(inside, encode(plain, params, (images - 0.5) / 0.25, tokens, mask)[0], atol=1e-6)


def test_the_logit_scale_is_clipped_at_100_and_comes_back_from_the_limit(tiny):
    functions, params = tiny
    assert float(functions.logit_scale(params)) == pytest.approx(math.exp(2.6592), rel=1e-6)
    slope = jax.grad(lambda s: functions.logit_scale({**params, "log_scale": s}))
    for stored, value, gradient in ((9.0, 100.0, 0.0), (np.log(100.0), 100.0, 100.0), (0.0, 1.0, 1.0)):
        at = jnp.asarray(stored, jnp.float32)
        assert float(functions.logit_scale({**params, "log_scale": at})) == pytest.approx(value, rel=1e-6)
        assert float(functions.logit_scale({**params, "log_scale": at})) <= 100.0
        assert float(slope(at)) == pytest.approx(gradient, rel=1e-5)


class Layer(nnx.Module):
    """The smallest thing that a stack can hold."""

    def __init__(self, rngs):
        self.linear = Linear(3, 3, 0.5, rngs)

    def __call__(self, x, allowed, at=None):
        return jnp.tanh(self.linear(x if at is None else take_position(x, at))) * allowed.astype(x.dtype)


@pytest.mark.parametrize("switches", [{}, {"remat": True, "scan": True}])
@pytest.mark.parametrize("at", [0, jnp.asarray([3, 1], jnp.int32)])
def test_a_pooled_stack_gives_that_position_of_the_whole_one_and_its_gradients(at, switches):
    real = jnp.asarray([[True] * 5, [True] * 4 + [False]])[:, None, None]
    causal = jnp.tril(jnp.ones((5, 5), bool))[None, None] & real
    compare_pooled(lambda: Block(8, 2, 16, 2, "gelu", 1e-5, nnx.Rngs(0)), at, causal, switches)


def test_a_bert_s_pooled_stack_gives_the_first_position_of_the_whole_one_and_its_gradients():
    config = BertConfig(vocab_size=4, width=8, heads=2, mlp_width=16)
    real = jnp.asarray([[True] * 5, [True] * 4 + [False]])[:, None, None]
    compare_pooled(lambda: PostNormBlock(config, nnx.Rngs(0)), 0, real, {})


def compare_pooled(make, at, causal, switches):
    graph, state = nnx.split(Stack(make, 2, **switches))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)

    def loss(state, x, pooled):
        run = nnx.merge(graph, state)
        return jnp.sum(jnp.sin(run(x, causal, at=at) if pooled else take_position(run(x, causal), at)))

    both = [
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)(state, x, flag) for flag in (True, False)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *both)


def test_remat_and_scan_change_neither_outputs_nor_gradients():
    def make(**switches):
        rngs = nnx.Rngs(0)
        return Stack(lambda: Layer(rngs), 3, **switches)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    state = nnx.to_pure_dict(nnx.state(make()))

    def run(**switches):
        graph = nnx.graphdef(make(**switches))

        def loss(state, x):
            return jnp.sum(jnp.square(nnx.merge(graph, state)(x, jnp.asarray([[True, True, False]]))))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(state, x)

    plain = run()
    for switches in ({"remat": True}, {"scan": True}, {"remat": True, "scan": True}):
        other = run(**switches)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, other)


@pytest.mark.slow
def test_features_are_differentiated_forward_as_in_reverse(tiny, batch, encode):
    functions, params = tiny
    images = batch[0]
    direction = jnp.ones_like(images)
    value, slope = jax.jvp(lambda x: jnp.sum(functions.image_features(params, x)), (images,), (direction,))
    reverse = jax.grad(lambda x: jnp.sum(functions.image_features(params, x)))(images)
    np.testing.assert_allclose(slope, jnp.sum(reverse * direction), rtol=1e-4)


def test_bfloat16_compute_keeps_float32_features_close(tiny, batch, encode):
    functions, params = tiny
    half = DualEncoderFunctions(dataclasses.replace(TINY, compute_dtype="bfloat16"))
    for exact, rough in zip(encode(functions, params, *batch), encode(half, params, *batch)):
        assert rough.dtype == jnp.float32
        cosine = jnp.sum(exact * rough, -1) / (jnp.linalg.norm(exact, axis=-1) * jnp.linalg.norm(rough, axis=-1))
        assert float(cosine.min()) > 0.999


def test_float64_parameters_compute_in_float64(tiny, batch, encode, float64):
    functions, params = tiny
    wide = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    features = encode(functions, wide, *batch)
    assert all(part.dtype == jnp.float64 for part in features)
    assert functions.logit_scale(wide).dtype == jnp.float64


def test_initial_deviations_go_by_width_and_depth(monkeypatch):
    rng = np.random.default_rng(0)
    # numpy's draws: jax's would be compiled for every shape.
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.asarray(rng.normal(size=shape), dtype))
    text = dataclasses.replace(TINY.text, vocab_size=500, width=128, mlp_width=0, layers=2, heads=2)
    config = dataclasses.replace(TINY, text=text)
    params = split(DualEncoder(config, nnx.Rngs(0)))[1]
    block = params["text"]["blocks"]["layers"]["1"]
    for value, std in (
        (params["text"]["token_embedding"], 0.02),
        (params["text"]["positions"], 0.01),
        (block["attention"]["query"]["kernel"], 128**-0.5),
        (block["attention"]["out"]["kernel"], 128**-0.5 * 4**-0.5),
        (block["mlp"]["fc1"]["kernel"], 256**-0.5),
        (block["mlp"]["fc2"]["kernel"], 128**-0.5 * 4**-0.5),
        (params["text_projection"]["kernel"], 128**-0.5),
    ):
        assert float(jnp.std(value)) == pytest.approx(std, rel=0.15)
    assert not np.any(block["mlp"]["fc1"]["bias"])


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("image", {"image_size": 20}, "model.vit.patch_size = 8.*image_size = 20"),
        ("image", {"channels": 2}, "model.channels = 2"),
        ("image", {"heads": 3}, "model.vit.heads = 3.*divisor"),
        ("image", {"layers": 0}, "model.vit.layers = 0"),
        ("text", {"activation": "swish"}, "model.text_transformer.activation = 'swish'.*quick_gelu"),
        ("text", {"eos_id": 40}, "model.eos_id = 40"),
        ("", {"pixel_mean": (0.1, 0.2)}, "model.pixel_mean"),
        ("", {"pixel_std": (0.0,)}, "model.pixel_std"),
        ("", {"grey_to_rgb": True}, "model.grey_to_rgb"),
        ("", {"compute_dtype": "float16"}, "model.compute_dtype"),
    ],
)
def test_a_config_that_cannot_be_built_names_its_key(part, change, named):
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(getattr(TINY, part, TINY), **change)


def test_inputs_that_do_not_fit_are_refused_before_compiling(tiny, batch):
    functions, params = tiny
    images, tokens, mask = batch
    with pytest.raises(ConfigError, match=r"images.shape.*\[B, 16, 16, 1\]"):
        functions.image_features(params, images[:, :8])
    with pytest.raises(ConfigError, match=r"images.shape"):
        functions.image_features(params, jnp.concatenate([images] * 3, axis=-1))
    with pytest.raises(ConfigError, match=r"images.dtype.*255"):
        functions.image_features(params, jnp.zeros((1, 16, 16, 1), jnp.uint8))
    with pytest.raises(ConfigError, match=r"tokens.shape.*max_length = 8"):
        functions.text_features(params, jnp.zeros((1, 9), jnp.int32), jnp.ones((1, 9), bool))
    with pytest.raises(ConfigError, match="mask"):
        functions.text_features(params, tokens, mask[:, :4])
    with pytest.raises(ConfigError, match=r"embeddings.shape"):
        functions.text_features(params, tokens, mask, jnp.zeros((3, 8, 5), jnp.float32))
