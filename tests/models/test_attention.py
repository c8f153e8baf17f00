"""Every form of attention gives what the plain one gives; the kernel for TPUs runs step by step on a CPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ranjax import models
from ranjax.core.errors import ConfigError
from ranjax.core.precision import exact
from ranjax.models.attention import dot_product_attention, form_of, switch, visible

LENGTH, HEADS = 70, 2
"""Neither a multiple of the lanes of a TPU nor of 8."""


def operands(dtype=jnp.float32, length=LENGTH):
    draw = np.random.default_rng(0)
    return tuple(jnp.asarray(draw.normal(size=(2, length, 16)), dtype) for _ in range(3))


REAL = np.arange(LENGTH)[None] < np.array([[50], [LENGTH]])
HOLES = REAL & (np.arange(LENGTH)[None] % 3 != 1)


@pytest.mark.parametrize(
    ("keys", "causal"),
    [
        (REAL, True),
        pytest.param(None, False, marks=pytest.mark.slow),
        pytest.param(HOLES, False, marks=pytest.mark.slow),
    ],
)
def test_splash_attention_is_plain_attention_to_rounding(keys, causal):
    def loss(q, k, v):
        seen = visible(None if keys is None else jnp.asarray(keys), causal, LENGTH)
        out = dot_product_attention(q, k, v, seen, HEADS)
        return jnp.sum(jnp.sin(out)), out

    def run(form):
        with switch(form):
            return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*operands())

    (slopes, out), (expected, plain) = run("splash_interpreted"), run("plain")
    np.testing.assert_allclose(out, plain, atol=2e-5)
    for one, other in zip(slopes, expected):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.slow
def test_splash_attention_goes_through_checks_of_what_varies_between_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    rows, whole = jax.P("data"), jax.P()

    def step(weight, q, k, v):
        def loss(weight):
            out = dot_product_attention(q * weight, k, v, None, HEADS)
            return jax.lax.pmean(jnp.mean(jnp.sin(out)), "data")

        return jax.value_and_grad(loss)(weight)

    def run(form):
        with switch(form):
            mapped = jax.shard_map(step, mesh=mesh, in_specs=(whole, rows, rows, rows), out_specs=(whole, whole))
            return jax.jit(mapped)(jnp.float32(1.5), *operands())

    np.testing.assert_allclose(run("splash_interpreted"), run("plain"), rtol=1e-5)


def test_the_switch_the_operands_and_the_precision_choose_the_form():
    q, k, _ = operands()
    narrow = q.astype(jnp.bfloat16)
    assert form_of(q, k, None, HEADS) == "plain"  # on a CPU
    with switch("splash"):
        assert form_of(q, k, None, HEADS) == "splash"
        assert form_of(q[:, :1], k, None, HEADS) == "plain"
        assert form_of(q, k, jnp.ones((1, 1, 1, LENGTH), bool), HEADS) == "plain"
        assert exact(form_of)(q, k, None, HEADS) == "plain"
    with switch("tpu"):
        long = jnp.zeros((1, 512, 16), jnp.bfloat16)
        assert form_of(q, k, None, HEADS) == "plain"  # too short to be worth a kernel
        assert form_of(long, long, None, HEADS) == "splash"
    with switch("cudnn"):
        assert form_of(narrow, narrow, None, HEADS) == "cudnn"
        assert form_of(q, k, None, HEADS) == "plain"  # it takes half precision alone
    with (
        switch("flash"),
        pytest.raises(ConfigError, match=r"attention.switch = 'flash': expected one of auto, tpu, plain"),
    ):
        form_of(q, k, None, HEADS)


def test_an_encoder_s_own_choice_stands_above_the_one_around_it():
    def forms(choice):
        small = {"vision_width": 8, "vision_layers": 2, "vision_heads": 2, "text_layers": 1}
        config = dataclasses.replace(models.clip(vocab_size=9, eos_id=1, **small), attention=choice)
        image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)

        def features(image):
            functions, params = models.split(models.DualEncoder(config, nnx.Rngs(0)))
            return functions.image_features(params, image)

        with switch("splash"):
            return str(jax.make_jaxpr(features)(image))

    assert "pallas_call" in forms("auto")
    assert "pallas_call" not in forms("plain")


@pytest.mark.parametrize("derivative", ["forward", "of a gradient"])
def test_a_fused_kernel_refuses_derivatives_that_it_does_not_have(derivative):
    q, k, v = operands()

    def loss(q):
        return jnp.sum(dot_product_attention(q, k, v, None, HEADS) ** 2)

    def differentiate():
        if derivative == "forward":
            return jax.jit(lambda q: jax.jvp(loss, (q,), (q,))[1]).lower(q)
        return jax.jit(jax.grad(lambda q: jnp.sum(jax.grad(loss)(q) ** 2))).lower(q)

    with switch("splash_interpreted"), pytest.raises((TypeError, NotImplementedError)):
        differentiate()
    with switch("plain"):
        differentiate()
