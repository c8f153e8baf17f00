"""Memory of the compiled pre-training step: no device holds its rows of the matrix, activations come in parts."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.training import contrastive_step as pretrain
from ranjax.training import devices, optimizer

WIDTH, DEPTH, EMBED, SIDE = 64, 2, 8, 4
DEVICES = 2


class Deep:
    """An encoder whose activations outweigh its parameters: DEPTH layers on each side, all kept for the gradient."""

    def image_features(self, params, images):
        return self._through(params["image"], images.reshape(images.shape[0], -1))

    def text_features(self, params, tokens, mask):
        return self._through(params["text"], params["table"][tokens].mean(1))

    def _through(self, layers, x):
        for kernel in layers:
            x = jnp.tanh(x @ kernel)
        return x

    def logit_scale(self, params):
        return jnp.exp(params["log_scale"])

    def logit_bias(self, params):
        return jnp.zeros(())


def shapes():
    def of(*sides):
        return jax.ShapeDtypeStruct(sides, jnp.float32)

    def layers(first):
        return [of(first, WIDTH), *[of(WIDTH, WIDTH)] * DEPTH, of(WIDTH, EMBED)]

    return {"image": layers(SIDE * SIDE), "text": layers(EMBED), "table": of(20, EMBED), "log_scale": of()}


@functools.cache
def compiled(rows, accumulate=1, chunk=None):
    """The step on DEVICES devices with a global batch of `rows` pairs."""
    mesh = devices.make_mesh(DEVICES)
    settings = optimizer.AdamWSettings(learning_rate=1e-3, steps=10)
    made = pretrain.program(
        Deep(), shapes(), settings, mesh, batch_size=rows, accumulate=accumulate, chunk=chunk
    )  # fmt: skip
    batch = {
        "image": jax.ShapeDtypeStruct((rows, SIDE, SIDE, 1), np.uint8),
        "tokens": jax.ShapeDtypeStruct((rows, 3), np.int32),
        "mask": jax.ShapeDtypeStruct((rows, 3), np.bool_),
    }
    return made.step.lower(made.abstract(shapes()), batch, jax.random.key(0)).compile()


def temporary(*arguments):
    return compiled(*arguments).memory_analysis().temp_size_in_bytes


def largest(program, columns):
    """Rows of the tallest array in the program with one column for each of `columns` pairs of the global batch."""
    found = re.findall(rf"f32\[(?:(\d+),{columns}|{columns},(\d+))\]", program.as_text())
    # Features and inputs of the global batch have few columns of their own.
    return max((int(a or b) for a, b in found), default=0)


def test_with_chunks_no_device_holds_its_rows_of_the_matrix_of_cosines():
    rows, chunk = 1024, 4
    plain, lean = compiled(rows), compiled(rows, 1, chunk)
    assert largest(plain, rows) == rows // DEVICES
    assert largest(lean, rows) <= max(chunk, WIDTH)
    block = 4 * rows * rows // DEVICES
    assert temporary(rows) > 2 * block
    assert temporary(rows, 1, chunk) < block
    # The matrix grows with the square of the batch, what is left with the batch.
    assert temporary(2 * rows) > 3.2 * temporary(rows)
    assert temporary(2 * rows, 1, chunk) < 2.2 * temporary(rows, 1, chunk)


@pytest.mark.slow
def test_parts_divide_the_activations_and_leave_the_matrix_to_chunks():
    rows, chunk, parts = 1024, 4, 8
    whole, divided = temporary(rows, 1, chunk), temporary(rows, parts, chunk)
    activations = 2 * DEPTH * 4 * WIDTH * rows // DEVICES
    assert whole > activations
    assert divided < whole - 0.7 * activations
    # Without chunks the rows of the matrix stay, whatever the number of parts.
    assert temporary(rows, parts) > 4 * rows * rows // DEVICES
