"""A small convolutional classifier of scikit-learn's digits (8 x 8), trained by torch, and the same in JAX.

For parity with AutoAttack's public code: both sides attack the same weights on the same images.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def data(count: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images f32[N, 8, 8, 1] in [0, 1] and labels to train on, and `count` others."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32)[..., None], digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[count:], order[:count]
    return images[train], labels[train], images[test], labels[test]


def torch_model(steps: int = 400):
    """Trains the torch module, which takes [B, 1, 8, 8]; the same at every call."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 10),
    )
    images, labels, *_ = data()
    x, y = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels)
    optimizer, draw = torch.optim.Adam(model.parameters(), 2e-3), np.random.default_rng(1)
    for _ in range(steps):
        rows = torch.from_numpy(draw.integers(0, len(x), 128))
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def jax_params(model) -> dict[str, jax.Array]:
    """The same weights in JAX's layout; the flattened features are turned from [C, H, W] to [H, W, C]."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    head = state["5.weight"].reshape(10, 32, 4, 4).transpose(2, 3, 1, 0).reshape(512, 10)
    arrays = {
        **{f"w{i}": state[f"{place}.weight"].transpose(2, 3, 1, 0) for i, place in enumerate((0, 2))},
        **{f"b{i}": state[f"{place}.bias"] for i, place in enumerate((0, 2, 5))},
        "w2": head,
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def jax_logits(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """The model in JAX: images f32[B, 8, 8, 1] to logits f32[B, 10]."""

    def conv(x: jax.Array, number: int, stride: int) -> jax.Array:
        kind = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, params[f"w{number}"], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=kind
        )
        return jax.nn.relu(x + params[f"b{number}"][None, None, None])

    features = conv(conv(images, 0, 1), 1, 2).reshape(images.shape[0], -1)
    return features @ params["w2"] + params["b2"][None]
