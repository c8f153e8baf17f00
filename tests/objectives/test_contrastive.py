"""InfoNCE and the sigmoid loss: stored float64 references, closed forms, differences, chunks and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from ranjax.objectives import contrastive


def _features(rows=16, width=6, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)).astype(dtype), rng.normal(size=(rows, width)).astype(dtype)


def _loss(log_scale, image, text, **kwargs):
    return contrastive.info_nce(image, text, jnp.exp(log_scale), **kwargs)[0]


_info_nce = jax.jit(contrastive.info_nce)
_value_and_grads = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1, 2)), static_argnames=("chunk",))


@pytest.mark.parametrize("case", "abcd")
def test_info_nce_equals_the_stored_values_and_gradients(case, reference_cases, float64):
    stored = np.load(reference_cases / "losses.npz")

    def get(name):
        return stored[f"clip_{case}_{name}"]

    loss, (d_scale, d_image, d_text) = _value_and_grads(jnp.asarray(get("logit_scale")), get("img"), get("txt"))
    np.testing.assert_allclose(loss, get("loss"), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(d_scale, get("dscale"), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(d_image, get("dimg"), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d_text, get("dtxt"), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", "abcd")
def test_info_nce_in_float32(case, reference_cases):
    stored = np.load(reference_cases / "losses.npz")
    image, text = stored[f"clip_{case}_img"].astype(np.float32), stored[f"clip_{case}_txt"].astype(np.float32)
    loss, (d_scale, d_image, d_text) = _value_and_grads(np.float32(stored[f"clip_{case}_logit_scale"]), image, text)
    assert loss.dtype == d_image.dtype == jnp.float32
    np.testing.assert_allclose(loss, stored[f"clip_{case}_loss"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(d_image, stored[f"clip_{case}_dimg"], rtol=1e-4, atol=1e-5)


def test_info_nce_equals_the_closed_form_and_differences(float64):
    image, text = _features(7)
    scale = jnp.asarray(3.0)
    loss, aux = _info_nce(image, text, scale)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    logits = 3.0 * unit[0] @ unit[1].T

    def cross_entropy(z):
        return np.mean(np.log(np.exp(z).sum(1)) - np.diag(z))

    np.testing.assert_allclose(loss, (cross_entropy(logits) + cross_entropy(logits.T)) / 2, rtol=1e-12)
    np.testing.assert_allclose(aux["image_to_text_accuracy"], np.mean(logits.argmax(1) == np.arange(7)), rtol=1e-6)
    np.testing.assert_allclose(aux["text_to_image_accuracy"], np.mean(logits.argmax(0) == np.arange(7)), rtol=1e-6)

    swapped, _ = _info_nce(text, image, scale)
    np.testing.assert_allclose(loss, swapped, rtol=1e-13)
    log_scale, direction, h = jnp.log(scale), _features(7, seed=3), 1e-6
    _, grads = _value_and_grads(log_scale, image, text)
    moved = [
        _info_nce(image + s * h * direction[0], text + s * h * direction[1], jnp.exp(log_scale + s * h))[0].item()
        for s in (1.0, -1.0)
    ]
    slope = grads[0] + (grads[1] * direction[0]).sum() + (grads[2] * direction[1]).sum()
    np.testing.assert_allclose((moved[0] - moved[1]) / (2 * h), slope, rtol=1e-7)


def test_info_nce_is_safe_at_extremes():
    image, text = _features(dtype=np.float32)
    loss, grads = _value_and_grads(np.float32(np.log(1000.0)), image, text)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in grads)
    one, (d_scale, d_image, _) = _value_and_grads(np.float32(1), image[:1], text[:1])
    assert one == 0
    assert d_scale == 0
    assert not d_image.any()
    image[3] = 0
    loss, grads = _value_and_grads(np.float32(1), image, text)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in grads)
    image[3] = np.nan
    assert np.isnan(_value_and_grads(np.float32(1), image, text)[0])


def test_ties_count_against_the_model():
    same = jnp.ones((4, 3))
    _, aux = _info_nce(same, same, jnp.float32(1))
    assert aux["image_to_text_accuracy"] == 0


def test_loss_is_invariant_to_a_shift_of_all_logits(float64):
    similarities = jnp.asarray([0.3, -0.2, 0.9])
    row = contrastive._cross_entropy(jnp.asarray(1.0))
    np.testing.assert_allclose(
        row(similarities, jnp.int32(1))[0], row(similarities + 1000.0, jnp.int32(1))[0], rtol=1e-12
    )


@pytest.mark.parametrize("chunk", [1, 5, 99])
def test_chunks_equal_the_whole(chunk, float64):
    image, text = _features()
    whole, whole_grads = _value_and_grads(jnp.asarray(1.5), image, text)
    part, part_grads = _value_and_grads(jnp.asarray(1.5), image, text, chunk=chunk)
    np.testing.assert_allclose(part, whole, rtol=1e-13)
    for a, b in zip(part_grads, whole_grads):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_chunks_never_hold_the_whole_matrix():
    rows = 512
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((), (rows, 4), (rows, 4))]
    chunked = _value_and_grads.lower(*shapes, chunk=32).compile().memory_analysis().temp_size_in_bytes
    whole = _value_and_grads.lower(*shapes, chunk=None).compile().memory_analysis().temp_size_in_bytes
    assert whole >= 4 * rows * rows
    assert chunked < 2 * rows * rows


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="features must both be"):
        contrastive.info_nce(jnp.ones((3, 4)), jnp.ones((2, 4)), jnp.float32(1))
    with pytest.raises(ValueError, match="chunk = 0"):
        contrastive.info_nce(jnp.ones((3, 4)), jnp.ones((3, 4)), jnp.float32(1), chunk=0)


def _all_objectives(params, image, text, axis_name=None):
    scale = jnp.exp(params["scale"])
    pair = image @ params["image"], text @ params["text"]
    nce, aux = contrastive.info_nce(*pair, scale, axis_name=axis_name)
    chunked, _ = contrastive.info_nce(*pair, scale, axis_name=axis_name, chunk=1)
    sigmoid, _ = contrastive.sigmoid_loss(*pair, scale, params["bias"], axis_name=axis_name)
    return nce + 2 * chunked + 3 * sigmoid, aux | {"nce": nce, "chunked": chunked, "sigmoid": sigmoid}


@pytest.mark.parametrize("check_vma", [True, False])
def test_eight_devices_equal_one(check_vma, float64):
    """Guards the factor-of-eight trap: the loss and every parameter's gradient, not only their direction."""
    image, text = _features(rows=16)
    params = {"image": np.eye(6), "text": _features()[0][:6], "scale": np.asarray(1.0), "bias": np.asarray(-3.0)}
    whole = jax.jit(jax.value_and_grad(_all_objectives, has_aux=True))
    (loss, aux), grads = whole(params, image, text)

    def per_device(params, image, text):
        out, grads = jax.value_and_grad(lambda p: _all_objectives(p, image, text, "data"), has_aux=True)(params)
        return out, jax.lax.pmean(grads, "data")

    mesh = Mesh(np.array(jax.devices()[:8]), ("data",), axis_types=(AxisType.Auto,))
    p, split = PartitionSpec(), PartitionSpec("data")
    mapped = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=(p, split, split), out_specs=p, check_vma=check_vma))
    (loss8, aux8), grads8 = mapped(params, image, text)
    np.testing.assert_allclose(loss8, loss, rtol=1e-12)
    for key in aux:
        np.testing.assert_allclose(aux8[key], aux[key], rtol=1e-6)
    for key in grads:
        np.testing.assert_allclose(grads8[key], grads[key], rtol=1e-10, atol=1e-12, err_msg=key)


def test_sigmoid_loss_equals_the_closed_form(float64):
    image, text = _features(5)
    sigmoid_loss = jax.jit(contrastive.sigmoid_loss, static_argnames="chunk")
    loss, _ = sigmoid_loss(image, text, jnp.asarray(10.0), -10.0)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    z = (2 * np.eye(5) - 1) * (10.0 * unit[0] @ unit[1].T - 10.0)
    np.testing.assert_allclose(loss, np.sum(np.log1p(np.exp(-z))) / 5, rtol=1e-12)
    chunked, _ = sigmoid_loss(image, text, jnp.asarray(10.0), -10.0, chunk=2)
    np.testing.assert_allclose(loss, chunked, rtol=1e-12)
